// SPDX-License-Identifier: Apache-2.0
//! The kernel side as it is: `probes`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use broker::effect::Masks;
use broker::event::{Class, EventSet, EventType};
use broker::slot::{FileKey, ProcessKey, Slot, SlotSet};
use broker::time::Time;
use broker::verdict::Outcome;
use probes::events::{AskTerms, EventCoverage, Hooks, Mechanism, Mute, Ring, WatchedFile, Written};
use probes::{ProcessKeys, ReadyCollection, RulesError};
use rules::{Collection, RuleSet};

use super::asking::Asking;
use super::{
    Asked, Availability, Counts, Kernel, KernelError, MuteTarget, Prepared, Preparer, RuleCount,
    RulesRefused, Terms, written,
};
use crate::log;

/// The programs of this host's kernel, and the rings of its clients.
#[derive(Debug)]
pub struct LiveKernel {
    hooks: Hooks,
    keys: ProcessKeys,
    rings: BTreeMap<Slot, Ring>,
    coverage: Vec<EventCoverage>,
    asking: Asking,
    /// Processes that are clients.
    processes: BTreeMap<Slot, ProcessKey>,
    /// Clients that are asked about something, or were: their processes never wait for a verdict.
    askers: SlotSet,
    /// When it was looked for events that no program was run for.
    missed_looked: Instant,
}

/// How often that is.
const MISSED_EACH: Duration = Duration::from_secs(1);

impl LiveKernel {
    /// Loads the programs. Nothing is attached before somebody subscribes. If there are
    /// `ask_directories`, what is executed there is asked about, through fanotify and not the gate.
    /// With `pins`, goes on with what an earlier daemon left there.
    pub fn load(ask_directories: &[PathBuf], pins: Option<&Path>) -> Result<Self, KernelError> {
        let hooks = pins.map_or_else(Hooks::load, |pins| Hooks::load_after(u64::MAX, pins));
        let hooks = hooks.map_err(failed("loading the programs of events"))?;
        let keys = ProcessKeys::load().map_err(failed("loading the program for process keys"))?;
        let coverage = hooks.coverage();
        let asking = Asking::open(&hooks, ask_directories)?;
        let (rings, processes) = (BTreeMap::new(), BTreeMap::new());
        let (askers, missed_looked) = (SlotSet::default(), Instant::now());
        Ok(Self { hooks, keys, rings, coverage, asking, processes, askers, missed_looked })
    }
}

impl LiveKernel {
    /// Of the process that was the slot's client until now.
    fn no_longer_exempt(&mut self, slot: Slot) -> Result<(), KernelError> {
        match self.processes.get(&slot) {
            Some(process) if self.askers.contains(slot) => self.asking.forget(slot, *process),
            _ => Ok(()),
        }
    }
}

pub(super) fn failed<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> KernelError {
    move |error| KernelError { operation, reason: error.to_string() }
}

/// The refusal in the daemon's words.
fn refused(error: RulesError) -> RulesRefused {
    let text = error.to_string();
    match error {
        RulesError::CannotDeny { kind, .. }
        | RulesError::CannotTell { kind, .. }
        | RulesError::NoDigest { kind, .. } => {
            RulesRefused::Unavailable { event: kind, reason: text }
        }
        RulesError::Refused(refused) => RulesRefused::Wrong(refused),
        RulesError::NoCollection(name) => RulesRefused::NoCollection(name),
        RulesError::InUse(name) => RulesRefused::InUse(name),
        RulesError::TooManyCollections => RulesRefused::TooMany { what: "collections", limit: 16 },
        RulesError::TooManyRoots => RulesRefused::TooMany {
            what: "processes whose descendants are told apart, of all clients",
            limit: 64,
        },
        RulesError::NoClient(_) | RulesError::Kernel(_) => {
            RulesRefused::Kernel(KernelError { operation: "installing rules", reason: text })
        }
    }
}

pub(super) fn number(slot: Slot) -> u32 {
    u32::try_from(slot.index()).unwrap_or(u32::MAX)
}

fn mute(target: &MuteTarget) -> Mute {
    match target {
        MuteTarget::Process(ProcessKey { pid, start }) => {
            Mute::Process { pid: *pid, start: *start }
        }
        MuteTarget::Executable { device, inode } => {
            Mute::Executable { device: *device, inode: *inode }
        }
        MuteTarget::PathPrefix(prefix) => Mute::Path(prefix.clone()),
        MuteTarget::Cgroup(id) => Mute::Cgroup(*id),
    }
}

impl Kernel for LiveKernel {
    fn availability(&self, event: EventType, class: Class) -> Availability {
        let mut all = self.coverage.iter();
        let found = all.find(|coverage| u16::from(coverage.kind.number()) == event.number());
        let lacking = |what: &str| Availability::Unavailable { reason: what.to_owned() };
        let Some(found) = found else {
            return lacking("nothing tells of it in this version");
        };
        if class == Class::Ask {
            let hooks = found.ask.clone().map(|_| found.kind.never_asked());
            return self.asking.availability(event, hooks);
        }
        let name = |mechanism: &Mechanism| match mechanism {
            Mechanism::Tracepoint => "tracepoint".to_owned(),
            Mechanism::Lsm | Mechanism::Rule => "LSM hook".to_owned(),
            Mechanism::Gate => "sleepable LSM hook".to_owned(),
            Mechanism::SystemCall => "tracepoint of system calls (sys_exit)".to_owned(),
        };
        let by_calls = found.kind.told_by_calls();
        match (&found.notify, &found.deny, class) {
            (Ok(mechanism @ Mechanism::SystemCall), _, Class::Notify) => Availability::Reduced {
                mechanism: name(mechanism),
                reason: by_calls.unwrap_or_default().to_owned(),
            },
            (Ok(mechanism), _, Class::Notify) if found.lacks.is_some() => Availability::Reduced {
                mechanism: name(mechanism),
                reason: found.lacks.unwrap_or_default().to_owned(),
            },
            (_, Ok(mechanism), Class::Rule | Class::Ask) | (Ok(mechanism), _, Class::Notify) => {
                Availability::Available { mechanism: name(mechanism) }
            }
            (Ok(mechanism), Err(reason), _) => Availability::Reduced {
                mechanism: name(mechanism),
                reason: match found.lacks {
                    Some(lacks) => format!("rules can notify and not deny: {reason}; {lacks}"),
                    None => format!("rules can notify and not deny: {reason}"),
                },
            },
            (Err(reason), ..) => lacking(reason),
        }
    }

    fn admit(&mut self, slot: Slot, ring_bytes: u32) -> Result<OwnedFd, KernelError> {
        let ring = self.hooks.create_ring(ring_bytes).map_err(failed("making a ring"))?;
        let given = ring.as_fd().try_clone_to_owned().map_err(failed("copying a descriptor"))?;
        self.hooks.admit(number(slot), &ring).map_err(failed("admitting a client"))?;
        self.rings.insert(slot, ring);
        Ok(given)
    }

    fn remove(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.rings.remove(&slot);
        let forgotten = self.no_longer_exempt(slot);
        self.processes.remove(&slot);
        self.askers.remove(slot);
        self.hooks.remove(number(slot)).map_err(failed("removing a client"))?;
        self.asking.remove(slot).and(forgotten)
    }

    fn subscribe(
        &mut self,
        slot: Slot,
        masks: &Masks,
        terms: &BTreeMap<EventType, Terms>,
    ) -> Result<(), KernelError> {
        // Without a ring nobody is there to be told.
        if self.rings.contains_key(&slot) {
            let subscribed = self.hooks.subscribe(number(slot), masks.notify.0);
            subscribed.map_err(failed("subscribing"))?;
        }
        // What is declared holds before anybody is asked, and who is asked is exempt before.
        self.asking.subscribe(slot, masks)?;
        if masks.ask != EventSet::default() && !self.askers.contains(slot) {
            self.askers.insert(slot);
            if let Some(process) = self.processes.get(&slot) {
                self.asking.exempt(slot, *process)?;
            }
        }
        // The programs that ask are the gate's: without it nobody would answer them.
        let has_gate = self.asking.has_gate();
        let gate = self.coverage.iter().filter(|coverage| has_gate && coverage.ask.is_ok());
        let asked: Vec<_> = gate
            .filter_map(|coverage| {
                let event = EventType::from_number(coverage.kind.number().into())?;
                let Terms { time, deny_full } = *terms.get(&event)?;
                masks.ask.contains(event).then_some((coverage.kind, AskTerms { time, deny_full }))
            })
            .collect();
        self.hooks.ask(number(slot), &asked).map_err(failed("having a client asked"))
    }

    fn watch(&mut self, slot: Slot, paths: &[String], asked: bool) -> Result<(), KernelError> {
        let mut lacking = Ok(());
        // Without the gate no program asks about what is opened.
        if !self.asking.has_gate() {
            lacking = self.asking.watch(slot, if asked { paths } else { &[] });
        }
        let mut found = Vec::new();
        for path in paths {
            match WatchedFile::find(Path::new(path)) {
                Ok(file) => found.push(file),
                Err(error) => lacking = Err(failed("watching a directory")(error)),
            }
        }
        let watched = (!paths.is_empty()).then_some(found);
        self.hooks.watch(number(slot), watched).map_err(failed("watching a directory"))?;
        lacking
    }

    fn exempt(&mut self, slot: Slot, process: ProcessKey) -> Result<(), KernelError> {
        // The same one, which was away: what it has started is known.
        if self.processes.get(&slot) == Some(&process) {
            return Ok(());
        }
        self.no_longer_exempt(slot)?;
        self.processes.insert(slot, process);
        if self.askers.contains(slot) { self.asking.exempt(slot, process) } else { Ok(()) }
    }

    fn mute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError> {
        self.hooks.mute(number(slot), &mute(target)).map_err(failed("muting"))
    }

    fn unmute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError> {
        self.hooks.unmute(number(slot), &mute(target)).map_err(failed("unmuting"))
    }

    fn invert(&mut self, slot: Slot, inverted: bool) -> Result<(), KernelError> {
        self.hooks.invert(number(slot), inverted).map_err(failed("inverting mutes"))
    }

    fn waiting(&self, slot: Slot) -> Result<u32, KernelError> {
        let ring = self.rings.get(&slot).map(Ring::waiting).transpose();
        ring.map(Option::unwrap_or_default).map_err(failed("looking how full a ring is"))
    }

    fn install_rules(&mut self, slot: Slot, set: &RuleSet) -> Result<(), RulesRefused> {
        self.hooks.install_rules(number(slot), set).map_err(refused)
    }

    fn allow_rules(&mut self, slot: Slot, types: EventSet) -> Result<(), KernelError> {
        self.hooks.allow_rules(number(slot), types.0).map_err(failed("lifting rules"))
    }

    fn remove_rules(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.hooks.remove_rules(number(slot)).map_err(failed("removing rules"))
    }

    fn keep_rules(&mut self, pins: &Path) -> Result<(), KernelError> {
        self.hooks.keep_rules(pins).map_err(failed("keeping rules"))
    }

    fn let_go_of_older(&mut self) -> Result<(), KernelError> {
        self.hooks.let_go_of_older().map_err(failed("taking rules over"))
    }

    fn rule_counts(&self, slot: Slot) -> Result<Vec<RuleCount>, KernelError> {
        let counts = self.hooks.rule_counts(number(slot)).map_err(failed("counting rules"))?;
        let counts = counts.into_iter();
        Ok(counts.map(|of| RuleCount { matches: of.matches, denies: of.denies }).collect())
    }

    fn preparer(&self) -> Preparer {
        |collection| {
            let ready = Some(ReadyCollection::new(&collection).map_err(refused)?);
            Ok(Prepared { collection, ready })
        }
    }

    fn set_collection(
        &mut self,
        slot: Slot,
        name: &str,
        Prepared { collection, ready }: Prepared,
    ) -> Result<Collection, RulesRefused> {
        let ready = ready.map_or_else(|| ReadyCollection::new(&collection), Ok);
        let set = ready.and_then(|ready| self.hooks.set_collection(number(slot), name, ready));
        set.map(|()| collection).map_err(refused)
    }

    fn remove_collection(&mut self, slot: Slot, name: &str) -> Result<(), RulesRefused> {
        self.hooks.remove_collection(number(slot), name).map_err(refused)
    }

    fn counts(&self, slot: Slot) -> Result<Counts, KernelError> {
        let counts = self.hooks.statistics(number(slot)).map_err(failed("counting records"))?;
        Ok(Counts { written: counts.written, lost: counts.lost })
    }

    fn write(&mut self, slot: Slot, record: &[u8]) -> Result<(), KernelError> {
        // A record that finds no place is counted and told of as any other.
        let written = self.hooks.write(number(slot), record, true);
        written.map(|_| ()).map_err(failed("writing a record"))
    }

    fn keys(&mut self, pid: u32) -> Result<Option<(ProcessKey, ProcessKey)>, KernelError> {
        let keys = self.keys.of(pid).map_err(failed("asking for the key of a process"))?;
        Ok(keys.map(|keys| {
            let process = ProcessKey { pid: keys.pid, start: keys.start };
            (process, ProcessKey { pid: keys.parent_pid, start: keys.parent_start })
        }))
    }

    fn questions(&self) -> Option<BorrowedFd<'_>> {
        self.asking.is_open().then(|| self.asking.as_fd())
    }

    fn next_question(&mut self) -> Result<Option<Asked>, KernelError> {
        self.asking.next().or_else(|error| {
            // All that waited went on as declared; whoever comes next is asked again.
            log::error(&error);
            self.asking.open_again(&self.hooks).map(|()| None)
        })
    }

    fn ask(&mut self, slot: Slot, event_id: u64, deadline: Time) -> Result<bool, KernelError> {
        // The gate's programs leave out whom they could not tell.
        let Some(question) = self.asking.unwritten(event_id) else { return Ok(true) };
        let key = self.keys.of(question.process.pid).ok().flatten();
        let key = key.map(|keys| ProcessKey { pid: keys.pid, start: keys.start });
        let record = written::asked(question, key, deadline);
        let written = self.hooks.write(number(slot), record.as_bytes(), true);
        Ok(written.map_err(failed("writing a record"))? == Written::Done)
    }

    fn settle(&mut self, event_id: u64, outcome: Outcome) -> Result<(), KernelError> {
        self.asking.settle(event_id, outcome)
    }

    fn remember(&mut self, slot: Slot, event: EventType, file: FileKey) -> Result<(), KernelError> {
        self.asking.remember(slot, event, file)
    }

    fn forget_file(
        &mut self,
        slot: Slot,
        event: EventType,
        file: FileKey,
    ) -> Result<(), KernelError> {
        self.asking.forget_file(slot, event, file)
    }

    fn forget(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.asking.forget_verdicts(slot)
    }

    fn beats(&self) -> bool {
        let told = self.hooks.can_miss() && !self.rings.is_empty();
        told || self.questions().is_some()
    }

    fn beat(&mut self) -> Result<(), KernelError> {
        // What is being told of just now is not missed, so it is asked twice with time between.
        if self.hooks.can_miss() && self.missed_looked.elapsed() >= MISSED_EACH {
            self.missed_looked = Instant::now();
            self.hooks.tell_missed().map_err(failed("telling of what was missed"))?;
        }
        self.asking.beat()
    }
}
