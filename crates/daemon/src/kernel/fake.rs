// SPDX-License-Identifier: Apache-2.0
//! A kernel side of plain tables, for tests and fuzzing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use broker::effect::Masks;
use broker::event::{Class, EventType};
use broker::slot::{ProcessKey, Slot};
use rustix::fs::MemfdFlags;

use super::{Availability, Counts, Kernel, KernelError, MuteTarget};

/// Keeps what it is told. Its rings are empty files in memory.
#[derive(Debug, Default)]
pub struct FakeKernel {
    /// What each slot has.
    pub slots: BTreeMap<Slot, FakeSlot>,
    /// Classes that this host does not give, and the reason for each.
    pub unavailable: BTreeMap<(EventType, Class), String>,
    /// What the slot had that was removed last.
    pub removed: Option<FakeSlot>,
    /// Operations that fail.
    pub failing: BTreeSet<&'static str>,
}

/// One client's part.
#[derive(Debug, Default)]
pub struct FakeSlot {
    /// Of its ring.
    pub ring_bytes: u32,
    /// What it subscribes to.
    pub masks: Masks,
    /// What it does not want.
    pub mutes: BTreeSet<MuteTarget>,
    /// Whether that is all it wants.
    pub inverted: bool,
    /// Records that were written to it.
    pub records: Vec<Vec<u8>>,
    /// As [`Kernel::counts`] gives them.
    pub counts: Counts,
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

    fn subscribe(&mut self, slot: Slot, masks: &Masks) -> Result<(), KernelError> {
        self.slot("subscribe", slot)?.masks = *masks;
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
}
