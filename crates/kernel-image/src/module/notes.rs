// SPDX-License-Identifier: Apache-2.0
//! ELF notes: where the build id is.

use crate::little_endian::{slice, u32_at};

/// The GNU build id among these notes, which may be those of a file or of a running kernel.
///
/// Elf64_Nhdr: sizes of name and content, type; each part padded to four bytes.
pub fn build_id(notes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    while let (Some(name), Some(size)) = (u32_at(notes, at), u32_at(notes, at + 4)) {
        let content = at + 12 + u64::from(name).next_multiple_of(4);
        if u32_at(notes, at + 8) == Some(3)
            && slice(notes, at + 12, u64::from(name)) == Some(b"GNU\0")
        {
            return slice(notes, content, u64::from(size));
        }
        at = content + u64::from(size).next_multiple_of(4);
    }
    None
}
