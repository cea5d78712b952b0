// SPDX-License-Identifier: Apache-2.0
//! The head of an ELF core file, out of bytes that are not trusted.
//!
//! Layouts: include/uapi/linux/elf.h (`elf64_hdr`, `elf64_phdr`); what /proc/kcore puts there:
//! fs/proc/kcore.c (6.12).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Bytes of the ELF header.
pub(crate) const HEADER: usize = 64;
/// Bytes of a program header.
const PROGRAM_HEADER: usize = 56;
/// `ET_CORE`.
const CORE: u16 = 4;
/// `EM_X86_64`.
const X86_64: u16 = 62;
/// `PT_LOAD`.
const LOAD: u32 = 1;
/// `PN_XNUM`: the count did not fit and is elsewhere. /proc/kcore never has that many.
const TOO_MANY: u16 = 0xffff;

/// Why bytes are not the head of a core file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// It ends within something.
    #[error("it ends within its {what} at offset {offset:#x}")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Where that starts.
        offset: u64,
    },
    /// It is something else.
    #[error(
        "it is not a 64-bit little-endian ELF core of x86-64: {what} is {value:#x} at offset {offset:#x}"
    )]
    NotACore {
        /// Which field says so.
        what: &'static str,
        /// What the field has.
        value: u64,
        /// Where the field is.
        offset: u64,
    },
}

/// Where the program headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreHeader {
    /// Offset of the first of them in the file.
    pub offset: u64,
    /// How many.
    pub count: u16,
}

/// A stretch of kernel virtual memory in a core file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts.
    pub address: u64,
    /// Its length in bytes, as far as the file holds it.
    pub length: u64,
    /// Where it starts in the file.
    pub offset: u64,
}

impl CoreHeader {
    /// Reads the ELF header: the first 64 bytes of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, CoreError> {
        let truncated = CoreError::Truncated { what: "ELF header", offset: 0 };
        if bytes.len() < HEADER {
            return Err(truncated);
        }
        let field = |at: usize, width: usize| number(bytes, at, width).ok_or(truncated.clone());
        let must_be = |what, at: usize, width: usize, expected: u64| {
            let value = field(at, width)?;
            if value == expected {
                return Ok(());
            }
            Err(CoreError::NotACore { what, value, offset: at as u64 })
        };
        must_be("the magic", 0, 4, u64::from(u32::from_le_bytes(*b"\x7fELF")))?;
        must_be("the class", 4, 1, 2)?;
        must_be("the byte order", 5, 1, 1)?;
        must_be("the type", 16, 2, CORE.into())?;
        must_be("the machine", 18, 2, X86_64.into())?;
        must_be("the size of a program header", 54, 2, PROGRAM_HEADER as u64)?;
        let count = field(56, 2)? as u16;
        if count == TOO_MANY {
            let what = "the number of program headers";
            return Err(CoreError::NotACore { what, value: count.into(), offset: 56 });
        }
        Ok(Self { offset: field(32, 8)?, count })
    }

    /// Bytes that the program headers take.
    pub fn length(&self) -> usize {
        usize::from(self.count) * PROGRAM_HEADER
    }

    /// Reads the program headers, given their bytes, and gives the stretches of memory in order of
    /// address. One that overlaps the one before it, or goes over the end of the address space, is
    /// left out: which bytes it has cannot be told.
    pub fn segments(&self, bytes: &[u8]) -> Result<Vec<Segment>, CoreError> {
        let table = bytes
            .get(..self.length())
            .ok_or(CoreError::Truncated { what: "program headers", offset: self.offset })?;
        let mut segments: Vec<Segment> = table
            .chunks_exact(PROGRAM_HEADER)
            .filter(|entry| number(entry, 0, 4) == Some(LOAD.into()))
            .filter_map(|entry| {
                let segment = Segment {
                    offset: number(entry, 8, 8)?,
                    address: number(entry, 16, 8)?,
                    length: number(entry, 32, 8)?,
                };
                segment.address.checked_add(segment.length)?;
                segment.offset.checked_add(segment.length)?;
                (segment.length > 0).then_some(segment)
            })
            .collect();
        segments.sort_by_key(|segment| segment.address);
        let mut end = 0;
        segments.retain(|segment| {
            let apart = segment.address >= end;
            if apart {
                end = segment.address + segment.length;
            }
            apart
        });
        Ok(segments)
    }
}

/// The little-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(address: u64, length: u64, offset: u64) -> Segment {
        Segment { address, length, offset }
    }

    /// A core file's head as /proc/kcore writes it: a note first, then memory.
    fn core(segments: &[Segment]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&CORE.to_le_bytes());
        bytes[18..20].copy_from_slice(&X86_64.to_le_bytes());
        bytes[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&(PROGRAM_HEADER as u16).to_le_bytes());
        bytes[56..58].copy_from_slice(&(segments.len() as u16 + 1).to_le_bytes());
        let mut add = |kind: u32, segment: Segment| {
            let start = bytes.len();
            bytes.resize(start + PROGRAM_HEADER, 0);
            bytes[start..start + 4].copy_from_slice(&kind.to_le_bytes());
            bytes[start + 8..start + 16].copy_from_slice(&segment.offset.to_le_bytes());
            bytes[start + 16..start + 24].copy_from_slice(&segment.address.to_le_bytes());
            bytes[start + 32..start + 40].copy_from_slice(&segment.length.to_le_bytes());
        };
        add(4, segment(0, 100, 0x200));
        for segment in segments {
            add(LOAD, *segment);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Segment>, CoreError> {
        let header = CoreHeader::parse(bytes)?;
        header.segments(bytes.get(header.offset as usize..).unwrap_or_default())
    }

    #[test]
    fn the_stretches_of_memory_come_in_order_of_address() {
        let text = segment(0xffff_ffff_8100_0000, 0x100_0000, 0x7fff_8100_1000);
        let direct = segment(0xffff_8880_0000_0000, 0x1000, 0x1000);
        assert_eq!(parse(&core(&[text, direct])), Ok(vec![direct, text]));
    }

    #[test]
    fn what_overlaps_or_wraps_or_is_empty_is_left_out() {
        let good = segment(0x1000, 0x2000, 0);
        let bad = [segment(0x2000, 0x1000, 0), segment(u64::MAX, 2, 0), segment(0x9000, 0, 0)];
        assert_eq!(parse(&core(&[good, bad[0], bad[1], bad[2]])), Ok(vec![good]));
    }

    #[test]
    fn a_file_of_another_kind_is_named_with_its_offset() {
        let good = core(&[segment(0x1000, 0x1000, 0)]);
        for (offset, what) in [(0, "magic"), (4, "class"), (16, "type"), (18, "machine")] {
            let mut bytes = good.clone();
            bytes[offset] ^= 0x55;
            let error = parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(&format!("{offset:#x}")), "{error}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = core(&[segment(0x1000, 0x1000, 0)]);
        for length in 0..whole.len() {
            assert!(
                matches!(parse(&whole[..length]), Err(CoreError::Truncated { .. })),
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(changes in proptest::collection::vec((0_usize..300, any::<u8>()), 0..20)) {
            let mut bytes = core(&[segment(0x1000, 0x1000, 0), segment(0x3000, 0x1000, 0x1000)]);
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let _ = parse(&bytes);
        }
    }
}
