// SPDX-License-Identifier: Apache-2.0
//! Instructions with another form for some CPUs (`apply_alternatives`).
//!
//! Entries are applied in their order, and a later one may replace what an earlier one put there.
//! Where an entry is not taken, the nops among the original instructions are put together all the
//! same. 7.3 decides first and writes once for all entries of one place; the result is the same.

use super::Skipped;
use super::code::{Code, array};
use super::instruction::{branch, decode, displacement};
use super::machine::{Machine, NopStyle};
use super::nops::{self, INT3, NOP};
use crate::tables::Alternative;

/// Applies the entries.
pub fn apply(code: &mut impl Code, entries: &[Alternative], machine: &Machine) -> Skipped {
    let mut skipped = Skipped::default();
    let mut rest = entries;
    while let Some((entry, after)) = rest.split_first() {
        // In 6.12 and later, one entry after another at one place have the longest length of them.
        let same = after.iter().take_while(|next| next.address == entry.address);
        let longest = same.map(|next| next.length).fold(entry.length, u8::max);
        let length = match machine.dialect.nops {
            NopStyle::Short => entry.length,
            NopStyle::Long => longest.max(longest_before(entries, rest.len(), entry.address)),
        };
        skipped.note(one(code, entry, usize::from(length), machine).is_some());
        rest = after;
    }
    skipped
}

/// The longest of the entries right before that are for the same place.
fn longest_before(entries: &[Alternative], left: usize, address: u64) -> u8 {
    let before = entries.get(..entries.len().saturating_sub(left)).unwrap_or_default();
    let same = before.iter().rev().take_while(|entry| entry.address == address);
    same.map(|entry| entry.length).max().unwrap_or(0)
}

fn one(code: &mut impl Code, entry: &Alternative, length: usize, machine: &Machine) -> Option<()> {
    let original = code.read(entry.address, length)?.to_vec();
    let mut buffer = original.clone();
    if machine.has(entry.feature) != entry.unless {
        let replacement_length = usize::from(entry.replacement_length);
        let replacement = code.read(entry.replacement, replacement_length)?;
        buffer.fill(NOP);
        buffer.get_mut(..replacement_length)?.copy_from_slice(replacement);
        if machine.dialect.nops == NopStyle::Short {
            move_first(&mut buffer, entry);
        } else {
            if entry.direct_call {
                // Where no call is needed, all of it becomes nops.
                make_direct(&mut buffer, &original, entry, machine)?;
            }
            relocate(&mut buffer, entry.address, entry.replacement, replacement_length);
        }
    }
    nops::optimize(&mut buffer, machine.dialect);
    (buffer == original || code.write(entry.address, &buffer)).then_some(())
}

/// 6.1 moves a call or a jump that is all of the replacement (`recompute_jump`).
fn move_first(buffer: &mut [u8], entry: &Alternative) {
    if entry.replacement_length != 5 {
        return;
    }
    let Some(distance) = displacement(buffer, (1, 4)) else { return };
    let target = entry.replacement.wrapping_add(5).wrapping_add_signed(i64::from(distance));
    let Some(opcode) = buffer.first().copied() else { return };
    let mut new = branch(opcode, entry.address, target).to_vec();
    match opcode {
        0xe8 => {}
        0xe9 | 0xeb => {
            let distance = target.wrapping_sub(entry.address).cast_signed();
            if (0..=129).contains(&distance) {
                new = vec![0xeb, (distance - 2) as u8, 0x0f, 0x1f, 0x00];
            } else if let Some(first) = new.first_mut() {
                *first = 0xe9;
            }
        }
        _ => return,
    }
    if let Some(slot) = buffer.get_mut(..5) {
        slot.copy_from_slice(&new);
    }
}

/// `call BUG_func` of the replacement becomes a call of what `call *pv_ops+x(%rip)` would call
/// (`alt_replace_call`).
fn make_direct(
    buffer: &mut [u8],
    original: &[u8],
    entry: &Alternative,
    machine: &Machine,
) -> Option<()> {
    let [0xff, 0x15, slot @ ..] = original.get(..6)? else { return None };
    let distance = i32::from_le_bytes(slot.try_into().ok()?);
    let slot = entry.address.wrapping_add(6).wrapping_add_signed(i64::from(distance));
    let target = match machine.pointers.get(&slot)? {
        0 => machine.bug_function,
        target => *target,
    };
    if target == machine.nop_function {
        buffer.fill(NOP);
        return Some(());
    }
    let more = target.wrapping_sub(machine.bug_function) as u32;
    let field = buffer.get_mut(1..5)?;
    let old = u32::from_le_bytes((&*field).try_into().ok()?);
    field.copy_from_slice(&old.wrapping_add(more).to_le_bytes());
    Some(())
}

/// Adjusts what is relative to its own address in code that was written for `from` and is put at
/// `to`; `length` is that of the code before it was filled up (`__apply_relocation`).
pub(super) fn relocate(buffer: &mut [u8], to: u64, from: u64, length: usize) {
    let moved = from.wrapping_sub(to);
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let Some(instruction) = decode(rest) else { return };
        let next = at + instruction.length;
        // What leads to within the code is moved with it.
        let leaves = |distance: i32| {
            let target = i64::from(distance) + next as i64;
            target < 0 || target > length as i64
        };
        if let Some(field) = instruction.branch {
            let Some(distance) = displacement(rest, field) else { return };
            if leaves(distance) {
                add(rest, field, moved);
            }
            if instruction.is_long_jump {
                shorten(rest, instruction.length, distance, moved);
            }
        }
        if let Some(offset) = instruction.relative_operand
            && displacement(rest, (offset, 4)).is_some_and(leaves)
        {
            add(rest, (offset, 4), moved);
        }
        at = next;
    }
}

fn add(bytes: &mut [u8], (offset, width): (usize, usize), moved: u64) {
    let Some(old) = displacement(bytes, (offset, width)) else { return };
    let new = (old as u32).wrapping_add(moved as u32).to_le_bytes();
    if let Some(field) = bytes.get_mut(offset..offset + width) {
        for (slot, byte) in field.iter_mut().zip(new) {
            *slot = byte;
        }
    }
}

/// A jump that reaches with one byte becomes such, and int3s behind it.
fn shorten(bytes: &mut [u8], length: usize, distance: i32, moved: u64) {
    let distance = distance.wrapping_add(moved as i32).wrapping_add(3);
    if let Ok(short) = i8::try_from(distance)
        && let Some([opcode, field, rest @ ..]) = bytes.get_mut(..length)
    {
        *opcode = 0xeb;
        *field = short.cast_unsigned();
        rest.fill(INT3);
    }
}

/// The code that `template` becomes at an address, its nops put together
/// (`text_poke_apply_relocation`).
pub(super) fn moved(template: &[u8], from: u64, to: u64, machine_nops: super::Dialect) -> Vec<u8> {
    let mut buffer = template.to_vec();
    relocate(&mut buffer, to, from, template.len());
    nops::optimize(&mut buffer, machine_nops);
    buffer
}

/// Whether five bytes at a place are a call; used by call depth tracking.
pub(super) fn call_at(code: &impl Code, address: u64) -> Option<[u8; 5]> {
    array::<5>(code, address).filter(|bytes| bytes.first() == Some(&0xe8))
}
