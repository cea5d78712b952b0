// SPDX-License-Identifier: Apache-2.0
//! Opens what is looked at: a guest's memory, or a dump in any of the formats that are known.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use guard::{NoRegisters, Registers};
use kernel_memory::PhysicalMemory;
use kernel_memory::physical::flattened::{self, Flattened};
use kernel_memory::physical::kdump::{self, Kdump};
use kernel_memory::physical::vmcoreinfo::VmCoreInfo;
use kernel_memory::physical::{Extents, Note, Stretches, elf_core, lime, qemu_processors, raw};
use memmap2::Mmap;
use qmp::Qmp;

use super::guest_ram::GuestRam;
use super::registers::{OfDump, OfGuest};

/// Memory of a machine, and what comes with it.
pub(super) struct Source {
    /// Its memory.
    pub(super) memory: Box<dyn PhysicalMemory>,
    /// The registers of its processors.
    pub(super) registers: Box<dyn Registers>,
    /// What the source itself says of the kernel, beside what its memory holds.
    pub(super) vmcoreinfo: Option<VmCoreInfo>,
    /// What is worth knowing of how it was opened.
    pub(super) notices: Vec<String>,
}

/// The memory of a guest that runs. With a monitor, QEMU tells registers and where memory lies.
pub(super) fn guest(path: &Path, socket: Option<&Path>, may_pause: bool) -> anyhow::Result<Source> {
    let file = open(path)?;
    let ram = GuestRam::map(&file).with_context(|| path.display().to_string())?;
    let size = file.metadata().with_context(|| path.display().to_string())?.len();
    let mut notices = Vec::new();
    let mut monitor = match socket {
        Some(socket) => Some(Qmp::open(socket).context(
            "the monitor of QEMU cannot be used; is it there (-qmp unix:SOCKET,server=on,wait=off), \
             and is nobody else connected to it?",
        )?),
        None => {
            notices.push(
                "the registers of the processors are not known, and where the kernel is is the \
                 guest's own word: give QEMU's monitor with --qmp"
                    .to_owned(),
            );
            None
        }
    };
    let extents = layout(size, monitor.as_mut(), &mut notices)?;
    let registers: Box<dyn Registers> = match monitor {
        Some(monitor) => Box::new(OfGuest::new(monitor, may_pause)),
        None => Box::new(NoRegisters),
    };
    let memory = Box::new(Stretches::new("guest RAM", ram, extents));
    Ok(Source { memory, registers, vmcoreinfo: None, notices })
}

/// Where the memory of a guest lies.
fn layout(
    size: u64,
    monitor: Option<&mut Qmp>,
    notices: &mut Vec<String>,
) -> anyhow::Result<Extents> {
    if !raw::is_ambiguous(size) {
        return Ok(raw::q35(size));
    }
    if let Some(monitor) = monitor {
        let answer = monitor.human("info mtree -f")?;
        if let Some(low) = qmp::memory::low_bytes(&answer, size) {
            return Ok(raw::split(size, low));
        }
    }
    notices.push(
        "where the memory continues above the devices is taken to be as on a q35 machine, as \
         nothing tells it"
            .to_owned(),
    );
    Ok(raw::q35(size))
}

/// A dump.
pub(super) fn dump(path: &Path) -> anyhow::Result<Source> {
    let file = open(path)?;
    // SAFETY: the mapping is only read. Should somebody write to the file meanwhile, the parsers and
    // checks survive it as they survive any bytes; should somebody cut it off, this process ends with
    // SIGBUS and tells no lie.
    let map = unsafe { Mmap::map(&file) };
    let map = map.with_context(|| format!("cannot map {}", path.display()))?;
    of_format(map).with_context(|| path.display().to_string())
}

fn of_format(map: Mmap) -> anyhow::Result<Source> {
    if map.starts_with(&elf_core::MAGIC) {
        let core = elf_core::parse(&map)?;
        let (registers, vmcoreinfo) = of_notes(&core.notes);
        let extents = core.extents;
        let memory = Box::new(Stretches::new("ELF core", map, extents));
        return Ok(Source { memory, registers, vmcoreinfo, notices: Vec::new() });
    }
    if map.starts_with(&kdump::MAGIC) {
        return Ok(of_kdump(Kdump::open(map)?));
    }
    if map.starts_with(&flattened::MAGIC) {
        return Ok(of_kdump(Kdump::open(Flattened::open(map)?)?));
    }
    if map.starts_with(&lime::MAGIC) {
        let extents = lime::parse(&map)?;
        let memory = Box::new(Stretches::new("LiME dump", map, extents));
        let registers = Box::new(NoRegisters);
        return Ok(Source { memory, registers, vmcoreinfo: None, notices: Vec::new() });
    }
    let mut notices = vec![
        "the file has no header of a dump and is taken for the memory of a machine as it is"
            .to_owned(),
    ];
    let size = map.len() as u64;
    let extents = layout(size, None, &mut notices)?;
    let memory = Box::new(Stretches::new("raw dump", map, extents));
    Ok(Source { memory, registers: Box::new(NoRegisters), vmcoreinfo: None, notices })
}

fn of_kdump<F>(dump: Kdump<F>) -> Source
where
    Kdump<F>: PhysicalMemory + 'static,
    F: kernel_memory::physical::FileBytes,
{
    let (registers, in_notes) = of_notes(&dump.notes());
    let vmcoreinfo = VmCoreInfo::parse(dump.vmcoreinfo()).or(in_notes);
    Source { memory: Box::new(dump), registers, vmcoreinfo, notices: Vec::new() }
}

fn of_notes(notes: &[Note<'_>]) -> (Box<dyn Registers>, Option<VmCoreInfo>) {
    let vmcoreinfo = notes.iter().find(|note| note.name == "VMCOREINFO");
    let vmcoreinfo = vmcoreinfo.and_then(|note| VmCoreInfo::parse(note.content));
    (Box::new(OfDump::new(&qemu_processors(notes))), vmcoreinfo)
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata().with_context(|| path.display().to_string())?;
    if !metadata.is_file() || metadata.len() == 0 {
        bail!("{} is not a file with memory in it", path.display());
    }
    Ok(file)
}
