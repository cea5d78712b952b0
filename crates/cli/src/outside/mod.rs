// SPDX-License-Identifier: Apache-2.0
//! A kernel that is looked at from outside: in the memory of a guest while it runs, or in a dump.
//!
//! Nothing in the guest takes part: its memory is read where the hypervisor has it, translated by the
//! page tables that lie in it, and the symbols and types are those of the kernel's image. Whoever
//! controls the guest can change what is seen only by changing what runs.

mod guest_ram;
mod kernel;
mod registers;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use guard::baseline::image::FACT_SOURCES;
use guard::baseline::{Baseline, BaselineKind, Identity};
use guard::checks;
use guard::journal::Journal;
use guard::{Guard, MemoryViews, Report, System};
use kernel_image::btf::Btf;
use kernel_image::{KernelImage, Symbols};
use kernel_memory::page_tables::Levels;
use kernel_memory::physical::Translated;
use kernel_memory::{Kernel, PhysicalMemory};
use probes::ModuleDirectory;

use crate::baseline;
use crate::report::{BaselineUsed, Subject, SubjectKind};
use crate::running_image;
use crate::store::Store;
use kernel::Located;
use source::Source;

/// What is looked at instead of the running kernel.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Look at a guest from outside: the file that QEMU has as its memory (share=on), while it runs
    #[arg(long, value_name = "FILE", conflicts_with = "core")]
    guest_ram: Option<PathBuf>,

    /// QEMU's monitor, which tells the registers of the guest's processors
    #[arg(long, value_name = "SOCKET", requires = "guest_ram")]
    qmp: Option<PathBuf>,

    /// Look at a dump: ELF core, kdump, LiME, or memory as it is
    #[arg(long, value_name = "FILE")]
    core: Option<PathBuf>,

    /// Whether the guest may be halted for a moment.
    #[arg(skip)]
    may_pause: bool,
}

impl Arguments {
    /// The same; the guest may be halted for what is told of it in no other way.
    pub(crate) fn pausing(&self, may_pause: bool) -> Self {
        Self { may_pause, ..self.clone() }
    }

    /// A dump.
    pub(crate) fn of_core(core: &Path) -> Self {
        Self { core: Some(core.to_owned()), ..Self::default() }
    }

    /// Whether something else than the running kernel is meant.
    pub(crate) fn are_given(&self) -> bool {
        self.guest_ram.is_some() || self.core.is_some()
    }
}

/// A kernel seen from outside.
pub(crate) struct Outside {
    /// Which kernel it is.
    pub(crate) identity: Identity,
    /// Names for addresses.
    pub(crate) symbols: Symbols,
    /// The baseline in words.
    pub(crate) baseline_used: BaselineUsed,
    /// Where it is and how it was found.
    pub(crate) subject: Subject,
    /// What is worth knowing of how all this was opened, one sentence each.
    pub(crate) notices: Vec<String>,
    source: Source,
    place: Place,
    types: Btf,
    baseline: Baseline,
    modules: ModuleDirectory,
}

/// Where the kernel's page tables are.
struct Place {
    root: u64,
    levels: Levels,
    encryption: u64,
}

impl Outside {
    /// Opens the source, finds the kernel in it, and makes the baseline from the kernel's image.
    pub(crate) fn open(
        arguments: &Arguments,
        baselines: &baseline::Arguments,
    ) -> anyhow::Result<Self> {
        if baselines.is_new_wanted() {
            bail!(
                "--new-baseline takes the state of the running kernel; from outside the baseline \
                 is always the kernel's image"
            );
        }
        let (kind, path, source) = match (&arguments.guest_ram, &arguments.core) {
            (Some(ram), _) => {
                let source = source::guest(ram, arguments.qmp.as_deref(), arguments.may_pause)?;
                (SubjectKind::GuestRam, ram, source)
            }
            (None, Some(core)) => (SubjectKind::Core, core, source::dump(core)?),
            (None, None) => bail!("neither --guest-ram nor --core was given"),
        };
        let located = kernel::locate(&source, baselines.image())
            .with_context(|| path.display().to_string())?;
        let Located { image, slide, root, levels, encryption, how } = located;
        let symbols = image.symbols().moved(slide);
        let types = image.btf_bytes().context(
            "the kernel's image has no types (CONFIG_DEBUG_INFO_BTF), by which memory is read",
        )?;
        let types = Btf::from_vec(types.to_vec())?;
        let memory =
            kernel_memory::physical::Translated::new(&*source.memory, root, levels, encryption);
        let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
        let identity = Identity {
            release: image.release().to_owned(),
            build_id: running_image::build_id(&image),
            boot_id: boot_id(&kernel),
        };
        let mut notices = source.notices.clone();
        let reader = words(&*source.memory, &*source.registers, path, &how);
        let baseline = make_baseline(image, &kernel, &identity, baselines, &mut notices)?;
        let baseline_used =
            BaselineUsed { kind: baseline.kind(), words: format!("digest {}", baseline.digest()) };
        let modules = baselines.modules(&identity.release);
        Ok(Self {
            identity,
            baseline_used,
            subject: Subject { kind, reader, slide: Some(slide) },
            notices,
            place: Place { root, levels, encryption },
            symbols,
            source,
            types,
            baseline,
            modules,
        })
    }

    /// Hands everything to `look`.
    pub(crate) fn with_system<T>(&self, look: impl FnOnce(&System<'_>) -> T) -> T {
        let Place { root, levels, encryption } = self.place;
        let physical: &dyn PhysicalMemory = &*self.source.memory;
        let memory = Translated::new(physical, root, levels, encryption);
        let journal = Journal::unavailable("a kernel announces nothing to the outside");
        let kernel = Kernel { memory: &memory, symbols: &self.symbols, types: &self.types };
        look(&System {
            kernel,
            other_paths: &[],
            views: &MemoryViews::new(kernel),
            baseline: &self.baseline,
            modules: &self.modules,
            registers: &*self.source.registers,
            journal: &journal,
        })
    }

    /// Runs the checks once.
    pub(crate) fn check(&self, guard: &mut Guard) -> Report {
        self.with_system(|system| guard.pass(system))
    }
}

fn words(
    memory: &dyn PhysicalMemory,
    registers: &dyn guard::Registers,
    path: &Path,
    how: &str,
) -> String {
    let bytes: u64 = memory.ranges().iter().map(|range| range.end - range.start).sum();
    let registers = match registers.processors() {
        Ok(processors) => format!("registers of {} by {}", processors.len(), registers.source()),
        Err(_) => "no registers".to_owned(),
    };
    format!(
        "{} {}, {} MiB, {registers}; kernel found by {how}",
        memory.name(),
        path.display(),
        bytes >> 20
    )
}

/// The id of the boot (`sysctl_bootid`, drivers/char/random.c), which the kernel makes up when it is
/// first asked for it; zeroes until then, and where the symbol is missing.
fn boot_id(kernel: &Kernel<'_>) -> String {
    let bytes = kernel.symbol("sysctl_bootid").and_then(|at| kernel.bytes_at(at, 16));
    let digits: String =
        bytes.unwrap_or_else(|_| vec![0; 16]).iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// What memory should hold by the image. With a state directory, what was sealed there in this boot
/// is used again, so that what may only be set while booting is held to the first look.
fn make_baseline(
    image: KernelImage,
    kernel: &Kernel<'_>,
    identity: &Identity,
    arguments: &baseline::Arguments,
    notices: &mut Vec<String>,
) -> anyhow::Result<Baseline> {
    let cannot = "no baseline could be made from the kernel's image";
    // What a baseline that is sealed already knows is not looked for again.
    let facts = || checks::facts(kernel, &MemoryViews::new(*kernel));
    let is_known = identity.boot_id.bytes().any(|digit| !matches!(digit, b'0' | b'-'));
    let store = arguments.state_directory().filter(|_| is_known);
    if arguments.state_directory().is_some() && store.is_none() {
        notices.push(
            "nothing is sealed: the kernel has no boot id yet, by which one boot is told from \
             another"
                .to_owned(),
        );
    }
    let baseline = match store {
        None => Baseline::from_image(image, kernel, identity.clone(), facts())
            .map_err(|missing| anyhow::anyhow!(missing.0))
            .context(cannot)?,
        Some(directory) => {
            let store = Store::of_image(directory, &identity.build_id, &identity.release);
            let sealed = store.open()?.map(|map| Baseline::open(Box::new(map), identity));
            let sealed = sealed.and_then(Result::ok);
            match sealed.filter(|sealed| sealed.kind() == BaselineKind::Image) {
                Some(sealed) => sealed,
                None => {
                    store
                        .replace(|file| {
                            Baseline::write_from_image(image, kernel, identity, facts(), file)
                        })
                        .context(cannot)?;
                    let map = store.open()?.context("the baseline vanished")?;
                    Baseline::open(Box::new(map), identity)?
                }
            }
        }
    };
    notices.extend(baseline.fact(FACT_SOURCES).map(str::to_owned));
    Ok(baseline)
}
