// SPDX-License-Identifier: Apache-2.0
use super::memory::Found;
use super::*;

fn key(tid: u32) -> Key {
    Key {
        tgid: tid,
        tid,
        started: 1000 + u64::from(tid),
        address: 0xffff_8880_0000_0000 + u64::from(tid),
    }
}

fn snapshot(tasks: &[(Key, bool, bool)]) -> Snapshot {
    let tasks = tasks.iter().map(|(key, on_list, in_table)| {
        (
            *key,
            Found {
                comm: *b"task\0\0\0\0\0\0\0\0\0\0\0\0",
                on_list: *on_list,
                in_table: *in_table,
            },
        )
    });
    Snapshot { tasks: tasks.collect() }
}

fn numbers(tids: &[u32]) -> BTreeSet<(u32, u32)> {
    tids.iter().map(|tid| (*tid, *tid)).collect()
}

#[test]
fn equal_views_have_no_differences() {
    let memory = snapshot(&[(key(1), true, true), (key(2), true, true)]);
    let view = numbers(&[1, 2]);
    assert!(differences(&memory, &memory, Some(&view), Some(&view)).is_empty());
}

#[test]
fn each_way_to_hide_is_told_apart() {
    let memory = snapshot(&[
        (key(1), true, true),
        (key(2), false, true),
        (key(3), true, false),
        (key(4), false, false),
    ]);
    let found =
        differences(&memory, &memory, Some(&numbers(&[1, 2, 3])), Some(&numbers(&[2, 3, 4])));
    let expected = BTreeSet::from([
        (key(1), Difference::NotInProc),
        (key(2), Difference::NotOnTaskList),
        (key(3), Difference::NotInPidTable),
        (key(4), Difference::OnNoList),
        (key(4), Difference::NotIterated),
    ]);
    assert_eq!(found, expected);
}

#[test]
fn a_task_that_came_or_went_meanwhile_is_no_difference() {
    let before = snapshot(&[(key(1), true, true), (key(2), true, true)]);
    let after = snapshot(&[(key(1), true, true), (key(3), true, true)]);
    assert!(differences(&before, &after, Some(&numbers(&[1])), None).is_empty());
}

#[test]
fn a_number_used_again_is_another_task() {
    let old = key(2);
    let new = Key { started: old.started + 5, address: old.address + 64, ..old };
    let before = snapshot(&[(old, true, true)]);
    let after = snapshot(&[(new, true, true)]);
    assert!(differences(&before, &after, Some(&numbers(&[])), None).is_empty());
}

#[test]
fn a_view_that_lacks_the_guard_itself_looks_from_elsewhere() {
    let view = |tid| vec![TaskView { tgid: tid, tid }];
    assert!(usable(Ok(view(7)), Some(key(7))).is_ok());
    assert!(usable(Ok(view(8)), Some(key(7))).is_err());
    assert!(usable(Ok(view(8)), None).is_ok());
}
