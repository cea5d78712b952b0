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

/// Who is exempt. New tasks are marked as long as this is there.
#[derive(Debug)]
pub(crate) struct Exemptions {
    processes: MapHandle,
    marks: MapHandle,
    marking: Mapping,
    mark: Link,
    _inherit: [Link; 3],
    _object: Object,
    _own: Own,
}

/// The marks of tasks, for who is told of a process and not asked by its programs.
#[derive(Debug)]
pub(crate) struct Marks(MapHandle);

impl Exemptions {
    /// With maps of its own.
    ///
    /// # Errors
    /// When the kernel refuses BPF, or lacks what is needed (5.17 and later have it).
    pub(crate) fn load() -> Result<Self, ProbeError> {
        Self::load_with(&[])
    }

    /// With the maps of programs that ask. Descendants of who is exempt there already are marked.
    pub(super) fn among(maps: &GateMaps) -> Result<Self, ProbeError> {
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
            _inherit: [first?, again?, last?],
            _object: object,
            _own: own,
        };
        exemptions.go_through(0)?;
        Ok(exemptions)
    }

    /// From now on what a process does itself is no question to the clients in `own`, and what its
    /// descendants do none to those in `descendants`. Both are sets of slots, and all bits are everybody.
    ///
    /// # Errors
    /// When there is no more room, or the tasks that are there cannot be gone through.
    pub(crate) fn set(
        &mut self,
        process: ProcessKey,
        own: u64,
        descendants: u64,
    ) -> Result<(), ProbeError> {
        let gone = self.clients_of(process)? & !descendants;
        let exemption = GateExemption { own, descendants };
        set(&self.processes, key(process).bytes(), exemption.bytes())?;
        self.go_through(gone)
    }

    /// A process that was exempt is asked about as all others are, or has ended; and so are its descendants,
    /// unless nobody was to be asked about them.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub(crate) fn remove(&mut self, process: ProcessKey) -> Result<(), ProbeError> {
        let gone = self.clients_of(process)?;
        remove(&self.processes, key(process).bytes())?;
        self.go_through(gone)
    }

    /// The clients by whose name the descendants of a process are marked.
    fn clients_of(&self, process: ProcessKey) -> Result<u64, ProbeError> {
        let known = get(&self.processes, key(process).bytes())?;
        let known = known.as_deref().and_then(GateExemption::parse);
        // Everybody is another mark, which stays.
        let named = known.filter(|known| known.descendants != u64::MAX);
        Ok(named.map_or(0, |known| known.descendants))
    }

    /// For who is asked in another thread.
    pub(crate) fn marks(&self) -> Result<Marks, ProbeError> {
        Ok(Marks(object::with_libbpf(WHAT, || MapHandle::try_from(&self.marks))?))
    }

    /// Marks what descends from who is exempt, and takes these clients out of all other marks. Twice: what
    /// is made meanwhile has the mark that its parent had.
    fn go_through(&mut self, gone: u64) -> Result<(), ProbeError> {
        let marking = GateMarking { gone };
        // SAFETY: the mapping holds one of them, page-aligned; programs read it only during the walks
        // below, which need `self` unshared.
        unsafe { self.marking.start().cast::<GateMarking>().as_ptr().write_volatile(marking) };
        for _ in 0..2 {
            let mut iterator = object::with_libbpf(WHAT, || Iter::new(&self.mark))?;
            let read = iterator.read_to_end(&mut Vec::new());
            read.map_err(|error| ProbeError::Failed { what: WHAT, reason: error.to_string() })?;
        }
        Ok(())
    }
}

impl Marks {
    /// Who is not asked about what a process does because of what it descends from, by its descriptor; nobody
    /// of a process that is gone.
    pub(crate) fn of(&self, process: BorrowedFd<'_>) -> Result<u64, ProbeError> {
        let mark = get(&self.0, &process.as_raw_fd().to_ne_bytes())?;
        let mark = mark.as_deref().and_then(GateMark::parse).unwrap_or_default();
        Ok(if mark.everybody == 0 { mark.clients } else { u64::MAX })
    }
}

fn key(process: ProcessKey) -> GateProcess {
    GateProcess { pid: process.pid, reserved: 0, start: process.start / TICK }
}
