// SPDX-License-Identifier: Apache-2.0
//! Modules that are loaded and that go, as the kernel's tracepoints tell of them
//! (bpf/module_events.bpf.c).

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;

use guard::journal::{Actor, Change, Entry};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, RingBuffer, RingBufferBuilder};

use super::Taken;
use crate::error::ProbeError;
use crate::kernel_types;
use crate::object::{self, Kind, Own};
use crate::skeletons::module_events::ModuleEventsSkelBuilder;

const WHAT: &str = "listening to modules being loaded (tracepoint module:module_load)";

/// `MODULE_NAME`.
const NAME: usize = 56;
/// `MODULE_TASK`.
const TASK: usize = 16;

/// `struct module_record`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ModuleRecord {
    pub(crate) time: u64,
    pub(crate) address: u64,
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
    pub(crate) loaded: u32,
    pub(crate) reserved: u32,
    pub(crate) comm: [u8; TASK],
    pub(crate) name: [u8; NAME],
}

impl ModuleRecord {
    /// The record in `bytes`; none unless it is exactly one.
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: there are as many bytes as the type has, and any bytes are a value of it: integers
        // and arrays of bytes.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    fn entry(&self) -> Entry {
        let actor = Actor { pid: self.tgid, tid: self.tid, comm: text(&self.comm) };
        let Self { address, loaded, .. } = *self;
        let change = Change::Module { address, loaded: loaded != 0, name: text(&self.name) };
        Entry { time_ns: self.time, actor, change }
    }
}

/// What stands before the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// The programs on the tracepoints, and the ring that they write to.
pub(crate) struct ModuleEvents {
    ring: RingBuffer<'static>,
    ring_map: MapHandle,
    counts: MapHandle,
    taken: Rc<RefCell<Taken>>,
    /// Records that did not fit, as far as they were told of.
    lost: u64,
    _links: [Link; 2],
    _own: Own,
}

impl std::fmt::Debug for ModuleEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleEvents").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl ModuleEvents {
    /// Begins to listen.
    pub(crate) fn open() -> Result<Self, ProbeError> {
        // Where there is no such tracepoint the kernel says only that a file is missing.
        if !Path::new("/proc/modules").exists() {
            let lacking = "it is built without modules (CONFIG_MODULES), so none can be loaded";
            return Err(ProbeError::Unsupported { what: WHAT, lacking: lacking.into() });
        }
        let mut storage = MaybeUninit::uninit();
        let skeleton = object::with_libbpf(WHAT, || {
            let builder = ModuleEventsSkelBuilder { obj_builder: kernel_types::builder()? };
            builder.open(&mut storage)?.load()
        })?;
        let mut own = Own::default();
        let mut attach = |program: &libbpf_rs::ProgramMut<'_>| {
            own.add(Kind::Program, program.as_fd())?;
            let link = object::with_libbpf(WHAT, || program.attach())?;
            own.add(Kind::Link, link.as_fd())?;
            Ok::<Link, ProbeError>(link)
        };
        let programs = &skeleton.progs;
        let links = [attach(&programs.module_loaded)?, attach(&programs.module_unloaded)?];
        let mut keep = |map: &libbpf_rs::MapMut<'_>| {
            own.add(Kind::Map, map.as_fd())?;
            object::with_libbpf(WHAT, || MapHandle::try_from(map))
        };
        let maps = &skeleton.maps;
        let (ring_map, counts) = (keep(&maps.modules)?, keep(&maps.bss)?);
        let taken = Rc::new(RefCell::new(Taken::default()));
        let into = Rc::clone(&taken);
        let ring = object::with_libbpf(WHAT, || {
            let mut builder = RingBufferBuilder::new();
            builder.add(&ring_map, move |bytes| {
                let mut taken = into.borrow_mut();
                match ModuleRecord::parse(bytes) {
                    Some(record) => taken.entries.push(record.entry()),
                    None => taken.lost += 1,
                }
                0
            })?;
            builder.build()
        })?;
        Ok(Self { ring, ring_map, counts, taken, lost: 0, _links: links, _own: own })
    }

    /// Takes what was told since the last time into `taken`.
    pub(super) fn take(&mut self, taken: &mut Taken) {
        // What cannot be read counts as lost: nobody may take the silence for an answer.
        let read = self.ring.consume().is_ok();
        taken.lost += u64::from(!read);
        let mut told = self.taken.borrow_mut();
        taken.entries.append(&mut told.entries);
        taken.lost += std::mem::take(&mut told.lost);
        let counted = self.counts.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        let counted = counted.and_then(|bytes| bytes.first_chunk::<8>().copied());
        if let Some(lost) = counted.map(u64::from_ne_bytes) {
            taken.lost += lost.saturating_sub(self.lost);
            self.lost = lost;
        }
    }
}

impl AsFd for ModuleEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring_map.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_the_module_and_who_loaded_it() {
        let mut bytes = Vec::new();
        for number in [7_u64, 0xffff_8000_0000_1000] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [40_u32, 41, 1, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(*b"insmod\0\0\0\0\0\0\0\0\0\0");
        bytes.extend(*b"dummy\0");
        assert!(ModuleRecord::parse(&bytes).is_none());
        bytes.resize(size_of::<ModuleRecord>(), 0);
        let entry = ModuleRecord::parse(&bytes).unwrap().entry();
        assert_eq!(entry.actor, Actor { pid: 40, tid: 41, comm: "insmod".into() });
        let (address, name) = (0xffff_8000_0000_1000, "dummy".to_owned());
        assert_eq!(
            (entry.time_ns, entry.change),
            (7, Change::Module { address, loaded: true, name })
        );
    }

    #[test]
    fn a_name_without_an_end_is_taken_whole() {
        assert_eq!(text(&[b'x'; 3]), "xxx");
        assert_eq!(text(b"a\0b"), "a");
    }
}
