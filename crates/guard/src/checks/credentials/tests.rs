// SPDX-License-Identifier: Apache-2.0
use super::*;

const CREDENTIALS: u64 = 0xffff_8880_0100_0000;

fn key(pid: u32) -> Key {
    Key { address: 0xffff_8880_0000_0000 + u64::from(pid) * 0x4000, started: u64::from(pid) }
}

/// A process of user 1000 that has executed two programs.
fn task(pid: u32) -> Seen {
    let rights = Rights { uids: [1000; 4], gids: [1000; 4], namespace: 1, ..Rights::default() };
    Seen {
        pid,
        tgid: pid,
        comm: "task".to_owned(),
        executions: 2,
        credentials: CREDENTIALS + u64::from(pid) * 0x100,
        rights,
        accounted: Some(1000),
    }
}

fn seen(tasks: &[Seen]) -> BTreeMap<Key, Option<Seen>> {
    tasks.iter().map(|task| (key(task.pid), Some(task.clone()))).collect()
}

/// What is wrong in each of several passes, one after the other.
fn passes(passes: &[Vec<Seen>]) -> Vec<Vec<Wrong>> {
    let mut before = BTreeMap::new();
    let mut all = Vec::new();
    for tasks in passes {
        let seen = seen(tasks);
        let found = wrong(&seen, &before, |above, below| above == below);
        let keys: BTreeSet<Key> = found.iter().map(|(key, _)| *key).collect();
        before = remembered(&seen, &before, |key| keys.contains(key));
        all.push(found.into_iter().map(|(_, wrong)| wrong).collect());
    }
    all
}

fn powerful(task: Seen) -> Seen {
    let rights = Rights { permitted: u64::MAX, effective: u64::MAX, ..task.rights };
    Seen { rights, ..task }
}

#[test]
fn credentials_written_where_they_are_are_found_until_they_are_taken_back() {
    let (user, root) = (task(7), powerful(task(7)));
    let all = passes(&[
        vec![user.clone()],
        vec![user.clone()],
        vec![root.clone()],
        vec![root],
        vec![user.clone()],
        vec![user],
    ]);
    let wrong = |pass: usize| matches!(all[pass].as_slice(), [Wrong::Written(_)]);
    assert_eq!((0..6).map(wrong).collect::<Vec<_>>(), [false, false, true, true, false, false]);
}

#[test]
fn other_credentials_that_give_more_were_not_given_by_a_system_call() {
    let root = Seen { credentials: CREDENTIALS + 0x8000, ..powerful(task(7)) };
    let all = passes(&[vec![task(7)], vec![task(7)], vec![root]]);
    assert!(matches!(all[2].as_slice(), [Wrong::Replaced(_)]), "{all:?}");
}

#[test]
fn a_program_may_give_more_and_is_waited_for() {
    let executed = |task: Seen| Seen { executions: 3, ..task };
    // The number is seen first, the rights that the program gives only in the next pass.
    let all = passes(&[
        vec![task(7)],
        vec![task(7)],
        vec![executed(task(7))],
        vec![executed(powerful(task(7)))],
        vec![executed(powerful(task(7)))],
    ]);
    assert_eq!(all, vec![Vec::new(); 5]);
    // What comes after that is held to it.
    let executed_user = executed(task(7));
    let all = passes(&[
        vec![executed_user.clone()],
        vec![executed_user],
        vec![executed(powerful(task(7)))],
    ]);
    assert_eq!(all[2].len(), 1);
}

#[test]
fn a_task_that_changed_while_it_was_read_is_held_to_what_it_had() {
    let mut before = BTreeMap::new();
    for task in [Some(task(7)), Some(task(7)), None] {
        before = remembered(&BTreeMap::from([(key(7), task)]), &before, |_| false);
    }
    let found = wrong(&seen(&[powerful(task(7))]), &before, |above, below| above == below);
    assert!(matches!(found.first(), Some((_, Wrong::Written(_)))), "{found:?}");
}

#[test]
fn two_processes_share_no_credentials_and_threads_do() {
    let thread = Seen { pid: 8, ..task(7) };
    assert_eq!(passes(&[vec![task(7), thread]]), [Vec::new()]);
    let thief = Seen { credentials: task(1).credentials, ..task(9) };
    let all = passes(&[vec![task(1), task(7), thief]]);
    assert_eq!(all, [[Wrong::Shared(1, "task".to_owned())]]);
}

#[test]
fn a_real_user_id_that_was_written_is_not_that_of_the_user_who_is_charged() {
    let mut root = task(7);
    root.rights.uids = [0; 4];
    assert_eq!(passes(&[vec![root]]), [[Wrong::Accounted(1000, 0)]]);
}
