// SPDX-License-Identifier: Apache-2.0
//! The kernel side as it is: `probes`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use broker::effect::Masks;
use broker::event::{Class, EventType};
use broker::slot::{ProcessKey, Slot};
use probes::ProcessKeys;
use probes::events::{EventCoverage, Hooks, Mechanism, Mute, Ring};

use super::{Availability, Counts, Kernel, KernelError, MuteTarget};

/// The programs of this host's kernel, and the rings of its clients.
#[derive(Debug)]
pub struct LiveKernel {
    hooks: Hooks,
    keys: ProcessKeys,
    rings: BTreeMap<Slot, Ring>,
    coverage: Vec<EventCoverage>,
}

impl LiveKernel {
    /// Loads the programs. Nothing is attached before somebody subscribes.
    pub fn load() -> Result<Self, KernelError> {
        let hooks = Hooks::load().map_err(failed("loading the programs of events"))?;
        let keys = ProcessKeys::load().map_err(failed("loading the program for process keys"))?;
        let coverage = hooks.coverage();
        Ok(Self { hooks, keys, rings: BTreeMap::new(), coverage })
    }
}

fn failed<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> KernelError {
    move |error| KernelError { operation, reason: error.to_string() }
}

fn number(slot: Slot) -> u32 {
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
        let here = match class {
            Class::Notify => &found.notify,
            Class::Rule => &found.deny,
            Class::Ask => &found.ask,
        };
        match (here, class) {
            (Err(reason), _) => lacking(reason),
            (Ok(_), Class::Rule) => lacking("rules cannot be installed in this version"),
            (Ok(_), Class::Ask) => lacking("nobody is asked in this version"),
            (Ok(mechanism), Class::Notify) => {
                let mechanism = match mechanism {
                    Mechanism::Tracepoint => "tracepoint",
                    Mechanism::Lsm => "LSM hook",
                    Mechanism::Gate => "sleepable LSM hook",
                };
                Availability::Available { mechanism: mechanism.to_owned() }
            }
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
        self.hooks.remove(number(slot)).map_err(failed("removing a client"))
    }

    fn subscribe(&mut self, slot: Slot, masks: &Masks) -> Result<(), KernelError> {
        let subscribed = self.hooks.subscribe(number(slot), masks.notify.0);
        subscribed.map_err(failed("subscribing"))
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
}
