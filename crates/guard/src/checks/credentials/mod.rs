// SPDX-License-Identifier: Apache-2.0
//! Credentials change only by the ways that authorise a change.
//!
//! An exploit ends in a task that may do more than it was allowed to: its credentials were written to
//! where they are, it was made to point at somebody else's, or it was made to call `commit_creds`
//! with new ones. What the kernel's own ways can lead to is known (see `rules`): between two
//! executions of a program a task only loses power. So each task is held to what it had before.
//!
//! Three things are held against each other:
//!
//! - **A task and its own past.** More power without an execution in between was not given by a
//!   system call.
//! - **A task and the others.** `copy_creds` (kernel/cred.c) has only threads of one process share
//!   credentials, so two processes with the same ones mean that a pointer was written.
//! - **A task's credentials in themselves.** The real user id and the user to whom its processes are
//!   accounted change together (`set_user`, kernel/sys.c); who writes the one forgets the other.
//!
//! Ways rejected: to count the system calls that change credentials by their tracepoints. One alone
//! sends every system call of every task through the slow path (`SYSCALL_WORK_SYSCALL_TRACEPOINT`),
//! and a call that was made authorises nothing: what it may lead to has to be known all the same.

mod rules;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rules::{Rights, gains};
use state::{Key, Reader, Seen};

use super::looks;
use super::tasks::Walker;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::Finding;
use crate::recover::Recovered;

/// Long enough for the execution of a program that has been counted to give its rights.
const PAUSE: Duration = Duration::from_millis(3);

/// What is wrong with a task, the surest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// It has the credentials of this process, whose name follows.
    Shared(u32, String),
    /// Other credentials give it these.
    Replaced(Vec<String>),
    /// The credentials that it had all along now give it these.
    Written(Vec<String>),
    /// It is accounted to the first user, and its real user id is the second.
    Accounted(u32, u32),
}

impl Wrong {
    fn technique(&self) -> &'static str {
        match self {
            Self::Shared(..) => "credentials stolen",
            Self::Accounted(..) | Self::Written(_) => "credentials overwritten",
            Self::Replaced(_) => "credentials changed without authorisation",
        }
    }

    fn seen(&self) -> String {
        match self {
            Self::Shared(tgid, comm) => format!("it has those of process {tgid} ({comm})"),
            Self::Accounted(accounted, real) => {
                format!("its real user id is {real}, and it is accounted to user {accounted}")
            }
            Self::Written(gains) | Self::Replaced(gains) => {
                format!("it has gained {}", gains.join(", "))
            }
        }
    }
}

/// What a task had when it was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Before {
    executions: u64,
    credentials: u64,
    rights: Rights,
    /// Whether it was seen with this number of executions before. The number is counted before the
    /// rights of the program are given (`begin_new_exec`, fs/exec.c), so what was seen when it was
    /// new may be what was before.
    settled: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Credentials {
    recovered: Recovered,
    walker: Option<Walker>,
    reader: Option<Reader>,
    before: BTreeMap<Key, Before>,
}

impl Check for Credentials {
    fn name(&self) -> &'static str {
        "credentials"
    }

    fn about(&self) -> About {
        About {
            needs: "the address of init_task (symbol table or code) or of the calling task",
            reads: "user and group ids, capabilities, secure bits, user namespace and user of each \
                    task's credentials, and how many programs it has executed",
            means: "a task may do more than the kernel's own ways can have given it: its \
                    credentials were written, replaced or committed by an exploit",
            blind_to: "a task that was made powerful and executed a program, or ended, before the \
                       next pass; supplementary groups, keys and labels of security modules; \
                       credentials that a task acts by for a moment (override_creds)",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        if self.walker.is_none() {
            let current = system.views.current_task().ok();
            self.walker = Some(Walker::new(kernel, &mut self.recovered, current)?);
            self.reader = Some(Reader::new(kernel)?);
        }
        let (Some(walker), Some(reader)) = (&self.walker, &self.reader) else {
            return Err(Missing::because("the layout of tasks is not known"));
        };
        let mut seen = BTreeMap::new();
        let before = &self.before;
        let lasting = looks::lasting(PAUSE, || {
            let tasks = walker.numbered(kernel)?;
            seen = reader.read(kernel, &tasks);
            Ok(wrong(&seen, before, |above, below| reader.is_below(kernel, above, below)))
        })?;
        let mut by_task: BTreeMap<Key, Vec<Wrong>> = BTreeMap::new();
        for (key, wrong) in lasting {
            by_task.entry(key).or_default().push(wrong);
        }
        for (key, wrong) in &by_task {
            if let Some(Some(task)) = seen.get(key) {
                outcome.findings.push(finding(*key, task, before.get(key), wrong));
            }
        }
        self.before = remembered(&seen, before, |key| by_task.contains_key(key));
        Ok(())
    }
}

/// What the tasks are held against the next time. What was found does not become the norm, so it is
/// found until it is taken back.
fn remembered(
    seen: &BTreeMap<Key, Option<Seen>>,
    before: &BTreeMap<Key, Before>,
    found: impl Fn(&Key) -> bool,
) -> BTreeMap<Key, Before> {
    let now = |(key, task): (&Key, &Option<Seen>)| {
        let last = before.get(key);
        // A task whose credentials changed while it was read is still held to what it had.
        let Some(task) = task else { return Some((*key, *last?)) };
        let same = last.filter(|last| last.executions == task.executions);
        let Seen { executions, credentials, rights, .. } = *task;
        let now = Before { executions, credentials, rights, settled: same.is_some() };
        Some((*key, same.filter(|_| found(key)).copied().unwrap_or(now)))
    };
    seen.iter().filter_map(now).collect()
}

/// What is wrong with each task.
fn wrong(
    seen: &BTreeMap<Key, Option<Seen>>,
    before: &BTreeMap<Key, Before>,
    is_below: impl Fn(u64, u64) -> bool,
) -> BTreeSet<(Key, Wrong)> {
    let seen = || seen.iter().filter_map(|(key, task)| Some((key, task.as_ref()?)));
    // Of several processes the one that runs longest is the one that credentials belong to.
    let mut owners: BTreeMap<u64, (u64, u32, &str)> = BTreeMap::new();
    for (key, task) in seen() {
        let owner = (key.started, task.tgid, task.comm.as_str());
        let first = owners.entry(task.credentials).or_insert(owner);
        *first = owner.min(*first);
    }
    let mut wrong = BTreeSet::new();
    for (key, task) in seen() {
        if let Some((_, tgid, comm)) = owners.get(&task.credentials)
            && *tgid != task.tgid
        {
            wrong.insert((*key, Wrong::Shared(*tgid, (*comm).to_owned())));
        }
        let [real, ..] = task.rights.uids;
        if let Some(accounted) = task.accounted.filter(|accounted| *accounted != real) {
            wrong.insert((*key, Wrong::Accounted(accounted, real)));
        }
        let last = before.get(key).filter(|last| last.settled);
        let Some(last) = last.filter(|last| last.executions == task.executions) else { continue };
        let gains = gains(&last.rights, &task.rights, &is_below);
        if gains.is_empty() {
            continue;
        }
        let kept = last.credentials == task.credentials;
        wrong.insert((*key, if kept { Wrong::Written(gains) } else { Wrong::Replaced(gains) }));
    }
    wrong
}

fn finding(key: Key, task: &Seen, before: Option<&Before>, wrong: &[Wrong]) -> Finding {
    let Seen { pid, tgid, comm, .. } = task;
    let seen: Vec<String> = wrong.iter().map(Wrong::seen).collect();
    let mut evidence = vec![
        format!("seen in each of {} looks", looks::LOOKS),
        format!("task_struct at {:#x}, {} executions", key.address, task.executions),
        format!("credentials at {:#x}: {}", task.credentials, in_words(&task.rights)),
    ];
    if let Some(before) = before.filter(|before| before.rights != task.rights) {
        let (at, rights) = (before.credentials, in_words(&before.rights));
        evidence.push(format!("before, credentials at {at:#x}: {rights}"));
    }
    Finding {
        check: "credentials",
        symbol: None,
        offset: 0,
        address: task.credentials,
        expected: "a task has what its programs and the system calls it makes can give it"
            .to_owned(),
        seen: format!("task {comm} (process {tgid}, thread {pid}): {}", seen.join("; ")),
        technique: wrong.first().map_or("", Wrong::technique).to_owned(),
        owner: None,
        evidence,
    }
}

fn in_words(rights: &Rights) -> String {
    let [uid, euid, suid, fsuid] = rights.uids;
    let [gid, egid, sgid, fsgid] = rights.gids;
    format!(
        "user ids {uid} {euid} {suid} {fsuid}, group ids {gid} {egid} {sgid} {fsgid}, permitted \
         capabilities {:#x}, effective {:#x}, user namespace at {:#x}",
        rights.permitted, rights.effective, rights.namespace
    )
}
