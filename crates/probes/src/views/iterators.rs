// SPDX-License-Identifier: Apache-2.0
//! Tasks and BPF objects as BPF iterators walk over them (bpf/views.bpf.c).

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use guard::views::BpfKind;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Iter, Link};

use super::records::{BpfRecord, CallerRecord, Plain, TaskRecord, records};
use crate::error::ProbeError;
use crate::kernel_types;
use crate::object::{self, Kind, Own};
use crate::privilege;
use crate::skeletons::views::ViewsSkelBuilder;
use crate::test_run::test_run;

const WHAT: &str = "loading the BPF iterators";

/// The loaded programs, each attached to its iterator. An iterator runs when it is read, and costs
/// nothing meanwhile.
#[derive(Debug)]
pub(crate) struct Iterators {
    tasks: Link,
    programs: Link,
    maps: Link,
    links: Link,
    caller: OwnedFd,
    _own: Own,
}

impl Iterators {
    /// Loads and attaches them.
    pub(crate) fn load() -> Result<Self, ProbeError> {
        let mut storage = MaybeUninit::uninit();
        let skeleton = object::with_libbpf(WHAT, || {
            let builder = ViewsSkelBuilder { obj_builder: kernel_types::builder()? };
            builder.open(&mut storage)?.load()
        })?;
        let programs = &skeleton.progs;
        let mut own = Own::default();
        let mut attach = |program: &libbpf_rs::ProgramMut<'_>| {
            own.add(Kind::Program, program.as_fd())?;
            let link = object::with_libbpf("attaching a BPF iterator", || program.attach())?;
            own.add(Kind::Link, link.as_fd())?;
            Ok::<Link, ProbeError>(link)
        };
        let tasks = attach(&programs.show_task)?;
        let maps = attach(&programs.show_map)?;
        let links = attach(&programs.show_link)?;
        let bpf_programs = attach(&programs.show_program)?;
        let caller = programs.show_caller.as_fd();
        own.add(Kind::Program, caller)?;
        let caller = caller.try_clone_to_owned();
        let caller =
            caller.map_err(|error| ProbeError::refused(WHAT, &privilege::BPF, &error, ""))?;
        Ok(Self { tasks, programs: bpf_programs, maps, links, caller, _own: own })
    }

    /// All threads.
    pub(crate) fn tasks(&self) -> Result<Vec<TaskRecord>, ProbeError> {
        read(&self.tasks)
    }

    /// All BPF objects of a kind.
    pub(crate) fn bpf(&self, kind: BpfKind) -> Result<Vec<BpfRecord>, ProbeError> {
        read(match kind {
            BpfKind::Program => &self.programs,
            BpfKind::Map => &self.maps,
            BpfKind::Link => &self.links,
        })
    }

    /// Where the `task_struct` of the calling thread is.
    pub(crate) fn caller(&self) -> io::Result<u64> {
        let mut context = CallerRecord::default();
        test_run(self.caller.as_fd(), &mut context)?;
        Ok(context.task)
    }
}

/// Has an iterator walk once.
fn read<T: Plain>(link: &Link) -> Result<Vec<T>, ProbeError> {
    let what = "reading a BPF iterator";
    let mut iterator = object::with_libbpf(what, || Iter::new(link))?;
    let mut bytes = Vec::new();
    let read = iterator.read_to_end(&mut bytes);
    read.map_err(|error| ProbeError::Failed { what, reason: error.to_string() })?;
    if bytes.len() % size_of::<T>() != 0 {
        return Err(ProbeError::Malformed {
            what: "what a BPF iterator wrote".into(),
            reason: format!("{} bytes are not whole records of {}", bytes.len(), size_of::<T>()),
        });
    }
    Ok(records(&bytes))
}
