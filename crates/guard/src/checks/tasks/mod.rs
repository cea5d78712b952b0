// SPDX-License-Identifier: Apache-2.0
//! Tasks: the task list, the pid table, a BPF iterator and /proc must show the same ones.
//!
//! A task is hidden by taking it off one list (it runs on, the scheduler does not need the lists)
//! or by filtering one interface. So each view is held against memory. What makes this hard on a
//! running system is that tasks come and go while it is looked at: a difference counts only if it
//! is seen in each of several looks, and a task that uses a number again is another task
//! (see `looks`).
//!
//! Not followed: run queues. A task that is on no list at all, has no relatives and is in no cgroup
//! still has to be scheduled; that is for the view from outside.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel_memory::Kernel;
pub(super) use memory::Walker;
pub use memory::processes;
use memory::{Key, Snapshot};

use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::Finding;
use crate::recover::Recovered;
use crate::views::TaskView;

/// Long enough for a fork or exit that is under way to end.
const PAUSE: Duration = Duration::from_millis(3);

/// How a task differs between views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Only relatives or its cgroup know it.
    OnNoList,
    /// In the pid table, not on the task list.
    NotOnTaskList,
    /// On the task list, not in the pid table.
    NotInPidTable,
    /// In memory, not shown by the BPF iterator.
    NotIterated,
    /// In memory, not listed in /proc.
    NotInProc,
}

impl Difference {
    fn technique(self) -> &'static str {
        match self {
            Self::OnNoList => "task unlinked from the task list and the pid table",
            Self::NotOnTaskList => "task unlinked from the task list",
            Self::NotInPidTable => "task removed from the pid table",
            Self::NotIterated => "task hidden from iterators",
            Self::NotInProc => "task hidden from /proc",
        }
    }

    fn seen(self) -> &'static str {
        match self {
            Self::OnNoList => "on neither; its relatives or its cgroup lead to it",
            Self::NotOnTaskList => "in the pid table, not on the task list",
            Self::NotInPidTable => "on the task list, not in the pid table",
            Self::NotIterated => "in kernel memory, not shown by a BPF task iterator",
            Self::NotInProc => "in kernel memory, not listed in /proc",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tasks {
    recovered: Recovered,
    /// How memory is walked, from the guard's own thread.
    walker: Option<Walker>,
}

impl Check for Tasks {
    fn name(&self) -> &'static str {
        "tasks"
    }

    fn about(&self) -> About {
        About {
            needs: "the address of init_task (symbol table or code) or of the calling task",
            reads: "the task list, thread lists, the pid table of the guard's pid namespace, \
                    relatives, cgroup members, a BPF task iterator, /proc",
            means: "a task runs that one of these does not show: it was unlinked or is filtered",
            blind_to: "tasks on no list at all that have no relatives and no cgroup; tasks of \
                       other pid namespaces when the guard runs in one of its own",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let walker = match self.walker.take() {
            Some(walker) => walker,
            None => {
                let current = system.views.current_task();
                if let Err(missing) = &current {
                    let from = format!("seen from the initial pid namespace: {}", missing.0);
                    outcome.reduced.push(from);
                }
                Walker::new(kernel, &mut self.recovered, current.ok())?
            }
        };
        // One that does not know the guard's own thread looks for it again the next time.
        let walker = match walker.knows_itself() {
            true => &*self.walker.insert(walker),
            false => &walker,
        };
        let mut last = Snapshot::default();
        let mut private: BTreeSet<Key> = BTreeSet::new();
        let mut unusable: BTreeSet<String> = BTreeSet::new();
        let lasting = looks::lasting(PAUSE, || {
            let before = walker.look(kernel)?;
            let iterated = system.views.tasks_iterated();
            let listed = system.views.tasks_in_proc();
            let after = walker.look(kernel)?;
            let own = walker.own(&after);
            let mut view = |name, view: Result<Vec<TaskView>, Missing>| match usable(view, own) {
                Ok(numbers) => Some(numbers),
                Err(reason) => {
                    unusable.insert(format!("{name}: {reason}"));
                    None
                }
            };
            let iterated = view("BPF task iterator", iterated);
            let listed = view("/proc", listed);
            last = after;
            let mut found = differences(&before, &last, iterated.as_ref(), listed.as_ref());
            found.retain(|(key, difference)| {
                let by_design =
                    *difference == Difference::NotIterated && is_private(kernel, key.address);
                if by_design {
                    private.insert(*key);
                }
                !by_design
            });
            Ok(found)
        })?;
        if !private.is_empty() {
            outcome.reduced.push(format!(
                "{} threads of init are left out of BPF iterators by this kernel itself: compared \
                 by the other views",
                private.len()
            ));
        }
        outcome.reduced.extend(unusable);
        // One finding for a task, naming all the views that lack it.
        let mut by_task: BTreeMap<Key, Vec<Difference>> = BTreeMap::new();
        for (key, difference) in lasting {
            by_task.entry(key).or_default().push(difference);
        }
        for (key, differences) in by_task {
            outcome.findings.push(finding(system, &last, key, &differences));
        }
        Ok(())
    }
}

/// Whether this kernel leaves the task out of BPF iterators by design.
///
/// Some kernels of hosting providers do so for init and for tasks that `init_private_fork_class`
/// marks. Mainline has no such field, and shows all tasks.
fn is_private(kernel: &Kernel<'_>, task: u64) -> bool {
    let Ok(task) = kernel.object("task_struct", task) else { return false };
    let Ok(mark) = task.u64("init_private_fork_class") else { return false };
    mark != 0 || task.u64("tgid") == Ok(1)
}

/// The numbers that a view shows, if it looks from the same namespace as the guard does.
fn usable(
    view: Result<Vec<TaskView>, Missing>,
    own: Option<Key>,
) -> Result<BTreeSet<(u32, u32)>, String> {
    let view = view.map_err(|missing| missing.0)?;
    let numbers: BTreeSet<(u32, u32)> = view.iter().map(|task| (task.tgid, task.tid)).collect();
    match own {
        Some(own) if !numbers.contains(&(own.tgid, own.tid)) => {
            Err("does not show the guard itself; it looks from another pid namespace".to_owned())
        }
        _ => Ok(numbers),
    }
}

/// How memory, read before and after the other views, differs from them and in itself.
fn differences(
    before: &Snapshot,
    after: &Snapshot,
    iterated: Option<&BTreeSet<(u32, u32)>>,
    listed: Option<&BTreeSet<(u32, u32)>>,
) -> BTreeSet<(Key, Difference)> {
    let mut differences = BTreeSet::new();
    // What came or went meanwhile is in only one of the two.
    for (key, found) in &after.tasks {
        let (key, Some(earlier)) = (*key, before.tasks.get(key)) else { continue };
        let on_list = found.on_list || earlier.on_list;
        let in_table = found.in_table || earlier.in_table;
        let neither = |found: &memory::Found| !found.on_list && !found.in_table;
        if neither(found) && neither(earlier) {
            differences.insert((key, Difference::OnNoList));
        } else if !on_list {
            differences.insert((key, Difference::NotOnTaskList));
        } else if !in_table {
            differences.insert((key, Difference::NotInPidTable));
        }
        let number = (key.tgid, key.tid);
        if iterated.is_some_and(|view| !view.contains(&number)) {
            differences.insert((key, Difference::NotIterated));
        }
        if listed.is_some_and(|view| !view.contains(&number)) {
            differences.insert((key, Difference::NotInProc));
        }
    }
    differences
}

fn finding(system: &System<'_>, last: &Snapshot, key: Key, differences: &[Difference]) -> Finding {
    let comm = last.tasks.get(&key).map(|found| found.comm).unwrap_or_default();
    let comm = String::from_utf8_lossy(comm.split(|byte| *byte == 0).next().unwrap_or_default());
    let seen: Vec<&str> = differences.iter().map(|difference| difference.seen()).collect();
    let mut evidence = vec![
        format!("seen in each of {} looks", looks::LOOKS),
        format!(
            "task_struct at {:#x}, started at {} ns of the monotonic clock",
            key.address, key.started
        ),
    ];
    match system.views.task_answers(key.tgid, key.tid) {
        Ok(true) => evidence.push("/proc answers when asked for it by number".to_owned()),
        Ok(false) => evidence.push("/proc does not answer when asked for it by number".to_owned()),
        Err(_) => {}
    }
    Finding {
        check: "tasks",
        symbol: None,
        offset: 0,
        address: key.address,
        expected: "the task list, the pid table, iterators and /proc show the same tasks"
            .to_owned(),
        seen: format!(
            "task {comm} (process {}, thread {}): {}",
            key.tgid,
            key.tid,
            seen.join("; ")
        ),
        technique: differences.first().map_or("", |difference| difference.technique()).to_owned(),
        owner: None,
        evidence,
    }
}

#[cfg(test)]
mod tests;
