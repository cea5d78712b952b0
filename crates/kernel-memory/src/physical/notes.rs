// SPDX-License-Identifier: Apache-2.0
//! Notes of a dump: what is known of the machine besides its memory.

use super::{u32_at, u64_at};

/// A note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Who defines what it holds.
    pub name: &'a str,
    /// Its type, by its name.
    pub kind: u32,
    /// What it holds.
    pub content: &'a [u8],
}

/// The notes in these bytes, up to the first that is cut off. Name and content are each filled up to
/// four bytes (`elf64_note`, include/uapi/linux/elf.h).
pub(super) fn notes(bytes: &[u8]) -> Vec<Note<'_>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((note, after)) = first(rest) {
        // What fills up the last of several segments.
        if !(note.name.is_empty() && note.content.is_empty()) {
            found.push(note);
        }
        rest = after;
    }
    found
}

fn first(bytes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let name_length = u32_at(bytes, 0)? as usize;
    let length = u32_at(bytes, 4)? as usize;
    let kind = u32_at(bytes, 8)?;
    let rest = bytes.get(12..)?;
    let name = rest.get(..name_length)?;
    let rest = rest.get(name_length.checked_next_multiple_of(4)?..)?;
    let content = rest.get(..length)?;
    let after = rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some((Note { name: std::str::from_utf8(name).unwrap_or_default(), kind, content }, after))
}

/// The registers of a processor that decide how its addresses are translated and where its
/// interrupts go, as QEMU writes them into a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QemuProcessor {
    /// CR0, CR3 and CR4.
    pub cr0: u64,
    /// See above.
    pub cr3: u64,
    /// See above.
    pub cr4: u64,
    /// Base and limit of the global descriptor table.
    pub gdt: (u64, u16),
    /// Base and limit of the interrupt descriptor table.
    pub idt: (u64, u16),
}

/// Offsets in `QEMUCPUState` (target/i386/arch_dump.c, QEMU 7.2): version and size, 18 registers, ten
/// segments of 24 bytes, of which the last two are the tables, five control registers.
const GDT: u64 = 8 + 18 * 8 + 8 * 24;
const IDT: u64 = GDT + 24;
const CONTROL: u64 = IDT + 24;

/// The processors that QEMU's own notes tell of, in order.
pub fn qemu_processors(notes: &[Note<'_>]) -> Vec<QemuProcessor> {
    let of_qemu = notes.iter().filter(|note| note.name == "QEMU" && note.kind == 0);
    of_qemu.filter_map(|note| processor(note.content)).collect()
}

fn processor(state: &[u8]) -> Option<QemuProcessor> {
    if u32_at(state, 0)? != 1 {
        return None;
    }
    let control = |number: u64| u64_at(state, CONTROL + 8 * number);
    // A segment: selector, limit, flags, four bytes to fill it up, base.
    let table =
        |at: u64| Some((u64_at(state, at + 16)?, u16::try_from(u32_at(state, at + 4)?).ok()?));
    Some(QemuProcessor {
        cr0: control(0)?,
        cr3: control(3)?,
        cr4: control(4)?,
        gdt: table(GDT)?,
        idt: table(IDT)?,
    })
}
