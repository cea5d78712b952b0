// SPDX-License-Identifier: Apache-2.0
//! Descendants stay descendants, whoever their parent is.

use std::io::{Read, Write};

use rules::RuleSet;
use rules::model::{Action, Condition, ProcessKey, Rule};

use crate::trial::Trial;
use probes::Rules;

fn descendants_of(keys: &[ProcessKey]) -> RuleSet {
    let rule = |(at, key): (u32, &ProcessKey)| Rule {
        id: at,
        events: 1 << 1,
        action: Action::Deny(1),
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
    let mut rules = Rules::load().unwrap();
    let trial = Trial::load(&rules);
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
