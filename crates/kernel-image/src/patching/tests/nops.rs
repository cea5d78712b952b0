// SPDX-License-Identifier: Apache-2.0

use super::dialects;
use crate::patching::nops::optimize;

fn optimized(bytes: &[u8], dialect: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    optimize(&mut bytes, dialects()[dialect]);
    bytes
}

/// `optimize_nops_range` and `add_nops`, 6.1: at most eight bytes each.
#[test]
fn runs_become_nops_of_eight_bytes_in_the_old_kernel() {
    let mut expected = vec![0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x0f, 0x1f, 0x00];
    assert_eq!(optimized(&[0x90; 11], 0), expected);
    expected.push(0xc3);
    let mut run = vec![0x90; 11];
    run.push(0xc3);
    assert_eq!(optimized(&run, 0), expected);
    // A nop of several bytes is left alone.
    assert_eq!(optimized(&[0x66, 0x90, 0x90, 0x90], 0), [0x66, 0x90, 0x66, 0x90]);
    assert_eq!(optimized(&[0x90], 0), [0x90]);
}

/// `optimize_nops` and `add_nop`, 6.12: one of eleven bytes, or a jump over int3s.
#[test]
fn runs_become_one_nop_or_a_jump_since() {
    let eleven = [0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
    assert_eq!(optimized(&[0x90; 11], 1), eleven);
    let mut twelve = vec![0xeb, 10];
    twelve.resize(12, 0xcc);
    assert_eq!(optimized(&[0x90; 12], 1), twelve);
    let mut long = vec![0xe9, 195, 0, 0, 0];
    long.resize(200, 0xcc);
    assert_eq!(optimized(&[0x90; 200], 1), long);
    // Nops of several bytes are part of a run, but one alone at the end is left.
    assert_eq!(optimized(&[0x66, 0x90, 0x90], 1), [0x0f, 0x1f, 0x00]);
    assert_eq!(optimized(&[0xc3, 0x66, 0x90], 1), [0xc3, 0x66, 0x90]);
    // `pause` is none.
    assert_eq!(optimized(&[0xf3, 0x90, 0x90, 0x90], 1), [0xf3, 0x90, 0x66, 0x90]);
}

/// `insn_is_nop`, arch/x86/lib/insn-eval.c, 7.3.
#[test]
fn a_move_of_a_register_to_itself_is_a_nop_in_the_new_kernel_only() {
    let code = [0x48, 0x89, 0xc0, 0x90, 0xc3];
    assert_eq!(optimized(&code, 1), code);
    assert_eq!(optimized(&code, 2), [0x0f, 0x1f, 0x40, 0x00, 0xc3]);
    let other = [0x48, 0x89, 0xc8, 0x90, 0xc3];
    assert_eq!(optimized(&other, 2), other);
}

#[test]
fn nops_that_are_together_stay_as_they_are() {
    for (dialect, length) in (0..3).flat_map(|dialect| (1..40).map(move |length| (dialect, length)))
    {
        let mut code = vec![0x90; length];
        code.push(0xc3);
        let once = optimized(&code, dialect);
        assert_eq!(optimized(&once, dialect), once, "{length} bytes");
        assert_eq!(once.len(), code.len());
    }
}
