// SPDX-License-Identifier: Apache-2.0
//! Branches on static keys.
//!
//! `__jump_table` (include/linux/jump_label.h, 5.x to 7.x with CONFIG_HAVE_ARCH_JUMP_LABEL_RELATIVE):
//! entries of 16 bytes, s32 code, s32 target, s64 key, each relative to its own address. Bit 0 of
//! the key: the branch is taken when the key is off; bit 1: the code was in init memory, which is
//! gone. The entry is two or five bytes long as the compiler made it (arch_jump_entry_size,
//! arch/x86/kernel/jump_label.c).

use kernel_image::Symbols;

use super::{Encoding, Legal, NOP5, Site, SiteKind, State, Verdict, branch, relative, table};
use crate::baseline::{Baseline, RegionKind};

const ENTRY: usize = 16;
const NOP2: [u8; 2] = [0x66, 0x90];

/// One branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JumpLabel {
    /// Where it is.
    pub code: u64,
    /// Where it leads when it is a jump.
    pub target: u64,
    /// The address of its `struct static_key`.
    pub key: u64,
    /// Whether it jumps when the key is off (and not when it is on).
    pub branch: bool,
    /// Its length, 2 or 5 bytes.
    pub length: u8,
}

impl JumpLabel {
    /// Whether it must be a jump when its key is enabled or not (jump_label_type,
    /// kernel/jump_label.c).
    pub fn jumps(&self, enabled: bool) -> bool {
        enabled ^ self.branch
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct JumpLabels {
    entries: Vec<JumpLabel>,
}

impl JumpLabels {
    /// Reads the table, without the entries of init code.
    pub(super) fn gather(
        baseline: &Baseline,
        symbols: &Symbols,
        reduced: &mut Vec<String>,
    ) -> Self {
        let bounds = ("__start___jump_table", "__stop___jump_table");
        let Some((start, bytes)) = table(baseline, symbols, bounds.0, bounds.1) else {
            reduced.push(format!("jump labels are not known: {} is not in rodata", bounds.0));
            return Self::default();
        };
        let Some(text) = baseline.region(RegionKind::Text) else { return Self::default() };
        let entries = bytes
            .chunks_exact(ENTRY)
            .zip((start..).step_by(ENTRY))
            .filter_map(|(entry, at)| decode(at, entry))
            .filter(|entry| text.holds(entry.code) && text.holds(entry.target))
            .filter_map(|mut entry| {
                entry.length = length(&entry, baseline.bytes_at(entry.code, 5)?)?;
                Some(entry)
            })
            .collect();
        Self { entries }
    }

    /// A table from entries that are known otherwise.
    pub fn from_entries(entries: Vec<JumpLabel>) -> Self {
        Self { entries }
    }

    /// The entries, in the order of the table.
    pub fn entries(&self) -> &[JumpLabel] {
        &self.entries
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        self.entries.iter().zip(0..).map(|(entry, index)| Site {
            address: entry.code,
            length: entry.length,
            kind: SiteKind::JumpLabel,
            index,
        })
    }

    /// The entry of a site.
    pub fn entry(&self, site: &Site) -> Option<&JumpLabel> {
        self.entries.get(site.index as usize)
    }

    pub(super) fn judge(&self, site: &Site, bytes: &[u8], state: &State) -> Verdict {
        let Some(entry) = self.entry(site) else { return Verdict::Illegal };
        let Some(encoding) = decode_site(entry, bytes) else { return Verdict::Illegal };
        let jumps = matches!(encoding, Encoding::Jump(_));
        match state.is_enabled(entry.key) {
            Some(enabled) if entry.jumps(enabled) != jumps => Verdict::OutOfStep(encoding),
            _ => Verdict::Expected(encoding),
        }
    }

    pub(super) fn legal(&self, site: &Site, state: &State) -> Vec<Legal> {
        let Some(entry) = self.entry(site) else { return Vec::new() };
        let nop = match entry.length {
            2 => NOP2.to_vec(),
            _ => NOP5.to_vec(),
        };
        let mut legal = vec![Legal { bytes: nop, encoding: Encoding::Nop }];
        if let Some(bytes) = jump(entry) {
            legal.push(Legal { bytes, encoding: Encoding::Jump(entry.target) });
        }
        if state.is_enabled(entry.key).is_some_and(|enabled| entry.jumps(enabled)) {
            legal.reverse();
        }
        legal
    }
}

/// What the bytes at an entry do: nothing, or a jump to exactly its target.
pub fn decode_site(entry: &JumpLabel, bytes: &[u8]) -> Option<Encoding> {
    if bytes == NOP2 || bytes == NOP5 {
        return Some(Encoding::Nop);
    }
    let next = entry.code.wrapping_add(bytes.len() as u64);
    let displacement = match bytes {
        [0xeb, near] => i64::from(near.cast_signed()),
        [0xe9, a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
        _ => return None,
    };
    (next.wrapping_add_signed(displacement) == entry.target).then_some(Encoding::Jump(entry.target))
}

fn jump(entry: &JumpLabel) -> Option<Vec<u8>> {
    if entry.length == 5 {
        return branch(&[0xe9], entry.code, entry.target);
    }
    let distance = entry.target.wrapping_sub(entry.code.wrapping_add(2)).cast_signed();
    Some(vec![0xeb, i8::try_from(distance).ok()?.cast_unsigned()])
}

fn decode(at: u64, entry: &[u8]) -> Option<JumpLabel> {
    let key: [u8; 8] = entry.get(8..16)?.try_into().ok()?;
    let key = i64::from_le_bytes(key);
    Some(JumpLabel {
        code: relative(at, entry, 0)?,
        target: relative(at, entry, 4)?,
        key: at.wrapping_add(8).wrapping_add_signed(key & !3),
        branch: key & 1 != 0,
        length: 0,
    })
}

/// The length of an entry by the bytes at it, which may be those of a text poke under way.
fn length(entry: &JumpLabel, bytes: &[u8]) -> Option<u8> {
    let long = bytes.get(..5)?;
    let short = bytes.get(..2)?;
    if decode_site(entry, long).is_some() {
        return Some(5);
    }
    if decode_site(entry, short).is_some() {
        return Some(2);
    }
    let restored = |first: u8| {
        let mut bytes = [first, 0, 0, 0, 0];
        bytes.get_mut(1..)?.copy_from_slice(long.get(1..)?);
        decode_site(entry, &bytes)
    };
    let poked_long = [NOP5[0], 0xe9].into_iter().any(|first| restored(first).is_some());
    // Bytes that are no encoding at all get the length that the distance asks for, so that the
    // place is still known as a jump label, and found illegal.
    let distance = entry.target.wrapping_sub(entry.code.wrapping_add(2)).cast_signed();
    Some(if poked_long || i8::try_from(distance).is_err() { 5 } else { 2 })
}
