// SPDX-License-Identifier: Apache-2.0
//! Processes whose work is no question to some clients, and the marks of their descendants:
//! bpf/lib/exempt.h says what for, bpf/exemptions.bpf.c marks.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libbpf_rs::{Iter, Link, MapHandle, Object};

use super::abi::{GateExemption, GateMark, GateMarking, GateProcess, Plain, TICK};
use super::maps::{EXEMPT, GateMaps, MARKS, get, remove, set};
use crate::error::ProbeError;
use crate::kernel_types;
use crate::mapping::Mapping;
use crate::object::{self, Kind, Own};
use crate::question::ProcessKey;

/// bpf/exemptions.bpf.c, built.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exemptions.bpf.o"));

const WHAT: &str = "marking what descends from clients";

/// Programs that do the same: bpf/lib/again.h.
const INHERIT: [&str; 3] = ["gate_inherit", "gate_inherit_again", "gate_inherit_last"];

/// Who is exempt: this process and all that it starts, of all questions, and whoever is added. New tasks are
/// marked as long as this is there. It may outlive the gate that it is for, and the next one go on with it.
#[derive(Debug)]
pub struct Exemptions {
    processes: MapHandle,
    marks: MapHandle,
    marking: Mapping,
    mark: Link,
    /// Clients that are to be in no mark.
    gone: u64,
    /// Those of them who may still be in one, because not all tasks could be gone through.
    left: u64,
    _inherit: [Link; 3],
    _object: Object,
    _own: Own,
}

/// Who is exempt, for who is told of a process and not asked by its programs.
#[derive(Debug)]
pub(crate) struct Exempted {
    processes: MapHandle,
    marks: MapHandle,
}

impl Exemptions {
    /// With maps of its own.
    ///
    /// # Errors
    /// When the kernel refuses BPF, or lacks what is needed (5.17 and later have it).
    pub(crate) fn load() -> Result<Self, ProbeError> {
        Self::load_with(&[])
    }

    /// With the maps of programs that ask.
    ///
    /// # Errors
    /// When the kernel refuses BPF.
    pub fn among(maps: &GateMaps) -> Result<Self, ProbeError> {
        Self::load_with(&maps.exempt())
    }

    fn load_with(shared: &[(&str, &MapHandle)]) -> Result<Self, ProbeError> {
        let object = object::with_libbpf(WHAT, || {
            let mut open = kernel_types::builder()?.open_memory(OBJECT)?;
            for (name, map) in shared {
                if let Some(mut ours) = open.maps_mut().find(|ours| ours.name() == *name) {
                    ours.reuse_fd(map.as_fd())?;
                }
            }
            open.load()
        })?;
        let mut own = Own::default();
        for map in object.maps() {
            own.add(Kind::Map, map.as_fd())?;
        }
        for program in object.progs() {
            own.add(Kind::Program, program.as_fd())?;
        }
        let map = |name| object::map(&object, name, WHAT);
        let marking = map("gate_marking")?;
        let marking = Mapping::new(marking.as_fd(), size_of::<GateMarking>(), true)
            .map_err(|error| ProbeError::Failed { what: WHAT, reason: error.to_string() })?;
        let (processes, marks) = (map(EXEMPT)?, map(MARKS)?);
        let mut link = |name| object::link(&object, name, WHAT, &mut own);
        let [first, again, last] = INHERIT.map(&mut link);
        let mark = link("gate_mark_task")?;
        let mut exemptions = Self {
            processes,
            marks,
            marking,
            mark,
            gone: 0,
            left: 0,
            _inherit: [first?, again?, last?],
            _object: object,
            _own: own,
        };
        let exemption = GateExemption { own: u64::MAX, descendants: 0, everybody: 1 };
        exemptions.put(super::process::key(std::process::id())?, exemption)?;
        Ok(exemptions)
    }

    /// From now on what a process does itself is no question to the clients in `own`, and what its
    /// descendants do none to those in `descendants`, however far down they are. Both are sets of slots.
    ///
    /// # Errors
    /// When there is no more room (1,024 processes), or the kernel does not go through its tasks. What it
    /// was before may not hold any more then.
    pub fn set(
        &mut self,
        process: ProcessKey,
        own: u64,
        descendants: u64,
    ) -> Result<(), ProbeError> {
        self.forget(self.clients_of(process)? & !descendants)?;
        self.put(process, GateExemption { own, descendants, everybody: 0 })
    }

    fn put(&mut self, process: ProcessKey, exemption: GateExemption) -> Result<(), ProbeError> {
        if exemption.descendants & self.left != 0 {
            self.forget(0)?;
        }
        self.gone &= !exemption.descendants;
        let process = key(process);
        set(&self.processes, process.bytes(), exemption.bytes())?;
        let mark = GateMark { clients: exemption.descendants, everybody: exemption.everybody };
        self.go_through(process, mark)
    }

    /// A process that was exempt is asked about as all others are, or has ended; and so are its descendants.
    ///
    /// # Errors
    /// When the kernel does not take it, or does not go through its tasks: that is done again before the slot
    /// is another's.
    pub fn remove(&mut self, process: ProcessKey) -> Result<(), ProbeError> {
        let clients = self.clients_of(process)?;
        remove(&self.processes, key(process).bytes())?;
        self.forget(clients)
    }

    /// How many tasks could not be marked, for want of memory: clients may be asked about what they have
    /// started.
    #[must_use]
    pub fn failed(&self) -> u64 {
        // SAFETY: as in `go_through`; a word that programs add to.
        unsafe { (&raw const (*self.shared()).failed).read_volatile() }
    }

    /// Takes clients out of all marks, with those of whom that is still to be done.
    fn forget(&mut self, clients: u64) -> Result<(), ProbeError> {
        self.gone |= clients;
        self.left |= clients;
        if self.left != 0 {
            self.go_through(GateProcess::default(), GateMark::default())?;
            self.left = 0;
        }
        Ok(())
    }

    /// The clients by whose name the descendants of a process are marked.
    fn clients_of(&self, process: ProcessKey) -> Result<u64, ProbeError> {
        Ok(exemption(&self.processes, process)?.map_or(0, |known| known.descendants))
    }

    /// The maps that programs share with it.
    #[cfg(test)]
    pub(super) fn maps(&self) -> [MapHandle; 2] {
        [&self.processes, &self.marks].map(|map| MapHandle::try_from(map).unwrap())
    }

    /// For who is asked in another thread.
    pub(crate) fn exempted(&self) -> Result<Exempted, ProbeError> {
        let [processes, marks] = [&self.processes, &self.marks]
            .map(|map| object::with_libbpf(WHAT, || MapHandle::try_from(map)));
        Ok(Exempted { processes: processes?, marks: marks? })
    }

    /// Marks what descends from a process, if there is one, and takes who has gone out of all marks. Twice:
    /// what is made meanwhile has the mark that its parent had.
    fn go_through(&mut self, process: GateProcess, mark: GateMark) -> Result<(), ProbeError> {
        let shared = self.shared();
        // SAFETY: the mapping holds one of them, page-aligned. Programs read `gone` at any time, a word; the
        // others only during the walks below, which need `self` unshared.
        unsafe {
            (&raw mut (*shared).gone).write_volatile(self.gone);
            (&raw mut (*shared).process).write_volatile(process);
            (&raw mut (*shared).mark).write_volatile(mark);
        }
        for _ in 0..2 {
            let mut iterator = object::with_libbpf(WHAT, || Iter::new(&self.mark))?;
            let read = iterator.read_to_end(&mut Vec::new());
            read.map_err(|error| ProbeError::Failed { what: WHAT, reason: error.to_string() })?;
        }
        Ok(())
    }

    fn shared(&self) -> *mut GateMarking {
        self.marking.start().cast::<GateMarking>().as_ptr()
    }
}

impl Exempted {
    /// Who is not asked about what a process does, for itself by its key and because of what it descends from
    /// by its descriptor. One that is gone has neither.
    pub(crate) fn of(
        &self,
        process: Option<ProcessKey>,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<u64, ProbeError> {
        let own = process.map_or(Ok(None), |process| exemption(&self.processes, process))?;
        let mark = descriptor.map_or(Ok(None), |descriptor| {
            get(&self.marks, &descriptor.as_raw_fd().to_ne_bytes())
        })?;
        let mark = mark.as_deref().and_then(GateMark::parse).unwrap_or_default();
        let descends = if mark.everybody == 0 { mark.clients } else { u64::MAX };
        Ok(own.map_or(0, |own| own.own) | descends)
    }
}

/// What is known of a process.
fn exemption(
    processes: &MapHandle,
    process: ProcessKey,
) -> Result<Option<GateExemption>, ProbeError> {
    Ok(get(processes, key(process).bytes())?.as_deref().and_then(GateExemption::parse))
}

fn key(process: ProcessKey) -> GateProcess {
    GateProcess { pid: process.pid, reserved: 0, start: process.start / TICK }
}
