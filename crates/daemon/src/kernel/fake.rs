// SPDX-License-Identifier: Apache-2.0
//! A kernel side of plain tables, for tests and fuzzing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use broker::effect::Masks;
use broker::event::{Class, EventSet, EventType};
use broker::slot::{FileKey, ProcessKey, Slot};
use broker::time::Time;
use broker::verdict::Outcome;
use rules::{Action, Collection, RuleSet};
use rustix::fs::MemfdFlags;

use super::{
    Asked, Availability, Counts, Kernel, KernelError, MuteTarget, Prepared, Preparer, RuleCount,
    RulesRefused, Terms,
};

/// Keeps what it is told. Its rings are empty files in memory.
#[derive(Debug, Default)]
pub struct FakeKernel {
    /// What each slot has.
    pub slots: BTreeMap<Slot, FakeSlot>,
    /// What slots that nobody has are asked about.
    pub absent: BTreeMap<Slot, EventSet>,
    /// Classes that this host does not give, and the reason for each.
    pub unavailable: BTreeMap<(EventType, Class), String>,
    /// What the slot had that was removed last.
    pub removed: Option<FakeSlot>,
    /// Rules and collections of each slot, whether somebody has it or not.
    pub rules: BTreeMap<Slot, FakeRules>,
    /// Where rules are kept, if they are.
    pub pins: Option<PathBuf>,
    /// Whether those of an earlier process still decide.
    pub older_rules: bool,
    /// Operations that fail.
    pub failing: BTreeSet<&'static str>,
    /// What [`Kernel::next_question`] gives, the first one first.
    pub asked: VecDeque<Asked>,
    /// Readable when `asked` has something; who puts something in writes to it.
    pub ready: Option<OwnedFd>,
    /// How questions were settled, by the number of the event.
    pub settled: BTreeMap<u64, Outcome>,
}

/// One client's part.
#[derive(Debug, Default)]
pub struct FakeSlot {
    /// Of its ring.
    pub ring_bytes: u32,
    /// What it subscribes to.
    pub masks: Masks,
    /// The terms of what it is asked about.
    pub terms: BTreeMap<EventType, Terms>,
    /// Where it is asked about the opening of files.
    pub watched: Vec<String>,
    /// Whether it is asked about what it watches.
    pub watches_to_decide: bool,
    /// The process that is exempt of questions.
    pub exempt: Option<ProcessKey>,
    /// Whether its ring has no room.
    pub full: bool,
    /// Questions that it was to be given, with their deadlines.
    pub given: BTreeMap<u64, Time>,
    /// What it need not be asked about.
    pub known: BTreeSet<(EventType, u64)>,
    /// What it does not want.
    pub mutes: BTreeSet<MuteTarget>,
    /// Whether that is all it wants.
    pub inverted: bool,
    /// Records that were written to it.
    pub records: Vec<Vec<u8>>,
    /// As [`Kernel::waiting`] gives it.
    pub waiting: u32,
    /// As [`Kernel::counts`] gives them.
    pub counts: Counts,
}

/// One client's rules.
#[derive(Debug, Default)]
pub struct FakeRules {
    /// Those that are installed.
    pub set: RuleSet,
    /// For which types they are looked at.
    pub allowed: EventSet,
    /// How many digests each collection has.
    pub collections: BTreeMap<String, usize>,
}

impl FakeKernel {
    fn fails(&self, operation: &'static str) -> Result<(), KernelError> {
        if self.failing.contains(operation) {
            return Err(KernelError { operation, reason: "as the test wants it".into() });
        }
        Ok(())
    }

    fn slot(&mut self, operation: &'static str, slot: Slot) -> Result<&mut FakeSlot, KernelError> {
        self.fails(operation)?;
        let missing = KernelError { operation, reason: "nobody has this slot".into() };
        self.slots.get_mut(&slot).ok_or(missing)
    }
}

impl Kernel for FakeKernel {
    fn availability(&self, event: EventType, class: Class) -> Availability {
        match self.unavailable.get(&(event, class)) {
            Some(reason) => Availability::Unavailable { reason: reason.clone() },
            None => Availability::Available { mechanism: "fake".into() },
        }
    }

    fn admit(&mut self, slot: Slot, ring_bytes: u32) -> Result<OwnedFd, KernelError> {
        const WHAT: &str = "admit";
        self.fails(WHAT)?;
        let failed = |reason: String| KernelError { operation: WHAT, reason };
        if self.slots.insert(slot, FakeSlot { ring_bytes, ..FakeSlot::default() }).is_some() {
            return Err(failed("the slot is taken".into()));
        }
        rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC)
            .map_err(|error| failed(error.to_string()))
    }

    fn remove(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.slot("remove", slot)?;
        self.removed = self.slots.remove(&slot);
        Ok(())
    }

    fn subscribe(
        &mut self,
        slot: Slot,
        masks: &Masks,
        terms: &BTreeMap<EventType, Terms>,
    ) -> Result<(), KernelError> {
        self.fails("subscribe")?;
        self.absent.remove(&slot);
        match self.slots.get_mut(&slot) {
            Some(slot) => (slot.masks, slot.terms) = (*masks, terms.clone()),
            None => drop(self.absent.insert(slot, masks.ask)),
        }
        Ok(())
    }

    fn watch(&mut self, slot: Slot, paths: &[String], asked: bool) -> Result<(), KernelError> {
        self.fails("watch")?;
        if let Some(slot) = self.slots.get_mut(&slot) {
            (slot.watched, slot.watches_to_decide) = (paths.to_vec(), asked);
        }
        Ok(())
    }

    fn exempt(&mut self, slot: Slot, process: ProcessKey) -> Result<(), KernelError> {
        self.slot("exempt", slot)?.exempt = Some(process);
        Ok(())
    }

    fn mute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError> {
        self.slot("mute", slot)?.mutes.insert(target.clone());
        Ok(())
    }

    fn unmute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError> {
        self.slot("unmute", slot)?.mutes.remove(target);
        Ok(())
    }

    fn invert(&mut self, slot: Slot, inverted: bool) -> Result<(), KernelError> {
        self.slot("invert", slot)?.inverted = inverted;
        Ok(())
    }

    fn waiting(&self, slot: Slot) -> Result<u32, KernelError> {
        self.fails("waiting")?;
        Ok(self.slots.get(&slot).map_or(0, |slot| slot.waiting))
    }

    fn install_rules(&mut self, slot: Slot, set: &RuleSet) -> Result<(), RulesRefused> {
        self.fails("install_rules").map_err(RulesRefused::Kernel)?;
        for rule in set.rules.iter().filter(|rule| matches!(rule.action, Action::Deny(_))) {
            for event in EventSet(rule.events).iter() {
                if let Some(reason) = self.unavailable.get(&(event, Class::Rule)) {
                    let reason = format!("rule {}: {reason}", rule.id);
                    return Err(RulesRefused::Unavailable { event: event.name(), reason });
                }
            }
        }
        self.rules.entry(slot).or_default().set = set.clone();
        Ok(())
    }

    fn allow_rules(&mut self, slot: Slot, types: EventSet) -> Result<(), KernelError> {
        self.rules.entry(slot).or_default().allowed = types;
        Ok(())
    }

    fn remove_rules(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.rules.remove(&slot);
        Ok(())
    }

    fn keep_rules(&mut self, pins: &Path) -> Result<(), KernelError> {
        self.fails("keep_rules")?;
        self.pins = Some(pins.to_owned());
        Ok(())
    }

    fn let_go_of_older(&mut self) -> Result<(), KernelError> {
        self.fails("let_go_of_older")?;
        self.older_rules = false;
        Ok(())
    }

    fn rule_counts(&self, slot: Slot) -> Result<Vec<RuleCount>, KernelError> {
        let rules = self.rules.get(&slot).map_or(0, |rules| rules.set.rules.len() as u64);
        Ok((0..rules).map(|matches| RuleCount { matches, denies: matches / 2 }).collect())
    }

    fn preparer(&self) -> Preparer {
        |collection| Ok(Prepared { collection, ready: None })
    }

    fn set_collection(
        &mut self,
        slot: Slot,
        name: &str,
        Prepared { collection, .. }: Prepared,
    ) -> Result<Collection, RulesRefused> {
        let rules = self.rules.entry(slot).or_default();
        rules.collections.insert(name.to_owned(), collection.count());
        Ok(collection)
    }

    fn remove_collection(&mut self, slot: Slot, name: &str) -> Result<(), RulesRefused> {
        let removed = self.rules.entry(slot).or_default().collections.remove(name);
        removed.map(|_| ()).ok_or_else(|| RulesRefused::NoCollection(name.to_owned()))
    }

    fn counts(&self, slot: Slot) -> Result<Counts, KernelError> {
        Ok(self.slots.get(&slot).map(|slot| slot.counts).unwrap_or_default())
    }

    fn write(&mut self, slot: Slot, record: &[u8]) -> Result<(), KernelError> {
        self.slot("write", slot)?.records.push(record.to_owned());
        Ok(())
    }

    fn keys(&mut self, pid: u32) -> Result<Option<(ProcessKey, ProcessKey)>, KernelError> {
        self.fails("keys")?;
        let key = |pid| ProcessKey { pid, start: u64::from(pid) * 1000 };
        Ok(Some((key(pid), key(1))))
    }

    fn questions(&self) -> Option<BorrowedFd<'_>> {
        self.ready.as_ref().map(AsFd::as_fd)
    }

    fn next_question(&mut self) -> Result<Option<Asked>, KernelError> {
        if let Some(ready) = &self.ready {
            // Whatever was written: it has been heard.
            let _ = rustix::io::read(ready, &mut [0; 8]);
        }
        Ok(self.asked.pop_front())
    }

    fn ask(&mut self, slot: Slot, event_id: u64, deadline: Time) -> Result<bool, KernelError> {
        let slot = self.slot("ask", slot)?;
        if !slot.full {
            slot.given.insert(event_id, deadline);
        }
        Ok(!slot.full)
    }

    fn settle(&mut self, event_id: u64, outcome: Outcome) -> Result<(), KernelError> {
        self.settled.insert(event_id, outcome);
        Ok(())
    }

    fn remember(&mut self, slot: Slot, event: EventType, file: FileKey) -> Result<(), KernelError> {
        self.slot("remember", slot)?.known.insert((event, file.inode));
        Ok(())
    }

    fn forget_file(
        &mut self,
        slot: Slot,
        event: EventType,
        file: FileKey,
    ) -> Result<(), KernelError> {
        self.slot("forget_file", slot)?.known.remove(&(event, file.inode));
        Ok(())
    }

    fn forget(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.slot("forget", slot)?.known.clear();
        Ok(())
    }

    fn beats(&self) -> bool {
        false
    }

    fn beat(&mut self) -> Result<(), KernelError> {
        Ok(())
    }
}
