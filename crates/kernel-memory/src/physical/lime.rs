// SPDX-License-Identifier: Apache-2.0
//! LiME's format: each stretch of memory with a header in front of it.
//!
//! A header is 32 bytes, all numbers little-endian: magic, version 1, the first physical address, the
//! last one, 8 bytes reserved (`lime_mem_range_header`, src/lime.h of LiME 1.9).

use super::{Extent, Extents, FormatError, u32_at, u64_at};

/// `LIME_MAGIC`, which reads `EMiL` in the file.
pub const MAGIC: [u8; 4] = *b"EMiL";

const HEADER: u64 = 32;

/// Where memory lies in a file of this format.
///
/// # Errors
/// When it is cut off or something else.
pub fn parse(bytes: &[u8]) -> Result<Extents, FormatError> {
    let mut list = Vec::new();
    let mut at = 0;
    while at < bytes.len() as u64 {
        let cut = |what| FormatError::Truncated { what, offset: at };
        let magic = u32_at(bytes, at).ok_or(cut("a header"))?;
        if magic.to_le_bytes() != MAGIC {
            let problem = format!("a header of LiME expected, {magic:#010x} found");
            return Err(FormatError::malformed(at, problem));
        }
        let version = u32_at(bytes, at + 4).ok_or(cut("a header"))?;
        if version != 1 {
            let problem = format!("version 1 of LiME's format expected, {version} found");
            return Err(FormatError::malformed(at + 4, problem));
        }
        let first = u64_at(bytes, at + 8).ok_or(cut("a header"))?;
        let last = u64_at(bytes, at + 16).ok_or(cut("a header"))?;
        let offset = at + HEADER;
        let (Some(length), Some(end)) = (last.checked_sub(first), last.checked_add(1)) else {
            let problem = format!("a range expected, {first:#x} to {last:#x} found");
            return Err(FormatError::malformed(at + 8, problem));
        };
        let next = length.checked_add(1).and_then(|length| offset.checked_add(length));
        at = next
            .filter(|next| *next <= bytes.len() as u64)
            .ok_or(FormatError::Truncated { what: "a range of memory", offset })?;
        list.push(Extent { start: first, end, offset });
    }
    Ok(Extents::new(list))
}
