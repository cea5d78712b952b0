// SPDX-License-Identifier: Apache-2.0
//! Finds the kernel in a machine's memory, and the image that it was booted from.

use std::path::{Path, PathBuf};

use anyhow::bail;
use guard::Registers;
use kernel_image::KernelImage;
use kernel_memory::page_tables::Levels;
use kernel_memory::physical::vmcoreinfo::VmCoreInfo;
use kernel_memory::physical::{Translated, find};

use super::source::Source;
use crate::running_image;

/// Registers and memory are not read at one moment: a processor may have left a process by the time
/// that its page tables are read. So they are compared so often before they count as different.
const READINGS: u32 = 5;

/// The kernel, and where it is.
pub(super) struct Located {
    pub(super) image: KernelImage,
    pub(super) slide: u64,
    pub(super) root: u64,
    pub(super) levels: Levels,
    pub(super) encryption: u64,
    /// How it was found, for people.
    pub(super) how: String,
}

/// Finds the kernel: by what it says of itself, if memory and processors bear that out, else by the
/// registers of the processors alone, which need an image to compare with.
pub(super) fn locate(source: &Source, named: Option<&Path>) -> anyhow::Result<Located> {
    let physical = &*source.memory;
    let mut refused: Vec<String> = Vec::new();
    let said = match &source.vmcoreinfo {
        Some(info) => vec![("a note of the dump".to_owned(), info.clone())],
        None => VmCoreInfo::search(physical)?
            .into_iter()
            .map(|(page, info)| (format!("VMCOREINFO at physical address {page:#x}"), info))
            .collect(),
    };
    let mut images = Images { named, parsed: None };
    let mut tried: Vec<&VmCoreInfo> = Vec::new();
    for (place, info) in &said {
        if tried.contains(&info) {
            continue;
        }
        tried.push(info);
        match said_by(source, info, &mut images) {
            Ok(image) => {
                return Ok(Located {
                    image,
                    slide: info.slide,
                    root: info.root,
                    levels: info.levels,
                    encryption: info.encryption,
                    how: place.clone(),
                });
            }
            Err(why) => refused.push(format!("{place}: {why:#}")),
        }
    }
    match by_processors(source, images) {
        Ok(Some(located)) => return Ok(located),
        Ok(None) => {}
        Err(why) => refused.push(format!("registers of the processors: {why:#}")),
    }
    if refused.is_empty() {
        bail!(
            "no kernel was found in the {}: there is no VMCOREINFO in it. Is it the memory of an \
             x86-64 Linux that has booted? With the registers of the processors (--qmp, or a dump \
             of QEMU's) and --image it is found without",
            physical.name()
        );
    }
    bail!("no kernel was found in the {}: {}", physical.name(), refused.join("; "))
}

/// The image of the kernel that says this of itself, if it is there and the processors run it.
fn said_by(
    source: &Source,
    info: &VmCoreInfo,
    images: &mut Images<'_>,
) -> anyhow::Result<KernelImage> {
    let (path, image) = images.of(info)?;
    let physical = &*source.memory;
    let memory = Translated::new(physical, info.root, info.levels, info.encryption);
    let borne_out = is_there(&memory, &image, info.slide, &path)
        .and_then(|()| run_by_processors(&memory, &image, info.slide, &*source.registers));
    match borne_out {
        Ok(()) => Ok(image),
        Err(why) => {
            images.parsed = Some((path, image));
            Err(why)
        }
    }
}

/// Images of kernels. The last one is kept: a guest that says many things of its kernel is not to keep
/// us busy with decoding.
struct Images<'a> {
    named: Option<&'a Path>,
    parsed: Option<(PathBuf, KernelImage)>,
}

impl Images<'_> {
    /// The image: the one that was named, or one where distributions put it.
    fn of(&mut self, info: &VmCoreInfo) -> anyhow::Result<(PathBuf, KernelImage)> {
        if let Some(path) = self.named {
            let image = self.take(path)?;
            let build_id = running_image::build_id(&image);
            if !info.build_id.is_empty() && info.build_id != build_id {
                self.parsed = Some((path.to_owned(), image));
                bail!(
                    "{} is another kernel: it has build id {build_id}, the one in memory is {} \
                     with build id {}",
                    path.display(),
                    info.release,
                    info.build_id
                );
            }
            return Ok((path.to_owned(), image));
        }
        if info.release.contains('/') {
            bail!("{:?} is not the release of a kernel", info.release);
        }
        let mut others = Vec::new();
        for path in running_image::places(&info.release).into_iter().filter(|path| path.exists()) {
            let image = self.take(&path)?;
            let build_id = running_image::build_id(&image);
            if info.build_id.is_empty() || info.build_id == build_id {
                return Ok((path, image));
            }
            others.push(format!("{} has build id {build_id}", path.display()));
            self.parsed = Some((path, image));
        }
        let others = match others.as_slice() {
            [] => String::new(),
            others => format!(" ({})", others.join(", ")),
        };
        bail!(
            "it is {} with build id {}, and the image of that kernel is not on this \
             machine{others}; name it with --image: it is the guest's /boot/vmlinuz-{}",
            info.release,
            info.build_id,
            info.release
        )
    }

    fn take(&mut self, path: &Path) -> anyhow::Result<KernelImage> {
        match self.parsed.take() {
            Some((parsed, image)) if parsed == path => Ok(image),
            _ => running_image::parse(path),
        }
    }
}

/// Fails unless memory holds the kernel of the image there.
fn is_there(
    memory: &Translated<'_>,
    image: &KernelImage,
    slide: u64,
    path: &Path,
) -> anyhow::Result<()> {
    let found = find::compare(memory, image, slide);
    if found.is_kernel() {
        return Ok(());
    }
    let seen = match found.banner.is_empty() {
        true => "nothing is mapped there".to_owned(),
        false => format!("there is {:?}", found.banner.chars().take(80).collect::<String>()),
    };
    bail!(
        "the kernel of {} is not in memory: {:?} expected, moved by {slide:#x}, and {seen}",
        path.display(),
        image.banner().chars().take(80).collect::<String>()
    )
}

/// Fails if a processor's page tables lead from the kernel's text to other memory: then what the
/// guest says is about a kernel that nobody runs.
fn run_by_processors(
    memory: &Translated<'_>,
    image: &KernelImage,
    slide: u64,
    registers: &dyn Registers,
) -> anyhow::Result<()> {
    let Some(text) = image.symbols().address_of("_text") else { return Ok(()) };
    let text = text.wrapping_add(slide);
    let expected = memory.physical(text).map(|(physical, _)| physical);
    let mut wrong = String::new();
    for _ in 0..READINGS {
        let Ok(processors) = registers.processors() else { return Ok(()) };
        let differs = processors.iter().find_map(|processor| {
            let (cr3, cr4) = (processor.cr3?, processor.cr4.unwrap_or(0));
            let leads_to = |memory: &Translated<'_>| memory.physical(text).map(|found| found.0);
            let own = find::by_registers(memory.source(), cr3, cr4, |own| leads_to(own).is_some());
            let seen = own.as_ref().and_then(leads_to);
            (seen != expected).then(|| {
                let seen = seen.map_or("nowhere".to_owned(), |seen| format!("to {seen:#x}"));
                let expected = expected.unwrap_or(0);
                format!(
                    "processor {} is led {seen} for the start of the text, not to {expected:#x}",
                    processor.number
                )
            })
        });
        match differs {
            None => return Ok(()),
            Some(how) => wrong = how,
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    bail!("no processor runs that kernel: {wrong}")
}

/// Finds the kernel of an image by the registers alone. None without registers or image.
fn by_processors(source: &Source, mut images: Images<'_>) -> anyhow::Result<Option<Located>> {
    let (Some(path), Ok(processors)) = (images.named, source.registers.processors()) else {
        return Ok(None);
    };
    let image = images.take(path)?;
    let root = ["init_top_pgt", "swapper_pg_dir"];
    let root = root.iter().find_map(|name| image.symbols().address_of(name));
    let mut why = anyhow::anyhow!("no processor has a CR3");
    for processor in processors {
        let (Some(cr3), cr4) = (processor.cr3, processor.cr4.unwrap_or(0)) else { continue };
        let physical = &*source.memory;
        let own = find::by_registers(physical, cr3, cr4, |own| find::slide(own, &image).is_some());
        let Some((own, slide)) = own.and_then(|own| Some((own, find::slide(&own, &image)?))) else {
            why = anyhow::anyhow!("CR3 of processor {} maps no kernel", processor.number);
            continue;
        };
        if let Err(other) = is_there(&own, &image, slide, path) {
            why = other;
            continue;
        }
        let kernels_own = root.and_then(|root| own.physical(root.wrapping_add(slide)));
        return Ok(Some(Located {
            slide,
            root: kernels_own.map_or(own.root(), |(physical, _)| physical),
            levels: own.levels(),
            encryption: 0,
            how: format!("CR3 of processor {}", processor.number),
            image,
        }));
    }
    Err(why)
}
