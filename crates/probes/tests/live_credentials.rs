// SPDX-License-Identifier: Apache-2.0
//! The guard's check of credentials on the kernel that runs the tests: that no system call makes it
//! find something, and that what no system call does is found, with memory that lies.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[allow(dead_code, reason = "each file of tests uses a part of it")]
mod structures;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guard::baseline::Baseline;
use guard::journal::Journal;
use guard::recover::Recovered;
use guard::{Finding, Guard};
use kernel_memory::{KernelMemory, Object};
use structures::{Changed, Live, OnDrop, Waiting, only};

/// A user without rights.
const NOBODY: u32 = 65534;

/// The findings of the next pass in which the check is due.
fn findings(
    live: &Live,
    guard: &mut Guard,
    memory: &dyn KernelMemory,
    baseline: &Baseline,
) -> Vec<Finding> {
    let journal = Journal::unavailable("not part of this test");
    loop {
        let report = live.pass(guard, memory, &live.views, baseline, &journal);
        if let Some(check) = report.checks.first() {
            assert_eq!(check.reason, None);
            return report.findings;
        }
    }
}

/// Changes the effective user of this thread alone: the wrappers of libc change all threads.
fn become_user(user: u32) {
    // SAFETY: a system call that takes numbers.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, -1_i64, u64::from(user), -1_i64) };
    assert_eq!(result, 0);
}

#[test]
#[ignore = "root"]
fn tasks_that_change_their_credentials_by_system_calls_are_not_found() {
    let live = Live::open();
    let baseline = live.baseline(BTreeMap::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                become_user(NOBODY);
                std::thread::yield_now();
                become_user(0);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let children = [
                    Command::new("true").uid(NOBODY).gid(NOBODY).spawn(),
                    Command::new("sleep").arg("0.02").uid(NOBODY).spawn(),
                    // Where there is no unshare, or no leave, it is one process less.
                    Command::new("unshare")
                        .args(["--user", "--map-root-user", "true"])
                        .stderr(Stdio::null())
                        .spawn(),
                    Command::new("sh").args(["-c", "exec sh -c 'exec sleep 0.05'"]).spawn(),
                ];
                for mut child in children.into_iter().flatten() {
                    let _ = child.wait();
                }
            }
        });
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        let mut guard = only("credentials");
        for _ in 0..200 {
            let found = findings(&live, &mut guard, &live.reader, &baseline);
            assert!(found.is_empty(), "{found:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

fn task<'a>(live: &'a Live, pid: u32) -> Object<'a> {
    let kernel = live.kernel();
    let first = Recovered::default().data_symbol(&kernel, "init_task").unwrap().address;
    if pid == 0 {
        return kernel.object("task_struct", first).unwrap();
    }
    let ring = first + kernel.offset_of("task_struct", "tasks").unwrap();
    let mut tasks = kernel.list(ring, "task_struct", "tasks").map(Result::unwrap);
    tasks.find(|task| task.u32("tgid").unwrap() == pid).unwrap()
}

#[test]
#[ignore = "root"]
fn credentials_that_were_written_or_stolen_are_found_and_who_has_them() {
    let live = Live::open();
    let baseline = live.baseline(BTreeMap::new());
    let child = Command::new("sleep").arg("600").uid(NOBODY).gid(NOBODY).spawn().unwrap();
    let child = Waiting(child);
    let victim = task(&live, child.0.id());
    let credentials = victim.pointer("real_cred").unwrap().unwrap();
    let permitted = credentials.field("cap_permitted").unwrap().address();
    let user = credentials.field("uid").unwrap().address();
    let pointer = victim.field("real_cred").unwrap().address();
    let of_first = task(&live, 0).u64("real_cred").unwrap();
    let cases: [(u64, Vec<u8>, &str); 3] = [
        (permitted, u64::MAX.to_le_bytes().into(), "credentials overwritten"),
        (user, 0_u32.to_le_bytes().into(), "credentials overwritten"),
        (pointer, of_first.to_le_bytes().into(), "credentials stolen"),
    ];
    for (address, bytes, technique) in cases {
        let mut guard = only("credentials");
        // The second time it is known what the task has.
        for _ in 0..2 {
            let found = findings(&live, &mut guard, &live.reader, &baseline);
            assert!(found.is_empty(), "{found:#?}");
        }
        let mut changed = Changed::new(&live.reader);
        changed.write(address, &bytes);
        for _ in 0..2 {
            let found = findings(&live, &mut guard, &changed, &baseline);
            let [one] = found.as_slice() else { panic!("{found:#?}") };
            assert_eq!(one.technique, technique);
            assert!(one.seen.contains(&format!("process {}", child.0.id())), "{one:#?}");
        }
        assert!(findings(&live, &mut guard, &live.reader, &baseline).is_empty());
    }
}
