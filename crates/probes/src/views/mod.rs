// SPDX-License-Identifier: Apache-2.0
//! What the running system's own interfaces admit to.

pub(crate) mod event;
pub(crate) mod files;
mod iterators;
mod listing;
mod modules;
mod proc;
pub(crate) mod records;

use std::collections::BTreeSet;

use guard::check::Missing;
use guard::views::{BpfKind, BpfView, TaskView, Views};

use iterators::Iterators;
use proc::Proc;
pub use records::TaskRecord;

use crate::error::ProbeError;
use crate::object::{self, Kind};

/// The interfaces of the running system.
///
/// Each is opened by itself: where one is not to be had, its calls give the reason and the others
/// work. All numbers of tasks are those of the pid namespace of this process.
#[derive(Debug)]
pub struct LiveViews {
    iterators: Result<Iterators, Missing>,
    proc: Result<Proc, Missing>,
}

impl LiveViews {
    /// Opens what can be opened.
    pub fn open() -> Self {
        Self {
            iterators: Iterators::load().map_err(Missing::because),
            proc: Proc::open().map_err(Missing::because),
        }
    }

    /// Threads as the BPF iterator shows them, with their numbers in the initial pid namespace and
    /// their kernel addresses.
    pub fn task_records(&self) -> Result<Vec<TaskRecord>, Missing> {
        self.iterators()?.tasks().map_err(Missing::because)
    }

    fn iterators(&self) -> Result<&Iterators, Missing> {
        self.iterators.as_ref().map_err(Clone::clone)
    }

    fn proc(&self) -> Result<&Proc, Missing> {
        self.proc.as_ref().map_err(Clone::clone)
    }
}

impl Views for LiveViews {
    fn tasks_in_proc(&self) -> Result<Vec<TaskView>, Missing> {
        self.proc()?.tasks().map_err(Missing::because)
    }

    fn tasks_iterated(&self) -> Result<Vec<TaskView>, Missing> {
        let records = self.task_records()?;
        // What is not in our namespace has no number in it, and /proc does not show it either.
        let seen = records.iter().filter(|record| record.own_tid != 0);
        Ok(seen.map(|record| TaskView { tgid: record.own_tgid, tid: record.own_tid }).collect())
    }

    fn task_answers(&self, tgid: u32, tid: u32) -> Result<bool, Missing> {
        self.proc()?.answers(tgid, tid).map_err(Missing::because)
    }

    fn bpf_listed(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        listing::listed(kind).map_err(Missing::because)
    }

    fn bpf_iterated(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        let records = self.iterators()?.bpf(kind).map_err(Missing::because)?;
        Ok(records
            .iter()
            .map(|record| BpfView {
                id: record.id,
                kind: record.kind,
                name: records::text(&record.name),
            })
            .collect())
    }

    fn current_task(&self) -> Result<u64, Missing> {
        self.iterators()?.caller().map_err(Missing::because)
    }

    fn file(&self, path: &str) -> Result<String, Missing> {
        files::content(path).map_err(Missing::because)
    }

    fn modules_in_sysfs(&self) -> Result<BTreeSet<String>, Missing> {
        modules::in_sysfs().map_err(Missing::because)
    }

    fn modules_in_kallsyms(&self) -> Result<BTreeSet<String>, Missing> {
        modules::in_kallsyms().map_err(Missing::because)
    }

    fn own_bpf(&self) -> Result<Vec<(BpfKind, u32)>, Missing> {
        let own = object::own().into_iter().map(|(kind, id)| match kind {
            Kind::Program => (BpfKind::Program, id),
            Kind::Map => (BpfKind::Map, id),
            Kind::Link => (BpfKind::Link, id),
        });
        Ok(own.collect())
    }

    fn raise_event(&self) -> Result<String, Missing> {
        event::raise().map_err(Missing::because)
    }
}

/// The content of a small file of /proc, /sys, securityfs or tracefs, mounted or not.
pub(crate) fn system_file(path: &str) -> Result<String, ProbeError> {
    files::content(path)
}
