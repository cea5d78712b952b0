// SPDX-License-Identifier: Apache-2.0
//! Tasks as kernel memory has them: on the task list, in the pid table, and in the lists that tie
//! tasks to others.
//!
//! Layouts are from BTF; what leads where is from include/linux/{sched,pid,sched/signal,cgroup-defs}.h
//! (the same from 6.1 to 6.18):
//! `init_task.tasks` rings all thread-group leaders; `signal->thread_head` rings the threads of
//! each; `pid_namespace.idr` leads to `struct pid`, whose `tasks[PIDTYPE_PID]` leads to the thread;
//! `sibling` rings the children of a parent and `cg_list` the members of a cgroup.

use std::collections::BTreeMap;

use kernel_memory::{AccessError, AddressMap, AddressSet, Kernel};

use crate::check::Missing;
use crate::checks::looks;
use crate::fields::{Fields, Record};
use crate::recover::Recovered;

/// `PID_MAX_LIMIT` (include/linux/threads.h): more tasks than that are a broken list.
const MOST_TASKS: usize = 4 << 20;

/// A task, told apart from any other that uses its number before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// Process id in the guard's pid namespace; 0 where its leader has none there.
    pub(super) tgid: u32,
    /// Thread id in the guard's pid namespace.
    pub(super) tid: u32,
    /// When it started: nanoseconds, CLOCK_MONOTONIC (`start_time`).
    pub(super) started: u64,
    /// Where its `task_struct` is.
    pub(super) address: u64,
}

/// `TASK_COMM_LEN` (include/linux/sched.h).
pub(super) type Comm = [u8; 16];

/// Where a task was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name, with what stands behind it.
    pub(super) comm: Comm,
    /// On the task list, or on the thread list of a leader that is.
    pub(super) on_list: bool,
    /// In the pid table.
    pub(super) in_table: bool,
}

/// All tasks at one moment, as far as one can say that while they run.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Those visible in the guard's pid namespace.
    pub(super) tasks: BTreeMap<Key, Found>,
}

// Positions in `Walker::of_task`.
const NEXT: usize = 0;
const NEXT_THREAD: usize = 1;
const PID: usize = 2;
const COMM: usize = 3;
const STARTED: usize = 4;
const LEADER: usize = 5;
const SIGNAL: usize = 6;
const THREAD_PID: usize = 7;
const NEXT_SIBLING: usize = 8;
const FIRST_CHILD: usize = 9;
const TASK_MEMBERS: [&str; 10] = [
    "tasks.next",
    "thread_node.next",
    "pid",
    "comm",
    "start_time",
    "group_leader",
    "signal",
    "thread_pid",
    "sibling.next",
    "children.next",
];

/// Offsets and addresses that stay the same from look to look.
#[derive(Debug)]
pub(in crate::checks) struct Walker {
    of_task: Fields,
    of_cgroup: Option<Fields>,
    first_task: u64,
    tasks: u64,
    thread_node: u64,
    thread_head: u64,
    pid_link: u64,
    pid_tasks: u64,
    sibling: u64,
    children: u64,
    cg_list: u64,
    css_heads: Vec<u64>,
    numbers: u64,
    upid_size: u64,
    /// The guard's pid namespace and its depth.
    namespace: u64,
    level: u64,
    /// The guard's own thread, if somebody could name it.
    own_task: Option<u64>,
}

impl Walker {
    /// Prepares the walk. `current` is any live task of the pid namespace to look from, best the
    /// guard's own; without one it is the initial namespace.
    pub(in crate::checks) fn new(
        kernel: &Kernel<'_>,
        recovered: &mut Recovered,
        current: Option<u64>,
    ) -> Result<Self, Missing> {
        let first_task = first_task(kernel, recovered, current)?;
        let of = |of: &str, member: &str| kernel.offset_of(of, member);
        let viewpoint = kernel.object("task_struct", current.unwrap_or(first_task))?;
        let pid = viewpoint.u64("thread_pid")?;
        let level = kernel.object("pid", pid)?.u64("level")?;
        let (numbers, upid_size) = (of("pid", "numbers")?, kernel.size_of("upid")?);
        let upid = pid.wrapping_add(numbers).wrapping_add(level.wrapping_mul(upid_size));
        let namespace = kernel.object("upid", upid)?.u64("ns")?;
        let css_heads = ["tasks", "mg_tasks", "dying_tasks"];
        Ok(Self {
            of_task: Fields::of(kernel, "task_struct", &TASK_MEMBERS)?,
            of_cgroup: Fields::of(kernel, "task_struct", &["cg_list.next", "cgroups"]).ok(),
            first_task,
            tasks: of("task_struct", "tasks")?,
            thread_node: of("task_struct", "thread_node")?,
            thread_head: of("signal_struct", "thread_head")?,
            pid_link: of("task_struct", "pid_links")?,
            pid_tasks: of("pid", "tasks")?,
            sibling: of("task_struct", "sibling")?,
            children: of("task_struct", "children")?,
            cg_list: of("task_struct", "cg_list").unwrap_or(0),
            css_heads: css_heads.iter().filter_map(|head| of("css_set", head).ok()).collect(),
            numbers,
            upid_size,
            namespace,
            level,
            own_task: current,
        })
    }

    /// Looks once.
    pub(super) fn look(&self, kernel: &Kernel<'_>) -> Result<Snapshot, Missing> {
        let table = self.pid_table(kernel)?;
        let mut known: AddressMap<Record<'_>> = AddressMap::default();
        let addresses: Vec<u64> = table.keys().copied().collect();
        self.read_into(kernel, &addresses, &mut known);
        let listed = self.walk_lists(kernel, &mut known);
        let related = self.follow_relations(kernel, &mut known);
        let numbers = self.numbers(kernel, &known, &table);
        // Put in order once all are there, which is faster than one by one.
        let mut tasks = Vec::with_capacity(known.len());
        for (address, record) in &known {
            let Some(tid) = numbers.get(address).copied() else { continue };
            let on_list = listed.contains(address);
            let in_table = table.contains_key(address);
            if !on_list && !in_table && !related.contains(address) {
                continue;
            }
            let tgid = numbers.get(&record.value(LEADER)).copied().unwrap_or(0);
            let key = Key { tgid, tid, started: record.value(STARTED), address: *address };
            let comm = record.bytes(COMM).first_chunk().copied().unwrap_or_default();
            let found = Found { comm, on_list, in_table };
            tasks.push((key, found));
        }
        Ok(Snapshot { tasks: tasks.into_iter().collect() })
    }

    /// The first task, and the threads that have a number in the guard's pid namespace: in the initial
    /// one all but the idle ones.
    pub(in crate::checks) fn numbered(&self, kernel: &Kernel<'_>) -> Result<Vec<u64>, Missing> {
        let numbered = self.pid_table(kernel)?.into_keys();
        Ok(std::iter::once(self.first_task).chain(numbered).collect())
    }

    /// Whether somebody could name the guard's own thread.
    pub(super) fn knows_itself(&self) -> bool {
        self.own_task.is_some()
    }

    /// The guard's own thread.
    pub(super) fn own(&self, snapshot: &Snapshot) -> Option<Key> {
        let own = self.own_task?;
        snapshot.tasks.keys().find(|key| key.address == own).copied()
    }

    fn read_into<'s>(
        &'s self,
        kernel: &Kernel<'_>,
        addresses: &[u64],
        known: &mut AddressMap<Record<'s>>,
    ) {
        for record in self.of_task.read(kernel, addresses).into_iter().flatten() {
            known.insert(record.address, record);
        }
    }

    /// Task by task, its number, from the pid table of the guard's namespace.
    fn pid_table(&self, kernel: &Kernel<'_>) -> Result<AddressMap<u32>, Missing> {
        let table = kernel.object("pid_namespace", self.namespace)?.field("idr")?;
        let entries = looks::settled(|| kernel.idr(table.address()))?;
        let ranges: Vec<(u64, u32)> =
            entries.iter().map(|(_, pid)| (pid.wrapping_add(self.pid_tasks), 8)).collect();
        let mut tasks = AddressMap::default();
        tasks.reserve(entries.len());
        kernel.memory.visit_many(&ranges, &mut |index, first| {
            let Some((number, _)) = entries.get(index) else { return };
            let Ok(Some(first)) = first.map(|first| first.first_chunk()) else { return };
            let first = u64::from_le_bytes(*first);
            // A number may outlive its thread as that of a group or session, and a pid that is
            // being made has no task yet.
            if first != 0 {
                tasks.insert(first.wrapping_sub(self.pid_link), *number as u32);
            }
        })?;
        Ok(tasks)
    }

    /// The tasks on the task list and on the thread lists of those.
    fn walk_lists<'s>(
        &'s self,
        kernel: &Kernel<'_>,
        known: &mut AddressMap<Record<'s>>,
    ) -> AddressSet {
        let mut leaders = Vec::new();
        let mut seen = AddressSet::default();
        let mut task = self.first_task;
        while seen.insert(task) && seen.len() < MOST_TASKS {
            if !known.contains_key(&task) {
                self.read_into(kernel, &[task], known);
            }
            let Some(record) = known.get(&task) else { break };
            leaders.push((task, record.value(SIGNAL)));
            task = record.value(NEXT).wrapping_sub(self.tasks);
        }
        let heads: Vec<(u64, u32)> =
            leaders.iter().map(|(_, signal)| (signal.wrapping_add(self.thread_head), 8)).collect();
        let firsts = kernel.memory.read_many(&heads);
        for ((_, signal), first) in leaders.iter().zip(firsts) {
            let Some(first) = first.ok().and_then(|bytes| bytes.try_into().ok()) else { continue };
            let head = signal.wrapping_add(self.thread_head);
            let mut node = u64::from_le_bytes(first);
            let mut ring = AddressSet::default();
            while node != head && ring.insert(node) && ring.len() < MOST_TASKS {
                let thread = node.wrapping_sub(self.thread_node);
                if !known.contains_key(&thread) {
                    self.read_into(kernel, &[thread], known);
                }
                let Some(record) = known.get(&thread) else { break };
                seen.insert(thread);
                node = record.value(NEXT_THREAD);
            }
        }
        seen
    }

    /// Tasks that relatives or cgroup members point at, and that are known by nothing else.
    fn follow_relations<'s>(
        &'s self,
        kernel: &Kernel<'_>,
        known: &mut AddressMap<Record<'s>>,
    ) -> AddressSet {
        let mut unknown = AddressSet::default();
        for record in known.values() {
            let next = record.value(NEXT_SIBLING);
            // The ring of siblings passes through the head in their parent.
            let parent = known.contains_key(&next.wrapping_sub(self.children));
            if !parent {
                unknown.insert(next.wrapping_sub(self.sibling));
            }
            let child = record.value(FIRST_CHILD);
            if child != record.address.wrapping_add(self.children) {
                unknown.insert(child.wrapping_sub(self.sibling));
            }
        }
        if let Some(of_cgroup) = &self.of_cgroup {
            let addresses: Vec<u64> = known.keys().copied().collect();
            let records: Vec<_> =
                of_cgroup.read(kernel, &addresses).into_iter().flatten().collect();
            let heads: AddressSet = records
                .iter()
                .flat_map(|record| self.css_heads.iter().map(|head| record.value(1) + head))
                .collect();
            let members = records.iter().map(|record| record.value(0));
            let strangers = members.filter(|next| *next != 0 && !heads.contains(next));
            unknown.extend(strangers.map(|next| next.wrapping_sub(self.cg_list)));
        }
        unknown.retain(|address| !known.contains_key(address));
        let unknown: Vec<u64> = unknown.into_iter().collect();
        let records = self.of_task.read(kernel, &unknown).into_iter().flatten();
        let mut related = AddressSet::default();
        for record in records.filter(is_task) {
            related.insert(record.address);
            known.insert(record.address, record);
        }
        related
    }

    /// The number of each task in the guard's namespace; tasks that it cannot see have none.
    fn numbers(
        &self,
        kernel: &Kernel<'_>,
        known: &AddressMap<Record<'_>>,
        table: &AddressMap<u32>,
    ) -> AddressMap<u32> {
        let mut numbers = table.clone();
        let rest: Vec<&Record<'_>> =
            known.values().filter(|record| !table.contains_key(&record.address)).collect();
        if self.level == 0 {
            // In the initial namespace the number is the task's own.
            let own = rest.iter().filter(|record| record.value(PID) != 0);
            numbers.extend(own.map(|record| (record.address, record.value(PID) as u32)));
            return numbers;
        }
        let place = self.numbers.wrapping_add(self.level.wrapping_mul(self.upid_size));
        let ranges: Vec<(u64, u32)> = rest
            .iter()
            .map(|record| (record.value(THREAD_PID).wrapping_add(place), self.upid_size as u32))
            .collect();
        for (record, upid) in rest.iter().zip(kernel.memory.read_many(&ranges)) {
            let Some(upid) = upid.ok() else { continue };
            let (number, namespace) = upid_of(&upid);
            // A pid of fewer levels has something else behind its last number.
            if namespace == self.namespace && number != 0 {
                numbers.insert(record.address, number);
            }
        }
        numbers
    }
}

/// `struct upid { int nr; struct pid_namespace *ns; }` (include/linux/pid.h).
fn upid_of(bytes: &[u8]) -> (u32, u64) {
    let word = |at: usize, length: usize| {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes.iter().skip(at).take(length)) {
            *to = *from;
        }
        u64::from_le_bytes(word)
    };
    (word(0, 4) as u32, word(8, 8))
}

/// Whether what was read can be a task at all: a stale pointer leads anywhere.
fn is_task(record: &Record<'_>) -> bool {
    let kernel_half = |position| record.value(position) >= 0xff00_0000_0000_0000;
    let comm = record.text(COMM);
    let named = !comm.is_empty() && !comm.chars().any(char::is_control);
    let pid = record.value(PID);
    let pointers = [SIGNAL, LEADER, THREAD_PID].into_iter().all(kernel_half);
    named && pointers && pid != 0 && pid < MOST_TASKS as u64
}

fn first_task(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    current: Option<u64>,
) -> Result<u64, Missing> {
    let by_name = recovered.data_symbol(kernel, "init_task");
    let (missing, current) = match (by_name, current) {
        (Ok(located), _) => return Ok(located.address),
        (Err(missing), None) => return Err(missing),
        (Err(missing), Some(current)) => (missing, current),
    };
    // Each leader's ring passes through the first task, the only one with pid 0 on it.
    let leader = kernel.object("task_struct", current)?.u64("group_leader")?;
    let ring = leader.wrapping_add(kernel.offset_of("task_struct", "tasks")?);
    for task in kernel.list(ring, "task_struct", "tasks") {
        let task = task?;
        if task.u64("pid")? == 0 {
            return Ok(task.address());
        }
    }
    Err(missing)
}

/// The addresses of all thread-group leaders: each process once.
pub fn processes(kernel: &Kernel<'_>, first_task: u64) -> Result<Vec<u64>, AccessError> {
    let ring = first_task.wrapping_add(kernel.offset_of("task_struct", "tasks")?);
    kernel.list(ring, "task_struct", "tasks").map(|task| task.map(|task| task.address())).collect()
}
