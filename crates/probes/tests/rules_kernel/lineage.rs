// SPDX-License-Identifier: Apache-2.0
//! Descendants stay descendants, whoever their parent is.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr;
use std::time::{Duration, Instant};

use probes::events::{EventType, Hooks};
use rules::RuleSet;
use rules::model::{Action, Condition, ProcessKey, Rule};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::trial::{Trial, done_with, loaded};
use probes::Rules;

fn descendants_of(keys: &[ProcessKey]) -> RuleSet {
    for_descendants_of(keys, Action::Deny(1))
}

fn for_descendants_of(keys: &[ProcessKey], action: Action) -> RuleSet {
    let rule = |(at, key): (u32, &ProcessKey)| Rule {
        id: at,
        events: 1 << 1,
        action,
        dry_run: false,
        conditions: vec![Condition::DescendantOf(vec![*key])],
    };
    RuleSet { rules: (1..).zip(keys).map(rule).collect() }
}

/// What a process says that is made by `generations` forks, each but the last of whose parents ends
/// before it asks.
fn lineage_after_forks(trial: &Trial, generations: u32) -> u64 {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: the child makes system calls and allocates, which the C library allows after a fork
    // by its own locks, touches no lock of this process' other threads, and ends by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        drop(reader);
        for _ in 1..generations {
            // SAFETY: as above; there is only one thread here.
            if unsafe { libc::fork() } != 0 {
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(0) };
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let (lineage, ..) = trial.descent();
        let _ = writer.write_all(&lineage.to_ne_bytes());
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    let mut answer = [0; 8];
    reader.read_exact(&mut answer).unwrap();
    // SAFETY: waits for the child that was made above.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    u64::from_ne_bytes(answer)
}

#[test]
#[ignore = "root: loads BPF"]
fn who_descends_from_a_process_is_known_also_when_the_parents_between_have_ended() {
    let (mut rules, trial) = loaded();
    let (nothing, own, parent) = trial.descent();
    assert_eq!(nothing, 0);
    assert_eq!(own.pid, std::process::id());

    // Known already as the rules come: this process descends from its parent, not from itself.
    rules.install(0, &descendants_of(&[own, parent])).unwrap();
    let (of_own, of_parent) = (rules.root(own).unwrap(), rules.root(parent).unwrap());
    assert_eq!(trial.descent().0, 1 << of_parent);
    let in_thread = std::thread::scope(|scope| scope.spawn(|| trial.descent().0).join().unwrap());
    assert_eq!(in_thread, 1 << of_parent, "a thread is no descendant of its own process");

    let both = 1 << of_own | 1 << of_parent;
    for generations in 1..=3 {
        assert_eq!(lineage_after_forks(&trial, generations), both, "{generations} forks");
    }

    // Nobody asks any more: no mark is left behind for who gets the number next.
    rules.install(0, &descendants_of(&[parent])).unwrap();
    assert_eq!(rules.root(own), None);
    assert_eq!(lineage_after_forks(&trial, 1), 1 << of_parent);
    rules.remove(0).unwrap();
    assert_eq!(trial.descent().0, 0);
    assert_eq!(lineage_after_forks(&trial, 1), 0);
    done_with(rules, trial);
}

/// A file system of type bpf of this test's own, which goes with all that was left in it: a host may have
/// none mounted.
struct Files(tempfile::TempDir);

impl Files {
    fn mount() -> Self {
        let place = tempfile::tempdir().unwrap();
        mount("bpf", place.path(), "bpf", MountFlags::empty(), None).unwrap();
        Self(place)
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("ringfence")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// A child of a child that has ended, which executes /bin/true when it is told to by a byte.
fn orphan() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    let arguments = [c"true".as_ptr(), ptr::null()];
    // SAFETY: after the forks there are system calls only.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            if libc::fork() == 0 {
                // Where the test fails nobody writes, and this is the end of the file.
                libc::close(writer.as_raw_fd());
                let mut byte = 0_u8;
                libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1);
                libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr());
            }
            libc::_exit(0);
        }
        libc::waitpid(child, ptr::null_mut(), 0);
    }
    writer
}

#[test]
#[ignore = "root: loads BPF"]
fn what_descends_through_a_process_that_has_ended_does_so_for_the_next_that_loads_the_rules() {
    let files = Files::mount();
    let directory = files.directory();
    let own = probes::ProcessKeys::load().unwrap().of(std::process::id()).unwrap().unwrap();
    let own = ProcessKey { pid: own.pid, start: own.start };
    // What this host can have, whatever it can deny.
    let set = for_descendants_of(&[own], Action::Notify);
    let mut hooks = Hooks::load_after(EventType::PROCESS_EXEC.bit(), &directory).unwrap();
    hooks.keep_rules(&directory).unwrap();
    hooks.install_rules(0, &set).unwrap();
    let mut early = orphan();
    // As when the process ends: its maps go, and what keeps marks stays.
    drop(hooks);
    let mut meanwhile = orphan();

    let mut hooks = Hooks::load_after(EventType::PROCESS_EXEC.bit(), &directory).unwrap();
    hooks.keep_rules(&directory).unwrap();
    hooks.install_rules(0, &set).unwrap();
    hooks.let_go_of_older().unwrap();
    for (count, orphan) in (1..).zip([&mut early, &mut meanwhile]) {
        orphan.write_all(b"x").unwrap();
        let began = Instant::now();
        while hooks.rule_counts(0).unwrap()[0].matches < count {
            assert!(began.elapsed() < Duration::from_secs(20), "it is none of this process's");
        }
    }
    // Without rules nothing is left but the directory.
    hooks.remove_rules(0).unwrap();
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let left = left[0].as_ref().unwrap().path();
    assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
    drop(hooks);
    // What nobody asks for is forgotten by the next.
    let mut hooks = Hooks::load_after(EventType::PROCESS_EXEC.bit(), &directory).unwrap();
    hooks.keep_rules(&directory).unwrap();
    let other = ProcessKey { pid: own.pid, start: 1 };
    hooks.install_rules(0, &for_descendants_of(&[other], Action::Notify)).unwrap();
    drop(hooks);
    let mut hooks = Hooks::load_after(EventType::PROCESS_EXEC.bit(), &directory).unwrap();
    hooks.keep_rules(&directory).unwrap();
    assert_eq!(hooks.rules().root(other), Some(0));
    hooks.let_go_of_older().unwrap();
    assert_eq!(hooks.rules().root(other), None);
}

#[test]
#[ignore = "root: loads BPF"]
fn there_are_sixty_four_roots_and_a_refused_set_takes_none() {
    let mut rules = Rules::load().unwrap();
    let keys: Vec<ProcessKey> = (1..=65).map(|pid| ProcessKey { pid, start: u64::MAX }).collect();
    rules.install(1, &descendants_of(&keys[..60])).unwrap();
    assert!(rules.install(2, &descendants_of(&keys[59..])).is_err());
    assert_eq!(rules.root(keys[60]), None, "a number was kept for a set that is not there");
    rules.install(2, &descendants_of(&keys[59..64])).unwrap();
    rules.remove(1).unwrap();
    assert_eq!(rules.root(keys[0]), None);
    assert!(rules.root(keys[59]).is_some(), "the other client still asks for it");
}
