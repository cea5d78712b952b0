// SPDX-License-Identifier: Apache-2.0
//! BTF, the kernel's description of its own types.
//!
//! Where every structure of the running kernel has its fields comes from here and from nowhere
//! else: no debug package, no table per kernel version. The format is that of
//! Documentation/bpf/btf.rst and include/uapi/linux/btf.h (Linux 6.18): a header, type records of
//! varying length one after the other, and a section of NUL-terminated strings.
//!
//! A kernel has about 126,000 types in 5.5 MB, of which a check needs some dozens. So the bytes are
//! kept as they are, with 4 bytes per type for where its record begins and an index of names; each
//! question decodes what it needs. [`Btf::parse`] checks every record, name and reference once, so
//! that an error names the offset in the input, and answers later are plain `Option`s.
//!
//! Hostile input is expected: types may refer to each other in circles or nest without end. Every
//! walk along references is bounded by [`MAX_DEPTH`]. Memory is at most proportional to the input.
//!
//! Not covered: big-endian BTF, and split BTF (`/sys/kernel/btf/<module>`), whose references reach
//! into the kernel's.

mod access;
mod builder;
mod index;
mod memo;
mod reduce;
#[cfg(test)]
mod tests;
mod types;

pub use access::{Enumerators, Members, Parameters, Variables};
pub use builder::Builder;
pub use types::{Array, Enumerator, Int, Kind, Member, Parameter, Place, TypeId, Variable};

use crate::name_index::NameIndex;
use types::Word;

/// How many references are followed from one type before it is taken for a circle. The kernel
/// itself allows 32 (`MAX_RESOLVE_DEPTH`, kernel/bpf/btf.c, Linux 6.18).
pub const MAX_DEPTH: u32 = 32;

/// `BTF_MAGIC`, include/uapi/linux/btf.h.
const MAGIC: u16 = 0xeb9f;
/// Bytes of the header that every version has: up to and including `str_len`.
const HEADER_SIZE: usize = 24;
/// Bytes at the start of each type record: `name_off`, `info`, `size` or `type`.
const RECORD_SIZE: usize = 12;

/// Why bytes are not BTF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The input ends within something.
    #[error("BTF ends within {what} at offset {offset:#x}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// The first two bytes are not the magic number.
    #[error("not BTF: the magic number at offset 0 is {found:#06x} and must be 0xeb9f")]
    Magic {
        /// What stands there, read as little-endian.
        found: u16,
    },
    /// A version that is not known.
    #[error("BTF version {found} at offset 2 is not supported, only version 1 is")]
    Version {
        /// What stands there.
        found: u8,
    },
    /// The header's own length is too small or reaches beyond the input.
    #[error("BTF header length {length} at offset 4 is not between 24 and the length of the input")]
    HeaderLength {
        /// What stands there.
        length: u32,
    },
    /// The string section does not begin or end with a NUL byte.
    #[error("BTF strings at offset {offset:#x} do not begin and end with a zero byte")]
    Strings {
        /// Where the section begins.
        offset: usize,
    },
    /// A kind of type that is not known.
    #[error("BTF type {id} at offset {offset:#x} has unknown kind {kind}")]
    UnknownKind {
        /// The type.
        id: u32,
        /// Where its record begins.
        offset: usize,
        /// Its kind.
        kind: u32,
    },
    /// A name outside the string section.
    #[error("BTF type {id} at offset {offset:#x} has its name at {name:#x}, outside the strings")]
    Name {
        /// The type.
        id: u32,
        /// Where the record begins, or where the name behind it stands.
        offset: usize,
        /// The offset of the name within the strings.
        name: u32,
    },
    /// A reference to a type that does not exist.
    #[error("BTF type {id} at offset {offset:#x} refers to type {target}, which does not exist")]
    Reference {
        /// The type.
        id: u32,
        /// Where the record begins, or where the reference behind it stands.
        offset: usize,
        /// The missing type.
        target: u32,
    },
    /// More bytes than 32-bit offsets can name.
    #[error("BTF of {length} bytes is longer than 4 GiB")]
    TooLong {
        /// The length of the input.
        length: usize,
    },
}

/// The types of one kernel. See the module's description.
#[derive(Clone)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Where the strings begin and end in `bytes`.
    strings: std::ops::Range<usize>,
    /// Where the record of each type begins, type 1 first. Ascending.
    records: Vec<u32>,
    /// Types with a name that one looks up.
    by_name: NameIndex,
    /// Where each enumerator's entry begins.
    enumerators: NameIndex,
    memo: memo::Memo,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf")
            .field("bytes", &self.bytes.len())
            .field("types", &self.records.len())
            .finish()
    }
}

/// The first 12 bytes of a type record, decoded.
#[derive(Clone, Copy)]
struct Record {
    /// Where the record begins.
    offset: usize,
    name: u32,
    kind: Kind,
    /// Members, enumerators, parameters or variables.
    count: u32,
    /// Bit 31 of `info`: bit-fields in a structure, signed values in an enumeration, a union in a
    /// forward declaration.
    flag: bool,
    /// `size` or `type`, as the kind has it.
    value: u32,
}

impl Record {
    /// Where the entries behind the record begin.
    fn entries(&self) -> usize {
        self.offset + RECORD_SIZE
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Splits `info` into kind, count and flag. Kernels up to 6.18 use bits 0 to 15 for the count and
/// 24 to 28 for the kind, and demand zeroes in between; since April 2026 these bits belong to the
/// two (`BTF_INFO_VLEN` and `BTF_INFO_KIND`, include/uapi/linux/btf.h). The wider masks read both.
fn split_info(info: u32) -> (u32, u32, bool) {
    ((info >> 24) & 0x7f, info & 0x00ff_ffff, info >> 31 != 0)
}

impl Btf {
    /// Checks `bytes` as a whole and keeps a copy. The section `.BTF` of a vmlinux and the file
    /// /sys/kernel/btf/vmlinux have the same content.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        Self::from_vec(bytes.to_vec())
    }

    /// As [`Btf::parse`], without the copy.
    pub fn from_vec(bytes: Vec<u8>) -> Result<Self, BtfError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(BtfError::TooLong { length: bytes.len() });
        }
        let header =
            |offset, what| u32_at(&bytes, offset).ok_or(BtfError::Truncated { what, offset });
        let magic =
            u16_at(&bytes, 0).ok_or(BtfError::Truncated { what: "the magic", offset: 0 })?;
        if magic != MAGIC {
            return Err(BtfError::Magic { found: magic });
        }
        let version =
            *bytes.get(2).ok_or(BtfError::Truncated { what: "the version", offset: 2 })?;
        if version != 1 {
            return Err(BtfError::Version { found: version });
        }
        let length = header(4, "the header length")?;
        let header_end = length as usize;
        let types = (header(8, "the type offset")?, header(12, "the type length")?);
        let strings = (header(16, "the string offset")?, header(20, "the string length")?);
        if header_end < HEADER_SIZE || header_end > bytes.len() {
            return Err(BtfError::HeaderLength { length });
        }
        let section = |(offset, length): (u32, u32), what| {
            let start = header_end.saturating_add(offset as usize);
            let end = start.saturating_add(length as usize);
            if end > bytes.len() {
                return Err(BtfError::Truncated { what, offset: start });
            }
            Ok(start..end)
        };
        let types = section(types, "the type section")?;
        let strings = section(strings, "the string section")?;
        let text = bytes.get(strings.clone()).unwrap_or_default();
        if text.first() != Some(&0) || text.last() != Some(&0) {
            return Err(BtfError::Strings { offset: strings.start });
        }
        let records = find_records(&bytes, types)?;
        let mut btf = Self {
            bytes,
            strings,
            records,
            by_name: NameIndex::default(),
            enumerators: NameIndex::default(),
            memo: memo::Memo::default(),
        };
        btf.check()?;
        btf.build_index();
        Ok(btf)
    }

    /// Checks that every name and every reference leads somewhere.
    fn check(&self) -> Result<(), BtfError> {
        for (position, &offset) in self.records.iter().enumerate() {
            let id = position as u32 + 1;
            let offset = offset as usize;
            let Some(record) = self.record_at(offset) else { continue };
            self.check_name(id, offset, record.name)?;
            if record.kind.refers() {
                self.check_reference(id, offset, record.value)?;
            }
            for word in (0..record.kind.trailer(record.count)).step_by(4) {
                let at = record.entries() + word;
                let value = u32_at(&self.bytes, at).unwrap_or(0);
                match record.kind.word(word) {
                    Word::Name => self.check_name(id, at, value)?,
                    Word::Type => self.check_reference(id, at, value)?,
                    Word::Other => {}
                }
            }
        }
        Ok(())
    }

    fn check_name(&self, id: u32, offset: usize, name: u32) -> Result<(), BtfError> {
        if (name as usize) < self.strings.len() {
            return Ok(());
        }
        Err(BtfError::Name { id, offset, name })
    }

    fn check_reference(&self, id: u32, offset: usize, target: u32) -> Result<(), BtfError> {
        if (target as usize) <= self.records.len() {
            return Ok(());
        }
        Err(BtfError::Reference { id, offset, target })
    }

    fn record_at(&self, offset: usize) -> Option<Record> {
        let record = self.bytes.get(offset..)?.first_chunk::<RECORD_SIZE>()?;
        let [n0, n1, n2, n3, i0, i1, i2, i3, v0, v1, v2, v3] = *record;
        let (kind, count, flag) = split_info(u32::from_le_bytes([i0, i1, i2, i3]));
        Some(Record {
            offset,
            name: u32::from_le_bytes([n0, n1, n2, n3]),
            kind: Kind::from_number(kind)?,
            count,
            flag,
            value: u32::from_le_bytes([v0, v1, v2, v3]),
        })
    }

    fn record(&self, id: TypeId) -> Option<Record> {
        self.record_at(*self.records.get((id.0 as usize).checked_sub(1)?)? as usize)
    }

    /// The bytes of the name at this offset of the strings, without the NUL.
    fn name_bytes(&self, name: u32) -> &[u8] {
        let text = self.bytes.get(self.strings.clone()).unwrap_or_default();
        let text = text.get(name as usize..).unwrap_or_default();
        text.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Whether the name at this offset of the strings is `wanted`, without a search for its end.
    fn name_is(&self, name: u32, wanted: &[u8]) -> bool {
        let text = self.bytes.get(self.strings.clone()).unwrap_or_default();
        let rest = text.get(name as usize..).and_then(|text| text.strip_prefix(wanted));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The name at this offset of the strings; empty where it is not UTF-8, which no identifier
    /// of C is.
    fn name_at(&self, name: u32) -> &str {
        std::str::from_utf8(self.name_bytes(name)).unwrap_or_default()
    }
}

/// Walks over the type section and notes where each record begins.
fn find_records(bytes: &[u8], section: std::ops::Range<usize>) -> Result<Vec<u32>, BtfError> {
    // 12 bytes is the smallest record; the kernel's average is about 30.
    let mut records = Vec::with_capacity(section.len() / 30);
    let mut offset = section.start;
    while offset < section.end {
        let id = records.len() as u32 + 1;
        let truncated = BtfError::Truncated { what: "a type record", offset };
        if section.end - offset < RECORD_SIZE {
            return Err(truncated);
        }
        let (number, count, _) = split_info(u32_at(bytes, offset + 4).unwrap_or(0));
        let kind = match Kind::from_number(number) {
            None | Some(Kind::Void) => {
                return Err(BtfError::UnknownKind { id, offset, kind: number });
            }
            Some(kind) => kind,
        };
        records.push(offset as u32);
        let end = offset.saturating_add(RECORD_SIZE).saturating_add(kind.trailer(count));
        if end > section.end {
            return Err(truncated);
        }
        offset = end;
    }
    records.shrink_to_fit();
    Ok(records)
}
