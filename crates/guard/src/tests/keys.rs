// SPDX-License-Identifier: Apache-2.0
//! Jump labels and static calls against their keys.

use super::synthetic::*;
use crate::check::Check;
use crate::checks::jump_labels::JumpLabels;
use crate::checks::static_calls::StaticCalls;
use crate::checks::text::Text;
use crate::finding::Finding;

fn labels(synthetic: &Synthetic) -> Vec<Finding> {
    let baseline = synthetic.baseline();
    synthetic.run(&mut JumpLabels::default(), &baseline, &silent()).unwrap().findings
}

fn calls(synthetic: &Synthetic) -> Vec<Finding> {
    let baseline = synthetic.baseline();
    synthetic.run(&mut StaticCalls::default(), &baseline, &silent()).unwrap().findings
}

#[test]
fn keys_and_branches_that_agree_give_no_finding() {
    let mut synthetic = Synthetic::new();
    assert_eq!(labels(&synthetic), []);
    synthetic.memory.write_u32(SHORT_KEY, 1);
    synthetic.memory.write(SHORT_LABEL, &[0xeb, 0x39]);
    assert_eq!(labels(&synthetic), []);
}

#[test]
fn a_branch_that_was_flipped_by_hand_is_found_even_in_the_baseline() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write(SHORT_LABEL, &[0xeb, 0x39]);
    let found = labels(&synthetic);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].technique, "jump label does not follow its key");
    assert_eq!(found[0].expected, "a no-op");
    assert_eq!(found[0].seen, "eb 39  jmp do_work+0x40");
}

#[test]
fn a_flipped_branch_is_not_a_finding_of_the_text() {
    let mut synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    synthetic.memory.write(SHORT_LABEL, &[0xeb, 0x39]);
    let text = synthetic.run(&mut Text::default(), &baseline, &silent()).unwrap();
    assert_eq!((text.findings.len(), text.text.unwrap().explained_changes), (0, 1));
}

#[test]
fn a_key_under_way_is_said_and_not_a_finding() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write_u32(SHORT_KEY, u32::MAX);
    let baseline = synthetic.baseline();
    let outcome = synthetic.run(&mut JumpLabels::default(), &baseline, &silent()).unwrap();
    assert!(outcome.findings.is_empty());
    assert_eq!(outcome.reduced, ["1 branches belong to keys that are being changed"]);
}

#[test]
fn static_calls_that_go_where_their_keys_point_give_no_finding() {
    assert_eq!(calls(&Synthetic::new()), []);
}

#[test]
fn a_static_call_that_does_not_follow_its_key_is_found_with_its_trampoline() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write_u64(CALL_KEY, OTHER);
    let found = calls(&synthetic);
    let places: Vec<u64> = found.iter().map(|finding| finding.address).collect();
    assert_eq!(places, [STATIC_CALL, TRAMPOLINE]);
    assert_eq!(found[0].technique, "static call retargeted");
    assert!(found[0].expected.ends_with("call other"), "{}", found[0].expected);
    let key = found[0].evidence.iter().any(|line| line.ends_with("points at other"));
    assert!(key, "{:?}", found[0].evidence);
}

#[test]
fn a_static_call_that_was_switched_off_by_hand_is_found() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write(STATIC_CALL, &[0x0f, 0x1f, 0x44, 0, 0]);
    let found = calls(&synthetic);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].technique, "static call does not follow its key");
}

#[test]
fn a_key_that_points_outside_the_text_is_found_although_its_calls_follow() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write_u64(CALL_KEY, NOWHERE);
    synthetic.memory.write(STATIC_CALL, &to(&[0xe8], STATIC_CALL, NOWHERE));
    synthetic.memory.write(TRAMPOLINE, &to(&[0xe9], TRAMPOLINE, NOWHERE));
    let found = calls(&synthetic);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].technique, "static call key points outside the text");
    assert_eq!(found[0].address, CALL_KEY);
}

/// Flips each of these bytes after a pass in which all was in order, and takes it back after the next.
fn each_flip_is_seen(check: &mut dyn Check, places: &[(u64, u64)]) {
    let mut synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    let mut found =
        |synthetic: &Synthetic| synthetic.run(check, &baseline, &silent()).unwrap().findings.len();
    for at in places.iter().flat_map(|(start, length)| *start..start + length) {
        assert_eq!(found(&synthetic), 0, "before {at:#x}");
        let byte = synthetic.kernel().u8_at(at).unwrap();
        synthetic.memory.write(at, &[byte ^ 0x40]);
        assert_ne!(found(&synthetic), 0, "{at:#x} was flipped");
        assert_ne!(found(&synthetic), 0, "{at:#x} still is");
        synthetic.memory.write(at, &[byte]);
    }
    assert_eq!(found(&synthetic), 0);
}

#[test]
fn what_changes_of_calls_that_were_in_order_is_seen_in_the_next_pass() {
    let calls = [(STATIC_CALL, 5), (TAIL_CALL, 5), (TRAMPOLINE, 5), (CALL_KEY, 8), (TAIL_KEY, 8)];
    each_flip_is_seen(&mut StaticCalls::default(), &calls);
}

#[test]
fn what_changes_of_branches_that_were_in_order_is_seen_in_the_next_pass() {
    // Of a key only whether it is positive counts.
    let branches = [(SHORT_LABEL, 2), (LONG_LABEL, 5), (SHORT_KEY, 3), (LONG_KEY, 3)];
    each_flip_is_seen(&mut JumpLabels::default(), &branches);
}

/// What the kernel's mutex holds while a task changes sites.
const TASK: u64 = 0xffff_8880_0000_1001;

#[test]
fn sites_that_the_kernel_is_changing_are_left_to_the_next_look() {
    let synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    let checks: [(&mut dyn Check, u64); 3] = [
        (&mut Text::default(), CALL_MUTEX),
        (&mut StaticCalls::default(), CALL_MUTEX),
        (&mut JumpLabels::default(), LABEL_MUTEX),
    ];
    for (check, mutex) in checks {
        let name = check.name();
        let mut synthetic = Synthetic::new();
        let mut look = |synthetic: &Synthetic| {
            let outcome = synthetic.run(check, &baseline, &silent()).unwrap();
            let left = outcome.reduced.iter().any(|line| line.contains("left to the next pass"));
            (outcome.findings.len(), left)
        };
        for _ in 0..2 {
            assert_eq!(look(&synthetic), (0, false), "{name}");
        }
        // A key, and one of its sites, are as they will be; the others are not there yet.
        synthetic.memory.write_u64(mutex, TASK);
        synthetic.memory.write_u64(CALL_KEY, OTHER);
        synthetic.memory.write(TRAMPOLINE, &to(&[0xe9], TRAMPOLINE, OTHER));
        synthetic.memory.write(STATIC_CALL, &to(&[0xe8], STATIC_CALL, QUIET));
        synthetic.memory.write_u32(SHORT_KEY, 1);
        assert_eq!(look(&synthetic), (0, true), "{name}");
        // When the kernel is done they must agree.
        synthetic.memory.write_u64(mutex, 0);
        let (findings, left) = look(&synthetic);
        assert!(findings > 0 && !left, "{name}");
        synthetic.memory.write(STATIC_CALL, &to(&[0xe8], STATIC_CALL, OTHER));
        synthetic.memory.write(SHORT_LABEL, &[0xeb, 0x39]);
        assert_eq!(look(&synthetic), (0, false), "{name}");
    }
}
