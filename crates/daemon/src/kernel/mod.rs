// SPDX-License-Identifier: Apache-2.0
//! What the daemon wants from the kernel side, as a trait: tests and fuzzing have it without a kernel.

mod asking;
mod fake;
mod live;
mod written;

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use broker::effect::Masks;
use broker::event::{Class, EventSet, EventType};
use broker::slot::{FileKey, ProcessKey, Slot};
use broker::time::Time;
use broker::verdict::{Outcome, Question};
use rules::{Collection, RuleSet};

pub use fake::FakeKernel;
pub use live::LiveKernel;

/// What a rule did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// How often it matched, with no earlier rule of its client having decided.
    pub matches: u64,
    /// How often it denied.
    pub denies: u64,
}

/// Why rules or a collection were not installed.
#[derive(Debug)]
pub enum RulesRefused {
    /// This host does not see it, cannot deny it, or does not know the digests that a rule asks for.
    Unavailable {
        /// Which event.
        event: &'static str,
        /// Of which rule, and why.
        reason: String,
    },
    /// What they say cannot be.
    Wrong(rules::Refused),
    /// A rule asks for a collection of this name, and there is none.
    NoCollection(String),
    /// The collection of this name is asked for by a rule.
    InUse(String),
    /// Too much of something, for this client or for all together.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
    /// The kernel failed.
    Kernel(KernelError),
}

/// A collection that is in the kernel already, where there is one, and that nobody asks yet.
#[derive(Debug)]
pub struct Prepared {
    collection: Collection,
    ready: Option<probes::ReadyCollection>,
}

impl Prepared {
    /// How many digests it has, each counted once.
    #[must_use]
    pub fn count(&self) -> usize {
        self.collection.count()
    }
}

/// Makes a collection ready. Of a million digests that takes a fraction of a second, so it is done by a thread of
/// its own ([`crate::measure`]).
pub type Preparer = fn(Collection) -> Result<Prepared, RulesRefused>;

/// The kernel refused what should have worked.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {reason}")]
pub struct KernelError {
    /// What was tried, in a few words.
    pub operation: &'static str,
    /// What it said.
    pub reason: String,
}

/// Whether this host gives one class of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Yes, by this mechanism.
    Available {
        /// Hook, tracepoint or listener.
        mechanism: String,
    },
    /// Yes, by this mechanism, but not all of it or not without a way round.
    Reduced {
        /// Hook, tracepoint or listener.
        mechanism: String,
        /// What is not seen.
        reason: String,
    },
    /// No.
    Unavailable {
        /// What is missing, and what would help.
        reason: String,
    },
}

impl Availability {
    /// Whether a client can have it at all.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self, Self::Unavailable { .. })
    }
}

/// Whose events are muted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MuteTarget {
    /// This process.
    Process(ProcessKey),
    /// Processes that run this file.
    Executable {
        /// major << 20 | minor.
        device: u64,
        /// Its number there.
        inode: u64,
    },
    /// Processes whose executable's path begins so.
    PathPrefix(Vec<u8>),
    /// Processes in the cgroup with this id.
    Cgroup(u64),
}

/// How many records of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written to its ring.
    pub written: u64,
    /// Lost, because the ring was full, there was no buffer, or the kernel ran no program for it.
    pub lost: u64,
}

/// What a client that is asked about an event has declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it has for its verdict.
    pub time: Duration,
    /// Whether it is a denial if the question does not fit into its ring.
    pub deny_full: bool,
}

/// What comes of tasks that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One waits to hear whether it may.
    Question(Question),
    /// The one with the event of this number does not wait any more.
    Withdrawn(u64),
}

/// The kernel side. A slot is what a client is there; nothing is said of who has it.
pub trait Kernel {
    /// Whether this host gives the class of the event. Asked only for classes that the event can
    /// have.
    fn availability(&self, event: EventType, class: Class) -> Availability;

    /// From now on the slot has a new ring of this many bytes (a power of two), no subscriptions, no
    /// mutes, and counts from zero. Gives the descriptor that a client maps.
    fn admit(&mut self, slot: Slot, ring_bytes: u32) -> Result<OwnedFd, KernelError>;

    /// Nothing is written for the slot any more.
    fn remove(&mut self, slot: Slot) -> Result<(), KernelError>;

    /// From now on the slot has exactly these events; `terms` are those of the events that it is asked
    /// about. A slot without a ring can be asked about events too: who has it denies them while it is
    /// away, and gets no record.
    fn subscribe(
        &mut self,
        slot: Slot,
        masks: &Masks,
        terms: &BTreeMap<EventType, Terms>,
    ) -> Result<(), KernelError>;

    /// From now on the slot's client is told of the files below these paths and, if it is `asked`, asked
    /// about their opening, and of no others; with no path it is told of all files and asked about none. A
    /// path that leads nowhere is an error, and the others count.
    fn watch(&mut self, slot: Slot, paths: &[String], asked: bool) -> Result<(), KernelError>;

    /// The process is the slot's client. Once that is asked about anything it never waits for a verdict, and
    /// what it starts never for its.
    fn exempt(&mut self, slot: Slot, process: ProcessKey) -> Result<(), KernelError>;

    /// What the target does is not written for the slot, or with inverted mutes only that.
    fn mute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError>;

    /// Takes a mute away.
    fn unmute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError>;

    /// Whether the slot's mutes select what is written, instead of what is not.
    fn invert(&mut self, slot: Slot, inverted: bool) -> Result<(), KernelError>;

    /// Bytes in the ring of the slot that its client has not taken yet.
    fn waiting(&self, slot: Slot) -> Result<u32, KernelError>;

    /// From now on the slot has these rules and no others. Where it fails, those that it had stay.
    /// They stay as a client goes ([`Kernel::remove`]).
    fn install_rules(&mut self, slot: Slot, set: &RuleSet) -> Result<(), RulesRefused>;

    /// From now on the slot's rules are looked at for these types of events only.
    fn allow_rules(&mut self, slot: Slot, types: EventSet) -> Result<(), KernelError>;

    /// The slot has neither rules nor collections any more.
    fn remove_rules(&mut self, slot: Slot) -> Result<(), KernelError>;

    /// Has rules decide also when this process has ended, by files below this directory. What an earlier
    /// one left there goes on.
    fn keep_rules(&mut self, pins: &Path) -> Result<(), KernelError>;

    /// Nothing that an earlier process left decides any more.
    fn let_go_of_older(&mut self) -> Result<(), KernelError>;

    /// What each rule of the slot did since they were installed, in their order.
    fn rule_counts(&self, slot: Slot) -> Result<Vec<RuleCount>, KernelError>;

    /// What makes a collection ready to be set.
    fn preparer(&self) -> Preparer;

    /// Puts a collection in the place of the one of this name, or beside the others. Gives its digests back.
    fn set_collection(
        &mut self,
        slot: Slot,
        name: &str,
        prepared: Prepared,
    ) -> Result<Collection, RulesRefused>;

    /// Takes a collection away.
    fn remove_collection(&mut self, slot: Slot, name: &str) -> Result<(), RulesRefused>;

    /// What was written and lost.
    fn counts(&self, slot: Slot) -> Result<Counts, KernelError>;

    /// Writes a record, as in `api/ringfence.h`, to the ring of the slot, and wakes its client. What
    /// only the kernel side knows (boot id, numbers, loss) it fills in.
    fn write(&mut self, slot: Slot, record: &[u8]) -> Result<(), KernelError>;

    /// Keys of the process with this number and of its parent, as the kernel's records have them;
    /// `None` if there is none.
    fn keys(&mut self, pid: u32) -> Result<Option<(ProcessKey, ProcessKey)>, KernelError>;

    /// Readable when there may be something for [`Kernel::next_question`]; `None` if nobody can be asked
    /// on this host.
    fn questions(&self) -> Option<BorrowedFd<'_>>;

    /// The next of what comes of tasks that wait; none if there is none now.
    fn next_question(&mut self) -> Result<Option<Asked>, KernelError>;

    /// The client of the slot is asked: it gets the record, unless the kernel has written it already.
    /// Whether there was room for it in its ring.
    fn ask(&mut self, slot: Slot, event_id: u64, deadline: Time) -> Result<bool, KernelError>;

    /// The task that waits goes on.
    fn settle(&mut self, event_id: u64, outcome: Outcome) -> Result<(), KernelError>;

    /// The client of the slot allows this and need not be asked again.
    fn remember(&mut self, slot: Slot, event: EventType, file: FileKey) -> Result<(), KernelError>;

    /// The client of the slot does not allow this any more, if it did.
    fn forget_file(
        &mut self,
        slot: Slot,
        event: EventType,
        file: FileKey,
    ) -> Result<(), KernelError>;

    /// Nothing that the client of the slot allowed holds any more.
    fn forget(&mut self, slot: Slot) -> Result<(), KernelError>;

    /// Whether [`Kernel::beat`] has anything to do.
    fn beats(&self) -> bool;

    /// Called at least twice a second: without it all that waits goes on as was declared, and nobody
    /// is told of what was missed.
    fn beat(&mut self) -> Result<(), KernelError>;
}
