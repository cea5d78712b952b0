// SPDX-License-Identifier: Apache-2.0
//! What the system's own interfaces admit to, to be held against what memory says.
//!
//! The guard does no I/O: whoever runs it implements [`Views`]. A dump has none of these, and
//! [`NoViews`] says so.

use std::collections::BTreeSet;

use crate::check::Missing;

/// A task as some interface shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskView {
    /// Process id (thread group id) in the initial pid namespace or in ours where we have another.
    pub tgid: u32,
    /// Thread id in the same namespace.
    pub tid: u32,
}

/// A BPF program, map or link as some interface shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BpfView {
    /// Its id.
    pub id: u32,
    /// Its type as a number of the uapi (`enum bpf_prog_type`, `bpf_map_type`, `bpf_link_type`).
    pub kind: u32,
    /// Its name; links have none.
    pub name: String,
}

/// Kinds of BPF object that have ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfKind {
    /// Programs.
    Program,
    /// Maps.
    Map,
    /// Links.
    Link,
}

/// What the system's own interfaces admit to. Each call looks anew.
pub trait Views {
    /// Threads that /proc lists, by reading directories (`getdents64`).
    fn tasks_in_proc(&self) -> Result<Vec<TaskView>, Missing>;
    /// Threads that a BPF task iterator walks over.
    fn tasks_iterated(&self) -> Result<Vec<TaskView>, Missing>;
    /// Whether /proc answers for one thread when asked for it by number, without listing.
    fn task_answers(&self, tgid: u32, tid: u32) -> Result<bool, Missing>;
    /// BPF objects that the bpf system call lists (`BPF_*_GET_NEXT_ID`), with their details.
    fn bpf_listed(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing>;
    /// BPF objects that a BPF iterator walks over.
    fn bpf_iterated(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing>;
    /// The kernel address of a `task_struct`: that of the calling thread.
    fn current_task(&self) -> Result<u64, Missing>;
    /// The content of a small file of /proc, /sys or tracefs, such as `/proc/sys/kernel/modprobe`.
    /// `/sys/kernel/security` and `/sys/kernel/tracing` work wherever these are mounted, or not.
    fn file(&self, path: &str) -> Result<String, Missing>;
    /// Where the content of such a file is really read from, for evidence.
    fn source_of(&self, path: &str) -> String {
        path.to_owned()
    }
    /// The modules that have a directory below /sys/module, without what is built in.
    fn modules_in_sysfs(&self) -> Result<BTreeSet<String>, Missing> {
        no_views()
    }
    /// The modules that /proc/kallsyms names, without BPF programs and what ftrace and kprobes put
    /// there.
    fn modules_in_kallsyms(&self) -> Result<BTreeSet<String>, Missing> {
        no_views()
    }
    /// The id of each BPF program, map and link that belongs to the guard itself.
    fn own_bpf(&self) -> Result<Vec<(BpfKind, u32)>, Missing>;
    /// Makes the kernel announce a change on purpose (it loads and drops a BPF program) and tells
    /// its name; the journal must then hold it.
    fn raise_event(&self) -> Result<String, Missing>;
}

/// No interfaces at all: a dump, or a guest seen from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoViews;

fn no_views<T>() -> Result<T, Missing> {
    Err(Missing::because("from outside there are no interfaces of the system to compare with"))
}

impl Views for NoViews {
    fn tasks_in_proc(&self) -> Result<Vec<TaskView>, Missing> {
        no_views()
    }
    fn tasks_iterated(&self) -> Result<Vec<TaskView>, Missing> {
        no_views()
    }
    fn task_answers(&self, _tgid: u32, _tid: u32) -> Result<bool, Missing> {
        no_views()
    }
    fn bpf_listed(&self, _kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        no_views()
    }
    fn bpf_iterated(&self, _kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        no_views()
    }
    fn current_task(&self) -> Result<u64, Missing> {
        no_views()
    }
    fn file(&self, _path: &str) -> Result<String, Missing> {
        no_views()
    }
    fn own_bpf(&self) -> Result<Vec<(BpfKind, u32)>, Missing> {
        no_views()
    }
    fn raise_event(&self) -> Result<String, Missing> {
        no_views()
    }
}
