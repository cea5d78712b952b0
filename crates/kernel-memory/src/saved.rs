// SPDX-License-Identifier: Apache-2.0
//! Kernel memory in a file.
//!
//! Parts of a running kernel, saved to be looked at later or elsewhere, and to be changed in tests.
//! The format, all numbers little-endian:
//!
//! | offset | bytes | content |
//! | --- | --- | --- |
//! | 0 | 8 | `RINGFMEM` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | length of the build id in bytes, 0 to 32; 0 if unknown |
//! | 16 | 32 | build id of the kernel (the GNU note in /sys/kernel/notes), then zeroes |
//! | 48 | 16 | boot id (/proc/sys/kernel/random/boot_id, as 16 bytes); zeroes if unknown |
//! | 64 | | records |
//!
//! A record is an address (8 bytes), a length (8 bytes) and as many bytes of memory. Records ascend
//! by address and do not overlap. The last one has length 0, and in place of an address the number
//! of records before it, so that a file that was cut off is seen as such. Nothing follows it.
//! What could not be read is in no record.

use std::io::{self, Write};
use std::ops::{ControlFlow, Range};

use crate::{KernelMemory, Piece, ReadError};

const MAGIC: &[u8; 8] = b"RINGFMEM";
const VERSION: u32 = 1;
const HEADER_SIZE: usize = 64;
const RECORD_SIZE: usize = 16;
/// `BUILD_ID_SIZE_MAX` of the kernel is 20; 32 leaves room for SHA-256.
const BUILD_ID_MAX: usize = 32;
/// Bytes that are collected for one record.
const RECORD_LIMIT: usize = 4 << 20;

/// Which kernel the memory is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedIdentity {
    /// The build id of the kernel; empty if unknown.
    pub build_id: Vec<u8>,
    /// The boot id; zeroes if unknown.
    pub boot_id: [u8; 16],
}

/// Why bytes are not saved memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Not this format.
    #[error("not saved kernel memory: it does not begin with RINGFMEM")]
    Magic,
    /// A later format.
    #[error("saved kernel memory of version {found} is not supported, only version 1 is")]
    Version {
        /// What the file says.
        found: u32,
    },
    /// The build id's length is above 32.
    #[error("saved kernel memory has a build id of {length} bytes at offset 12, the most is 32")]
    BuildId {
        /// What the file says.
        length: u32,
    },
    /// The file ends early.
    #[error("saved kernel memory is cut off: it ends within {what} at offset {offset:#x}")]
    Truncated {
        /// Where what is missing begins.
        offset: usize,
        /// What is missing.
        what: &'static str,
    },
    /// Records overlap, do not ascend, or reach beyond the address space.
    #[error("saved kernel memory has a record for {address:#x} at offset {offset:#x} out of order")]
    Order {
        /// Where the record begins.
        offset: usize,
        /// The address in it.
        address: u64,
    },
    /// The last record counts other records than there are.
    #[error("saved kernel memory has {found} records and says at offset {offset:#x} it has {said}")]
    Count {
        /// Where the last record begins.
        offset: usize,
        /// How many records there are.
        found: u64,
        /// How many it says there are.
        said: u64,
    },
    /// Bytes behind the last record.
    #[error("saved kernel memory has bytes behind its last record, at offset {offset:#x}")]
    Trailing {
        /// Where they begin.
        offset: usize,
    },
}

/// Why memory could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The source of memory failed.
    #[error("cannot save kernel memory: {0}")]
    Read(ReadError),
    /// The file could not be written.
    #[error("cannot save kernel memory: writing failed")]
    Write(#[source] io::Error),
    /// A build id of more than 32 bytes.
    #[error("cannot save kernel memory: a build id of {0} bytes, the most is 32")]
    BuildId(usize),
}

/// What was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Bytes of memory in the file.
    pub bytes: u64,
    /// Bytes of the ranges that could not be read.
    pub unreadable: u64,
}

/// Saves ranges of memory, given as `(start, length)` in any order; what is in several is saved
/// once. Stretches that cannot be read are left out.
pub fn save(
    memory: &dyn KernelMemory,
    identity: &SavedIdentity,
    ranges: &[(u64, u64)],
    out: &mut dyn Write,
) -> Result<Saved, SaveError> {
    let mut header = Vec::with_capacity(HEADER_SIZE);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    if identity.build_id.len() > BUILD_ID_MAX {
        return Err(SaveError::BuildId(identity.build_id.len()));
    }
    header.extend_from_slice(&(identity.build_id.len() as u32).to_le_bytes());
    header.extend_from_slice(&identity.build_id);
    header.resize(HEADER_SIZE - 16, 0);
    header.extend_from_slice(&identity.boot_id);
    out.write_all(&header).map_err(SaveError::Write)?;

    let mut writer =
        Writer { out, start: 0, bytes: Vec::new(), records: 0, saved: Saved::default() };
    for (start, end) in without_overlaps(ranges) {
        let mut failed = None;
        let visited = memory.visit(start, end - start, &mut |piece| match writer.piece(piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        if let Some(error) = failed {
            return Err(SaveError::Write(error));
        }
        visited.map_err(SaveError::Read)?;
    }
    writer.finish().map_err(SaveError::Write)
}

/// Sorts ranges into `(start, end)` that do not overlap; those beyond the address space are cut.
fn without_overlaps(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let end = |(start, length): &(u64, u64)| (*start, start.saturating_add(*length));
    let mut ranges: Vec<(u64, u64)> = ranges.iter().map(end).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Joins pieces into records.
struct Writer<'a> {
    out: &'a mut dyn Write,
    start: u64,
    bytes: Vec<u8>,
    records: u64,
    saved: Saved,
}

impl Writer<'_> {
    fn piece(&mut self, piece: Piece<'_>) -> io::Result<()> {
        let (address, bytes) = match piece {
            Piece::Bytes { address, bytes } => (address, bytes),
            Piece::Unreadable { length, .. } => {
                self.saved.unreadable += length;
                return Ok(());
            }
        };
        let follows = address == self.start.wrapping_add(self.bytes.len() as u64);
        if !follows || self.bytes.len() + bytes.len() > RECORD_LIMIT {
            self.flush()?;
            self.start = address;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let length = self.bytes.len() as u64;
        self.out.write_all(&self.start.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&self.bytes)?;
        self.records += 1;
        self.saved.bytes += length;
        self.bytes.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Saved> {
        self.flush()?;
        self.out.write_all(&self.records.to_le_bytes())?;
        self.out.write_all(&0_u64.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.saved)
    }
}

/// Saved memory, over the bytes of a file: read into memory, or mapped.
#[derive(Clone)]
pub struct SavedImage<B> {
    bytes: B,
    identity: SavedIdentity,
    /// The address of each record and where its bytes are, ascending.
    records: Vec<(u64, Range<usize>)>,
}

impl<B> std::fmt::Debug for SavedImage<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedImage")
            .field("identity", &self.identity)
            .field("records", &self.records.len())
            .finish()
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn half(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

impl<B: AsRef<[u8]>> SavedImage<B> {
    /// Checks the whole file's structure; the bytes of memory are not looked at.
    pub fn open(file: B) -> Result<Self, SavedError> {
        let bytes = file.as_ref();
        if !bytes.starts_with(MAGIC) {
            return Err(SavedError::Magic);
        }
        let header = || SavedError::Truncated { offset: 0, what: "the header" };
        let found = half(bytes, 8).ok_or_else(header)?;
        if found != VERSION {
            return Err(SavedError::Version { found });
        }
        let length = half(bytes, 12).ok_or_else(header)?;
        if length as usize > BUILD_ID_MAX {
            return Err(SavedError::BuildId { length });
        }
        let build_id = bytes.get(16..16 + length as usize).ok_or_else(header)?.to_vec();
        let boot_id = *bytes.get(48..).and_then(|rest| rest.first_chunk()).ok_or_else(header)?;
        let records = find_records(bytes)?;
        Ok(Self { bytes: file, identity: SavedIdentity { build_id, boot_id }, records })
    }

    /// Which kernel the memory is of.
    pub fn identity(&self) -> &SavedIdentity {
        &self.identity
    }

    /// What the file holds, as `(start, length)` in order of address.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.records.iter().map(|(start, bytes)| (*start, bytes.len() as u64))
    }
}

fn find_records(bytes: &[u8]) -> Result<Vec<(u64, Range<usize>)>, SavedError> {
    let mut records = Vec::new();
    let mut offset = HEADER_SIZE;
    let mut free = Some(0);
    loop {
        let truncated = |what| SavedError::Truncated { offset, what };
        let address = word(bytes, offset).ok_or(truncated("a record"))?;
        let length = word(bytes, offset + 8).ok_or(truncated("a record"))?;
        let start = offset + RECORD_SIZE;
        if length == 0 {
            let found = records.len() as u64;
            if address != found {
                return Err(SavedError::Count { offset, found, said: address });
            }
            if start != bytes.len() {
                return Err(SavedError::Trailing { offset: start });
            }
            return Ok(records);
        }
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
        let end = end.filter(|end| *end <= bytes.len()).ok_or(truncated("a record's bytes"))?;
        // The last byte of the address space may be in a record; then none may follow.
        let last = address.checked_add(length - 1);
        match (free, last) {
            (Some(free), Some(_)) if address >= free => {
                records.push((address, start..end));
                offset = end;
            }
            _ => return Err(SavedError::Order { offset, address }),
        }
        free = last.and_then(|last| last.checked_add(1));
    }
}

impl<B: AsRef<[u8]>> KernelMemory for SavedImage<B> {
    fn name(&self) -> &'static str {
        "saved memory"
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut at = start;
        let mut left = length;
        let mut next = self
            .records
            .partition_point(|(first, bytes)| first.saturating_add(bytes.len() as u64 - 1) < start);
        while left > 0 {
            let record = self.records.get(next);
            let bytes = record.and_then(|(first, range)| {
                let skipped = at.checked_sub(*first)? as usize;
                self.bytes.as_ref().get(range.clone())?.get(skipped..)
            });
            let (piece, length) = match (record, bytes) {
                (_, Some(bytes)) => {
                    let length = (bytes.len() as u64).min(left);
                    let bytes = bytes.get(..length as usize).unwrap_or_default();
                    next += 1;
                    (Piece::Bytes { address: at, bytes }, length)
                }
                (Some((first, _)), None) => {
                    let length = first.saturating_sub(at).clamp(1, left);
                    (Piece::Unreadable { address: at, length }, length)
                }
                (None, None) => (Piece::Unreadable { address: at, length: left }, left),
            };
            if visitor(piece).is_break() {
                break;
            }
            at = at.wrapping_add(length);
            left -= length;
        }
        Ok(())
    }
}
