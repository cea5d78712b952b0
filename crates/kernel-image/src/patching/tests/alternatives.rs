// SPDX-License-Identifier: Apache-2.0

use super::{bytes, dialects, machine, with};
use crate::patching::{Code, Dialect, Machine, Pieces, alternatives};
use crate::tables::Alternative;

const SITE: u64 = 0x1000;
const REPLACEMENT: u64 = 0x9000;
const FEATURE: u16 = 11 * 32 + 12;

fn entry(length: u8, replacement_length: u8) -> Alternative {
    Alternative {
        address: SITE,
        replacement: REPLACEMENT,
        feature: FEATURE,
        unless: false,
        direct_call: false,
        length,
        replacement_length,
    }
}

fn applied(
    original: &[u8],
    replacement: &[u8],
    entries: &[Alternative],
    machine: &Machine,
) -> Vec<u8> {
    let mut code = Pieces::new();
    code.add(SITE, original.to_vec());
    code.add(REPLACEMENT, replacement.to_vec());
    assert_eq!(alternatives::apply(&mut code, entries, machine).places, 0);
    bytes(&code, SITE, original.len())
}

fn all(has: bool) -> [Machine; 3] {
    dialects().map(machine).map(|machine| if has { with(machine, FEATURE) } else { machine })
}

#[test]
fn what_is_taken_is_filled_up_and_what_is_not_has_its_nops_put_together() {
    for (has, unless) in [(true, false), (false, true)] {
        for machine in all(has) {
            let entry = Alternative { unless, ..entry(5, 3) };
            let seen = applied(&[0x90; 5], &[0x0f, 0xae, 0xe8], &[entry], &machine);
            assert_eq!(seen, [0x0f, 0xae, 0xe8, 0x66, 0x90]);
        }
    }
    for machine in all(false) {
        let seen = applied(&[0x90; 5], &[0x0f, 0xae, 0xe8], &[entry(5, 3)], &machine);
        assert_eq!(seen, [0x0f, 0x1f, 0x44, 0, 0]);
    }
}

/// `__apply_relocation` (6.12) and `apply_alternatives` with `recompute_jump` (6.1).
#[test]
fn calls_and_jumps_lead_where_the_replacement_led() {
    for machine in all(true) {
        // call REPLACEMENT+5+0x100
        let seen = applied(&[0x90; 5], &[0xe8, 0, 1, 0, 0], &[entry(5, 5)], &machine);
        assert_eq!(seen, [0xe8, 0, 0x81, 0, 0]);
    }
    let near = |distance: i32| {
        let [a, b, c, d] = (SITE as i32 + distance - REPLACEMENT as i32 - 5).to_le_bytes();
        [0xe9, a, b, c, d]
    };
    let [old, middle, new] = all(true);
    let seen = |machine| applied(&[0x90; 5], &near(0x40), &[entry(5, 5)], machine);
    assert_eq!(seen(&old), [0xeb, 0x3e, 0x0f, 0x1f, 0x00]);
    assert_eq!(seen(&middle), [0xeb, 0x3e, 0xcc, 0xcc, 0xcc]);
    assert_eq!(seen(&new), seen(&middle));
    // 6.1 keeps the long form for jumps back.
    let seen = |machine| applied(&[0x90; 5], &near(-0x40), &[entry(5, 5)], machine);
    assert_eq!(seen(&old), [0xe9, 0xbb, 0xff, 0xff, 0xff]);
    assert_eq!(seen(&middle), [0xeb, 0xbe, 0xcc, 0xcc, 0xcc]);
}

/// What is relative to the instruction pointer keeps its target from 6.12 on, and what leads to
/// within the replacement its distance.
#[test]
fn operands_are_moved_and_short_jumps_within_are_not() {
    let [_, middle, new] = all(true);
    for machine in [middle, new] {
        // mov 0x100(%rip),%eax ; je to behind it
        let replacement = [0x8b, 0x05, 0, 1, 0, 0, 0x74, 0];
        let seen = applied(&[0x90; 8], &replacement, &[entry(8, 8)], &machine);
        assert_eq!(seen, [0x8b, 0x05, 0, 0x81, 0, 0, 0x74, 0]);
    }
}

/// `alt_replace_call`: a call through pv_ops becomes a direct one, or nothing.
#[test]
fn a_call_through_memory_becomes_direct() {
    // call *0x2000(%rip), with the pointer at SITE + 6 + 0x2000; the replacement calls BUG_func.
    let original = [0xff, 0x15, 0, 0x20, 0, 0];
    let (bug, nop) = (0xa000_u64, 0xb000);
    let [a, b, c, d] = ((bug - REPLACEMENT - 5) as u32).to_le_bytes();
    let replacement = [0xe8, a, b, c, d];
    let entry = Alternative { direct_call: true, ..entry(6, 5) };
    let [_, middle, new] = all(true);
    for machine in [middle, new] {
        let to = |target: u64| {
            let mut machine = machine.clone();
            (machine.bug_function, machine.nop_function) = (bug, nop);
            machine.pointers.insert(SITE + 6 + 0x2000, target);
            applied(&original, &replacement, &[entry], &machine)
        };
        let call = |target: u64| {
            let [a, b, c, d] = ((target - SITE - 5) as u32).to_le_bytes();
            [0xe8, a, b, c, d, 0x90]
        };
        assert_eq!(to(0xc000), call(0xc000));
        assert_eq!(to(0), call(bug));
        assert_eq!(to(nop), [0x66, 0x0f, 0x1f, 0x44, 0, 0]);
    }
}

#[test]
fn of_several_entries_at_one_place_the_last_that_is_taken_stands() {
    for machine in all(true) {
        let absent = Alternative { feature: FEATURE + 1, ..entry(6, 3) };
        let second = Alternative { replacement: REPLACEMENT + 3, ..entry(6, 3) };
        let replacement = [0x0f, 0xae, 0xe8, 0x0f, 0xae, 0xf0];
        let seen = applied(&[0x90; 6], &replacement, &[entry(6, 3), second, absent], &machine);
        assert_eq!(seen, [0x0f, 0xae, 0xf0, 0x0f, 0x1f, 0x00]);
    }
}

/// 6.12: an entry has the longest length of those at its place.
#[test]
fn nested_entries_have_one_length() {
    let machine = with(machine(Dialect::default()), FEATURE);
    let longer = Alternative { feature: FEATURE + 1, ..entry(8, 0) };
    let seen = applied(&[0x90; 8], &[0x0f, 0xae, 0xe8], &[entry(3, 3), longer], &machine);
    assert_eq!(seen, [0x0f, 0xae, 0xe8, 0x0f, 0x1f, 0x44, 0, 0]);
}

#[test]
fn patching_twice_is_patching_once() {
    for machine in all(true) {
        let mut code = Pieces::new();
        code.add(SITE, vec![0x90; 7]);
        code.add(REPLACEMENT, vec![0xe8, 0, 1, 0, 0]);
        let _ = alternatives::apply(&mut code, &[entry(7, 5)], &machine);
        let once = bytes(&code, SITE, 7);
        let _ = alternatives::apply(&mut code, &[entry(7, 5)], &machine);
        assert_eq!(bytes(&code, SITE, 7), once);
    }
}

#[test]
fn what_is_not_part_of_the_code_is_counted_and_left() {
    let mut code = Pieces::new();
    assert_eq!(alternatives::apply(&mut code, &[entry(5, 3)], &Machine::default()).places, 1);
    assert!(!code.write(SITE, &[0]));
}
