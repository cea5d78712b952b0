// SPDX-License-Identifier: Apache-2.0
//! Whose rights each task has, read from memory.
//!
//! A task leads to its credentials by a pointer; these are never written once a task has them, but
//! copied and replaced (Documentation/security/credentials.rst). So a task is read before and after
//! its credentials: if it led to the same ones, they were its own all the while.

use std::collections::BTreeMap;

use kernel_memory::{AccessError, Kernel};

use super::rules::Rights;
use crate::fields::{Fields, Record};

/// A task, told apart from any other that uses its number or memory before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) address: u64,
    /// Nanoseconds, CLOCK_MONOTONIC.
    pub(super) started: u64,
}

/// A task with its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: u32,
    pub(super) tgid: u32,
    pub(super) comm: String,
    /// How many programs it and its forebears have executed (`self_exec_id`).
    pub(super) executions: u64,
    /// Where its `struct cred` is (`real_cred`): what others see of it. What it acts by (`cred`) is
    /// another one for a while in many places of the kernel (`override_creds`).
    pub(super) credentials: u64,
    pub(super) rights: Rights,
    /// The user that its real id is accounted to; none where that could not be read.
    pub(super) accounted: Option<u32>,
}

// Positions in `Reader::of_task`.
const PID: usize = 0;
const TGID: usize = 1;
const COMM: usize = 2;
const STARTED: usize = 3;
const EXECUTIONS: usize = 4;
const CREDENTIALS: usize = 5;
const OF_TASK: [&str; 6] = ["pid", "tgid", "comm", "start_time", "self_exec_id", "real_cred"];

/// What of a task must not change while its credentials are read.
const OF_TASK_AGAIN: [&str; 2] = ["self_exec_id", "real_cred"];

const OF_CREDENTIALS: [&str; 15] = [
    "uid",
    "euid",
    "suid",
    "fsuid",
    "gid",
    "egid",
    "sgid",
    "fsgid",
    "securebits",
    "cap_permitted",
    "cap_effective",
    "cap_bset",
    "cap_ambient",
    "user_ns",
    "user",
];

/// The layouts, looked up once.
#[derive(Debug)]
pub(super) struct Reader {
    of_task: Fields,
    of_task_again: Fields,
    of_credentials: Fields,
    of_user: Fields,
    of_namespace: Fields,
}

impl Reader {
    pub(super) fn new(kernel: &Kernel<'_>) -> Result<Self, AccessError> {
        Ok(Self {
            of_task: Fields::of(kernel, "task_struct", &OF_TASK)?,
            of_task_again: Fields::of(kernel, "task_struct", &OF_TASK_AGAIN)?,
            of_credentials: Fields::of(kernel, "cred", &OF_CREDENTIALS)?,
            of_user: Fields::of(kernel, "user_struct", &["uid"])?,
            of_namespace: Fields::of(kernel, "user_namespace", &["parent"])?,
        })
    }

    /// The tasks at these addresses; none for one whose credentials were replaced meanwhile.
    pub(super) fn read(&self, kernel: &Kernel<'_>, tasks: &[u64]) -> BTreeMap<Key, Option<Seen>> {
        let records: Vec<_> = self.of_task.read(kernel, tasks).into_iter().flatten().collect();
        let places: Vec<u64> = records.iter().map(|task| task.value(CREDENTIALS)).collect();
        let credentials = self.of_credentials.read(kernel, &places);
        let addresses: Vec<u64> = records.iter().map(|task| task.address).collect();
        let again = self.of_task_again.read(kernel, &addresses);
        let users: Vec<u64> = credentials
            .iter()
            .map(|credentials| credentials.as_ref().map_or(0, |credentials| credentials.value(14)))
            .collect();
        let users = self.of_user.read(kernel, &users);
        let mut seen = BTreeMap::new();
        let parts = records.iter().zip(credentials).zip(again).zip(users);
        for (((task, credentials), again), user) in parts {
            let key = Key { address: task.address, started: task.value(STARTED) };
            let same = |again: &Record<'_>| {
                (again.value(0), again.value(1))
                    == (task.value(EXECUTIONS), task.value(CREDENTIALS))
            };
            let Some(credentials) = credentials.filter(|_| again.as_ref().is_some_and(same)) else {
                seen.insert(key, None);
                continue;
            };
            let word = |at: usize| credentials.value(at);
            let ids = |from: usize| [0, 1, 2, 3].map(|at| word(from + at) as u32);
            let rights = Rights {
                uids: ids(0),
                gids: ids(4),
                securebits: word(8),
                permitted: word(9),
                effective: word(10),
                bounding: word(11),
                ambient: word(12),
                namespace: word(13),
            };
            let of_task = Seen {
                pid: task.value(PID) as u32,
                tgid: task.value(TGID) as u32,
                comm: task.text(COMM),
                executions: task.value(EXECUTIONS),
                credentials: task.value(CREDENTIALS),
                rights,
                accounted: user.map(|user| user.value(0) as u32),
            };
            seen.insert(key, Some(of_task));
        }
        seen
    }

    /// Whether `below` is the user namespace `above` or a descendant of it. They are at most 32 deep
    /// (`create_user_ns`, kernel/user_namespace.c).
    pub(super) fn is_below(&self, kernel: &Kernel<'_>, above: u64, below: u64) -> bool {
        let mut at = below;
        for _ in 0..=33 {
            if at == above {
                return true;
            }
            match self.of_namespace.read_one(kernel, at) {
                Some(namespace) if namespace.value(0) != 0 => at = namespace.value(0),
                _ => return false,
            }
        }
        false
    }
}
