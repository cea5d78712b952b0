// SPDX-License-Identifier: Apache-2.0
//! Runs of nops made into fewer (`optimize_nops`).

use super::instruction::{decode, without_prefixes};
use super::machine::{Dialect, NopStyle};

/// `x86_nops` (arch/x86/include/asm/nops.h); 6.1 has the first eight.
const NOPS: [&[u8]; 11] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

/// The nop of one byte.
pub(super) const NOP: u8 = 0x90;
/// What is put where nothing may be executed.
pub(super) const INT3: u8 = 0xcc;

/// Fills `buffer` with what does nothing (`add_nops` of 6.1, `add_nop` of 6.12).
pub(super) fn fill(buffer: &mut [u8], style: NopStyle) {
    match style {
        NopStyle::Short => {
            for piece in buffer.chunks_mut(8) {
                one(piece);
            }
        }
        NopStyle::Long if buffer.len() <= NOPS.len() => one(buffer),
        NopStyle::Long => {
            let length = buffer.len();
            buffer.fill(INT3);
            let mut jump = [0xeb, length.wrapping_sub(2) as u8, 0, 0, 0];
            let mut size = 2;
            if length >= 128 {
                let [a, b, c, d] = (length.wrapping_sub(5) as u32).to_le_bytes();
                jump = [0xe9, a, b, c, d];
                size = 5;
            }
            for (slot, byte) in buffer.iter_mut().zip(jump.iter().take(size)) {
                *slot = *byte;
            }
        }
    }
}

fn one(buffer: &mut [u8]) {
    if let Some(nop) = buffer.len().checked_sub(1).and_then(|index| NOPS.get(index)) {
        buffer.copy_from_slice(nop);
    }
}

/// Puts the nops among the instructions of `buffer` together.
pub(super) fn optimize(buffer: &mut [u8], dialect: Dialect) {
    match dialect.nops {
        NopStyle::Short => optimize_bytes(buffer),
        NopStyle::Long => optimize_runs(buffer, dialect.wide_nops),
    }
}

/// As in 6.1: only nops of one byte count, and two of them at least.
fn optimize_bytes(buffer: &mut [u8]) {
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let Some(instruction) = decode(rest) else { return };
        if rest.first() == Some(&NOP) {
            let count = rest.iter().take_while(|byte| **byte == NOP).count();
            if count > 1 {
                fill(rest.get_mut(..count).unwrap_or_default(), NopStyle::Short);
            }
            at += count;
        } else {
            at += instruction.length;
        }
    }
}

/// As in 6.12: a run of nops of any length becomes one, unless it is a single nop at the very end.
fn optimize_runs(buffer: &mut [u8], wide: bool) {
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let Some(instruction) = decode(rest) else { return };
        let mut length = instruction.length;
        if is_nop(rest.get(..length).unwrap_or_default(), wide) {
            if length == rest.len() {
                return;
            }
            while let Some(next) = rest.get(length..).filter(|next| !next.is_empty()) {
                match decode(next) {
                    Some(one) if is_nop(next.get(..one.length).unwrap_or_default(), wide) => {
                        length += one.length;
                    }
                    _ => break,
                }
            }
            fill(rest.get_mut(..length).unwrap_or_default(), NopStyle::Long);
        }
        at += length;
    }
}

/// `insn_is_nop`, of alternative.c in 6.12 and of lib/insn-eval.c in 7.3.
fn is_nop(bytes: &[u8], wide: bool) -> bool {
    let (rest, prefixes) = without_prefixes(bytes);
    let rex = prefixes.last().filter(|byte| (0x40..=0x4f).contains(*byte)).copied().unwrap_or(0);
    let same_register = |modrm: u8| {
        let (reg, rm) = (modrm >> 3 & 7 | (rex & 4) << 1, modrm & 7 | (rex & 1) << 3);
        reg == rm
    };
    match rest {
        [NOP] if wide => rex & 1 == 0 && !prefixes.contains(&0xf3),
        [NOP] => prefixes.first() != Some(&0xf3),
        [0x0f, 0x1f, modrm, ..] => !wide || (modrm >> 3 & 7 == 0 && rex & 4 == 0),
        [0x89, modrm] => wide && modrm >> 6 == 3 && rex & 8 != 0 && same_register(*modrm),
        // With a displacement of zero, and no index where there is a SIB byte.
        [0x8d, modrm, sib @ 0x24, displacement @ ..] if modrm & 7 == 4 => {
            let base = sib & 7 | (rex & 1) << 3;
            wide && matches!(modrm >> 6, 1 | 2)
                && rex & 8 != 0
                && displacement.iter().all(|byte| *byte == 0)
                && base == (modrm >> 3 & 7 | (rex & 4) << 1)
        }
        [0x8d, modrm, displacement @ ..] if modrm & 7 != 4 => {
            wide && matches!(modrm >> 6, 1 | 2)
                && rex & 8 != 0
                && displacement.iter().all(|byte| *byte == 0)
                && same_register(*modrm)
        }
        [0xeb, 0] | [0xe9, 0, 0, 0, 0] => wide,
        _ => false,
    }
}
