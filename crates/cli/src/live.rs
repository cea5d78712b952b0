// SPDX-License-Identifier: Apache-2.0
//! The running kernel, opened once: symbols, types, every path to its memory, the system's own
//! interfaces, the journal and the baseline.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use guard::baseline::{Baseline, Identity};
use guard::checks;
use guard::journal::{Entry, Journal};
use guard::{Guard, Pace, Report, System};
use kernel_image::Symbols;
use kernel_image::btf::Btf;
use kernel_memory::{Kernel, KernelMemory};
use probes::{
    JournalReader, Kcore, LiveReader, LiveRegisters, LiveViews, ModuleDirectory, Path, ProbeError,
    Taken,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::baseline::{self, Place};
use crate::clock::monotonic_ns;
use crate::report::BaselineUsed;
use crate::signals::EndSignals;
use crate::watch::{Drained, Subject, Watched, Woken};

/// Entries that the journal holds between two passes.
const JOURNAL_LIMIT: usize = 65_536;

/// The check that raises an event on purpose and looks whether it arrived.
const SELF: &str = "self";

/// What the subcommands can be told that run checks.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Run only these checks; `ringfence doctor` tells of each
    #[arg(
        long, value_name = "CHECK", num_args = 1.., value_delimiter = ',', hide_possible_values = true,
        value_parser = PossibleValuesParser::new(check_names())
    )]
    only: Vec<String>,

    #[command(flatten)]
    baseline: baseline::Arguments,
}

impl Arguments {
    /// All checks, with baselines in `place`.
    pub(crate) fn all_checks(place: Place) -> Self {
        Self { only: Vec::new(), baseline: place.into() }
    }

    /// The checks that are to run.
    pub(crate) fn guard(&self) -> anyhow::Result<Guard> {
        Guard::of(&self.only).map_err(|name| anyhow::anyhow!("there is no check named {name}"))
    }

    /// Which baseline to use.
    pub(crate) fn baseline(&self) -> &baseline::Arguments {
        &self.baseline
    }
}

fn check_names() -> Vec<&'static str> {
    guard::checks::all().iter().map(|check| check.name()).collect()
}

/// The running kernel, as far as it does not change while it is looked at.
pub(crate) struct Host {
    /// Which run of which kernel it is.
    pub(crate) identity: Identity,
    /// Names for addresses.
    pub(crate) symbols: Symbols,
    /// What memory should hold.
    pub(crate) baseline: Baseline,
    /// The same in words.
    pub(crate) baseline_used: BaselineUsed,
    /// What is worth knowing of how all this was opened, one sentence each.
    pub(crate) notices: Vec<String>,
    types: Btf,
    reader: LiveReader,
    others: Vec<Box<dyn KernelMemory>>,
    views: LiveViews,
    modules: ModuleDirectory,
    registers: LiveRegisters,
}

impl Host {
    /// Opens everything. What only some checks need and cannot be had is told by those checks.
    pub(crate) fn open(arguments: &baseline::Arguments) -> anyhow::Result<Self> {
        let mut notices = Vec::new();
        let reader = open_reader(&mut notices)?;
        let identity = identity()?;
        let symbols = probes::live_symbols()?;
        let types = probes::live_types()?;
        let kernel = Kernel { memory: &reader, symbols: &symbols, types: &types };
        let views = LiveViews::open();
        let facts = || checks::facts(&kernel, &views);
        let baseline = baseline::obtain(&kernel, &identity, arguments, facts, &mut notices)?;
        let baseline_used = baseline::used(&baseline, arguments);
        let others = other_paths(&reader, &mut notices);
        let modules = arguments.modules(&identity.release);
        Ok(Self {
            identity,
            symbols,
            baseline,
            baseline_used,
            notices,
            types,
            reader,
            others,
            views,
            modules,
            registers: LiveRegisters::open(),
        })
    }

    /// How memory is read.
    pub(crate) fn reader_in_words(&self) -> String {
        let others: Vec<_> = self.others.iter().map(|other| other.name()).collect();
        match others.as_slice() {
            [] => self.reader.name().to_owned(),
            others => format!("{}, compared with {}", self.reader.name(), others.join(", ")),
        }
    }

    /// Hands everything to `look`, with what the kernel said it changed.
    pub(crate) fn with_system<T>(
        &self,
        journal: &Journal,
        look: impl FnOnce(&System<'_>) -> T,
    ) -> T {
        let others: Vec<&dyn KernelMemory> = self.others.iter().map(AsRef::as_ref).collect();
        look(&System {
            kernel: Kernel { memory: &self.reader, symbols: &self.symbols, types: &self.types },
            other_paths: &others,
            views: &self.views,
            baseline: &self.baseline,
            modules: &self.modules,
            registers: &self.registers,
            journal,
        })
    }
}

/// Which kernel runs. One that was linked without a build id has an empty one.
pub(crate) fn identity() -> anyhow::Result<Identity> {
    let host = probes::identity()?;
    Ok(Identity {
        release: host.release,
        build_id: host.build_id.unwrap_or_default(),
        boot_id: host.boot_id,
    })
}

/// Inline loads, or the helper where this kernel has no other way, which is then said.
pub(crate) fn open_reader(notices: &mut Vec<String>) -> anyhow::Result<LiveReader> {
    let inline = match LiveReader::open(Path::Inline) {
        Ok(reader) => return Ok(reader),
        Err(error) => error,
    };
    let reader = LiveReader::open(Path::Helper)?;
    notices.push(format!(
        "memory is read through a helper function of the kernel, which a rootkit can hook: {inline}"
    ));
    Ok(reader)
}

/// Further paths to the same memory, to be compared with the first.
fn other_paths(reader: &LiveReader, notices: &mut Vec<String>) -> Vec<Box<dyn KernelMemory>> {
    let mut others: Vec<Box<dyn KernelMemory>> = Vec::new();
    if reader.path() == Path::Inline {
        match LiveReader::open(Path::Helper) {
            Ok(helper) => others.push(Box::new(helper)),
            Err(error) => notices.push(format!("memory cannot be read in a second way: {error}")),
        }
    }
    // Many kernels have none, and `doctor` tells; two paths are there without it.
    if let Ok(kcore) = Kcore::open() {
        others.push(Box::new(kcore));
    }
    others
}

/// The running kernel with the checks that are run over it and the journal that they look into.
pub(crate) struct Live {
    host: Host,
    guard: Guard,
    journal: Journal,
    /// Where the journal's entries come from, if this kernel has such a source.
    source: Option<JournalReader>,
    /// What was taken from there and comes into the journal with the next pass.
    taken: Vec<Drained>,
}

impl Live {
    /// Opens everything. The journal comes first, so that what changes meanwhile is in it.
    pub(crate) fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let guard = arguments.guard()?;
        let (journal, source) = match JournalReader::open() {
            Ok(source) => (Journal::running(JOURNAL_LIMIT), Some(source)),
            Err(error) => (Journal::unavailable(error.to_string()), None),
        };
        let mut host = Host::open(&arguments.baseline)?;
        if let Err(reason) = journal.state() {
            host.notices.push(format!("the kernel announces no changes: {reason}"));
        }
        Ok(Self { host, guard, journal, source, taken: Vec::new() })
    }

    /// Finds out whether the kernel tells of changes to its text. One pass has no use for that: it
    /// cannot tell what changed since the one before.
    fn try_text_pokes(mut self) -> Self {
        if let Some(Err(error)) = self.source.as_mut().map(JournalReader::try_text_pokes) {
            let reason = error.to_string();
            self.host.notices.push(format!("the kernel announces new code only: {reason}"));
            self.journal = self.journal.without_text_pokes(reason);
        }
        self
    }

    /// What does not change while it is looked at.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Runs all checks once. The journal is read after the pass, and the check that looks into it
    /// for an event that it raised itself then looks again.
    pub(crate) fn check(&mut self) -> Report {
        self.take();
        self.read_journal();
        let guard = &mut self.guard;
        let mut report = self.host.with_system(&self.journal, |system| guard.pass(system));
        self.take();
        self.read_journal();
        let guard = &mut self.guard;
        self.host.with_system(&self.journal, |system| guard.again(&[SELF], system, &mut report));
        report
    }

    /// Takes what the kernel said since the last time.
    fn take(&mut self) -> Drained {
        let Some(source) = &mut self.source else { return Drained::default() };
        if self.journal.is_doubted() {
            source.renew_silent();
        }
        let Taken { entries, lost } = source.take();
        let drained = Drained { entries, lost };
        self.taken.push(drained.clone());
        drained
    }

    /// Moves what was taken into the journal. In the midst of a pass nothing comes into it: one check
    /// must not know more than the one before it.
    fn read_journal(&mut self) {
        for Drained { entries, lost } in self.taken.drain(..) {
            for entry in entries {
                self.journal.push(entry);
            }
            self.journal.add_lost(lost);
        }
    }
}

/// The running kernel, watched.
pub(crate) struct LiveWatch {
    live: Live,
    signals: EndSignals,
    /// When the pass under way began.
    began: u64,
}

impl LiveWatch {
    /// Opens everything; from now on SIGINT and SIGTERM end the watch and not the process.
    pub(crate) fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let signals = EndSignals::catch()?;
        let mut live = Live::open(arguments)?.try_text_pokes();
        // A kernel without modules loads none that it could be silent about.
        if let Some(Err(error)) = live.source.as_ref().map(JournalReader::modules)
            && !matches!(error, ProbeError::Unsupported { .. })
        {
            let reason = error.to_string();
            live.host.notices.push(format!("the kernel announces no modules: {reason}"));
        }
        Ok(Self { live, signals, began: monotonic_ns() })
    }
}

impl Watched for LiveWatch {
    fn subject(&self) -> Subject {
        Subject {
            kernel: self.live.host.identity.clone(),
            baseline: self.live.host.baseline.kind(),
            notices: self.live.host.notices.clone(),
        }
    }

    fn symbols(&self) -> &Symbols {
        &self.live.host.symbols
    }

    fn describe(&self, entry: &Entry) -> String {
        let Live { host, journal, .. } = &self.live;
        host.with_system(journal, |system| {
            let sites = host.baseline.sites(&system.kernel);
            guard::watch::describe_change(entry, &system.kernel, sites)
        })
    }

    fn checks(&self) -> Vec<(&'static str, Pace)> {
        self.live.guard.checks().map(|check| (check.name(), check.pace())).collect()
    }

    fn drain(&mut self) -> Drained {
        self.live.take()
    }

    fn begin(&mut self) {
        self.began = monotonic_ns();
        self.live.read_journal();
    }

    fn look(&mut self, check: &str) -> Report {
        let Live { host, guard, journal, .. } = &mut self.live;
        host.with_system(journal, |system| guard.look(check, system))
    }

    fn end(&mut self) {
        // What was said before this pass began was in the journal during it.
        self.live.journal.forget_before(self.began);
    }

    fn wait(&mut self, timeout: Duration, journal: bool) -> anyhow::Result<Woken> {
        let mut descriptors = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(source) = self.live.source.as_ref().filter(|_| journal) {
            let ready = source.descriptors();
            descriptors.extend(ready.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        let timeout = Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty());
        Ok(match (ready.next(), ready.any(|ready| ready)) {
            (Some(true), _) => Woken::End,
            (_, true) => Woken::Journal,
            _ => Woken::Timeout,
        })
    }
}
