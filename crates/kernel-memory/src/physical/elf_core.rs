// SPDX-License-Identifier: Apache-2.0
//! An ELF core of a whole machine: what QEMU's `dump-guest-memory` writes, and /proc/vmcore.
//!
//! Each `PT_LOAD` says at which physical address its bytes were (`elf64_phdr`,
//! include/uapi/linux/elf.h). Virtual addresses in it are not used: the page tables tell them.

use super::notes::{Note, notes};
use super::{Extent, Extents, FormatError, u16_at, u32_at, u64_at};

/// How an ELF begins.
pub const MAGIC: [u8; 4] = *b"\x7fELF";

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
/// `ET_CORE`, `EM_X86_64`, `PT_LOAD`, `PT_NOTE`.
const CORE: u16 = 4;
const X86_64: u16 = 62;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// `PN_XNUM`: the number of program headers is in the first section header.
const MANY: u16 = 0xffff;

/// What the headers of a core say.
#[derive(Clone, Debug)]
pub struct ElfCore<'a> {
    /// Where memory lies in the file.
    pub extents: Extents,
    /// All notes, in order.
    pub notes: Vec<Note<'a>>,
}

/// Reads the headers and notes of a core.
///
/// # Errors
/// When it is cut off or something else.
pub fn parse(bytes: &[u8]) -> Result<ElfCore<'_>, FormatError> {
    let header = FormatError::Truncated { what: "the ELF header", offset: 0 };
    if bytes.len() < HEADER as usize {
        return Err(header);
    }
    let half = |at| u16_at(bytes, at).ok_or(header.clone());
    let must_be = |what: &str, at: u64, seen: u16, expected: u16| {
        if seen == expected {
            return Ok(());
        }
        let problem = format!("{what} {expected} of an x86-64 core expected, {seen} found");
        Err(FormatError::malformed(at, problem))
    };
    if !bytes.starts_with(&MAGIC) {
        return Err(FormatError::malformed(0, "the magic of an ELF expected"));
    }
    // Class and byte order are a byte each: 64 bits, little-endian.
    must_be("class and byte order", 4, half(4)?, 0x0102)?;
    must_be("type", 16, half(16)?, CORE)?;
    must_be("machine", 18, half(18)?, X86_64)?;
    must_be("size of a program header", 54, half(54)?, PROGRAM_HEADER as u16)?;
    let table = u64_at(bytes, 32).ok_or(header.clone())?;
    let count = match half(56)? {
        MANY => {
            let sections = u64_at(bytes, 40).ok_or(header)?;
            let info = sections.checked_add(44).and_then(|at| u32_at(bytes, at));
            let cut = FormatError::Truncated { what: "the section header", offset: sections };
            u64::from(info.ok_or(cut)?)
        }
        few => u64::from(few),
    };
    let size = bytes.len() as u64;
    let end = table.checked_add(count * PROGRAM_HEADER);
    if end.is_none_or(|end| end > size) {
        return Err(FormatError::Truncated { what: "the program headers", offset: table });
    }
    let (mut list, mut found) = (Vec::new(), Vec::new());
    for index in 0..count {
        let at = table + index * PROGRAM_HEADER;
        let cut = FormatError::Truncated { what: "a program header", offset: at };
        let word = |offset| u64_at(bytes, at + offset).ok_or(cut.clone());
        let (offset, physical, length) = (word(8)?, word(24)?, word(32)?);
        let within = offset.checked_add(length).filter(|end| *end <= size);
        match u32_at(bytes, at).ok_or(cut.clone())? {
            LOAD if length > 0 => {
                if within.is_none() {
                    let what = "the bytes of a segment";
                    return Err(FormatError::Truncated { what, offset });
                }
                let Some(end) = physical.checked_add(length) else {
                    let problem = format!(
                        "a physical address expected, {physical:#x} found: the core of a running \
                         kernel (/proc/kcore) has none"
                    );
                    return Err(FormatError::malformed(at + 24, problem));
                };
                list.push(Extent { start: physical, end, offset });
            }
            NOTE => {
                let Some(end) = within else {
                    return Err(FormatError::Truncated { what: "the notes", offset });
                };
                found.extend(notes(bytes.get(offset as usize..end as usize).unwrap_or_default()));
            }
            _ => {}
        }
    }
    if list.is_empty() {
        return Err(FormatError::malformed(table, "segments with memory expected, none found"));
    }
    Ok(ElfCore { extents: Extents::new(list), notes: found })
}
