// SPDX-License-Identifier: Apache-2.0
//! makedumpfile's flattened format: a dump written in the order in which its parts came, for where the
//! writer cannot seek. QEMU writes its dumps in kdump's format so.
//!
//! A header of 4096 bytes, then records: where the bytes belong, how many there are (both 8 bytes,
//! big-endian), the bytes. The last record has -1 for both. What is written twice holds what came last
//! (`MakedumpfileHeader`, `MakedumpfileDataHeader` of include/sysemu/dump.h, QEMU 7.2).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{FileBytes, FormatError, array};

/// How the header begins.
pub const MAGIC: [u8; 12] = *b"makedumpfile";

const HEADER: u64 = 4096;
const RECORD: u64 = 16;
/// `TYPE_FLAT_HEADER` and `VERSION_FLAT_HEADER`.
const KIND: u64 = 1;

/// More records than this are refused: QEMU writes one for some hundred kilobytes.
const MOST: usize = 4 << 20;

/// What no record wrote.
const NOTHING: [u8; 4096] = [0; 4096];

/// The dump, in its order.
#[derive(Clone, Debug)]
pub struct Flattened<B> {
    file: B,
    /// By where they begin in the dump: where they end there, and where they are in the file.
    records: BTreeMap<u64, (u64, u64)>,
}

impl<B: AsRef<[u8]>> Flattened<B> {
    /// Reads where everything is.
    ///
    /// # Errors
    /// When the file is cut off or something else.
    pub fn open(file: B) -> Result<Self, FormatError> {
        let bytes = file.as_ref();
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::malformed(0, "the header of a flattened dump expected"));
        }
        let number = |at: u64, what| {
            let number = array(bytes, at).map(u64::from_be_bytes);
            number.ok_or(FormatError::Truncated { what, offset: at })
        };
        let kind = number(16, "the header")?;
        if kind != KIND {
            let problem = format!("type 1 of a flattened dump expected, {kind} found");
            return Err(FormatError::malformed(16, problem));
        }
        let mut records = BTreeMap::new();
        let mut at = HEADER;
        loop {
            let start = number(at, "a record")?;
            let length = number(at + 8, "a record")?;
            let from = at + RECORD;
            if start == u64::MAX && length == u64::MAX {
                return Ok(Self { file, records });
            }
            let (Some(end), true) = (start.checked_add(length), length > 0) else {
                let problem = format!("a record of {length} bytes for {start:#x} makes no sense");
                return Err(FormatError::malformed(at, problem));
            };
            let cut = FormatError::Truncated { what: "the bytes of a record", offset: from };
            let next = from.checked_add(length).filter(|next| *next <= bytes.len() as u64);
            at = next.ok_or(cut)?;
            if records.len() >= MOST {
                let problem = format!("more than {MOST} records are refused");
                return Err(FormatError::malformed(from, problem));
            }
            put(&mut records, start, end, from);
        }
    }
}

/// Adds a record and cuts away what it overwrites.
fn put(records: &mut BTreeMap<u64, (u64, u64)>, start: u64, end: u64, from: u64) {
    // One that begins before may reach into this one, and beyond it.
    let before = records.range(..start).next_back().map(|(at, record)| (*at, *record));
    if let Some((at, (old_end, old_from))) = before.filter(|(_, (old_end, _))| *old_end > start) {
        records.insert(at, (start, old_from));
        if old_end > end {
            records.insert(end, (old_end, old_from.saturating_add(end - at)));
        }
    }
    while let Some((at, (old_end, old_from))) =
        records.range(start..end).next().map(|(at, record)| (*at, *record))
    {
        records.remove(&at);
        if old_end > end {
            records.insert(end, (old_end, old_from.saturating_add(end - at)));
        }
    }
    records.insert(start, (end, from));
}

impl<B: AsRef<[u8]>> FileBytes for Flattened<B> {
    fn length(&self) -> u64 {
        self.records.values().next_back().map_or(0, |(end, _)| *end)
    }

    fn pieces(
        &self,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let bytes = self.file.as_ref();
        let end = offset.saturating_add(length).min(self.length());
        let mut at = offset;
        while at < end {
            let record = self.records.range(..=at).next_back();
            let piece = match record {
                Some((start, (record_end, from))) if at < *record_end => {
                    let from = from.saturating_add(at - start);
                    let length = end.min(*record_end) - at;
                    bytes.get(from as usize..from.saturating_add(length) as usize)
                }
                _ => {
                    let next = self.records.range(at..).next().map_or(end, |(next, _)| *next);
                    NOTHING.get(..(next.min(end) - at).min(NOTHING.len() as u64) as usize)
                }
            };
            let Some(piece) = piece.filter(|piece| !piece.is_empty()) else { break };
            take(piece)?;
            at += piece.len() as u64;
        }
        ControlFlow::Continue(())
    }
}
