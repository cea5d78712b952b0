// SPDX-License-Identifier: Apache-2.0
//! The running kernel's memory through /proc/kcore: one more path, to be compared with the others.
//!
//! Where kcore cannot read a page it gives zeroes and does not say so (fs/proc/kcore.c, 6.12:
//! `clear_user` where `copy_from_kernel_nofault` fails). So a page of zeroes from here may be a
//! hole; what is not in any of its segments is known to be none.

mod header;

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use kernel_memory::{KernelMemory, Piece, ReadError};

pub use header::{CoreError, CoreHeader, Segment};

use crate::error::ProbeError;
use crate::privilege;

const PATH: &str = "/proc/kcore";
const WHAT: &str = "reading kernel memory through /proc/kcore";
/// Bytes in one read.
const STEP: usize = 64 * 1024;

/// /proc/kcore, opened.
#[derive(Debug)]
pub struct Kcore {
    file: File,
    segments: Vec<Segment>,
}

impl Kcore {
    /// Opens it and reads which memory it has.
    pub fn open() -> Result<Self, ProbeError> {
        let file = File::open(PATH).map_err(|error| refused(&error))?;
        let malformed = |error: CoreError| ProbeError::Malformed {
            what: PATH.into(),
            reason: error.to_string(),
        };
        let mut head = [0; header::HEADER];
        file.read_exact_at(&mut head, 0).map_err(|error| refused(&error))?;
        let header = CoreHeader::parse(&head).map_err(malformed)?;
        let mut table = vec![0; header.length()];
        file.read_exact_at(&mut table, header.offset).map_err(|error| refused(&error))?;
        let segments = header.segments(&table).map_err(malformed)?;
        Ok(Self { file, segments })
    }

    /// The segment that holds `address`, or the first one above it.
    fn segment_from(&self, address: u64) -> Option<&Segment> {
        let index =
            self.segments.partition_point(|segment| segment.address + segment.length <= address);
        self.segments.get(index)
    }
}

impl KernelMemory for Kcore {
    fn name(&self) -> &'static str {
        "kcore"
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut buffer = vec![0; STEP.min(length as usize)];
        let (mut at, mut left) = (start, length);
        while left > 0 {
            let segment = self.segment_from(at);
            let gap = segment.map_or(left, |segment| segment.address.saturating_sub(at)).min(left);
            let (piece, taken) = match segment {
                Some(segment) if gap == 0 => {
                    let inside = at - segment.address;
                    let take = (segment.length - inside).min(left).min(buffer.len() as u64);
                    let bytes = buffer.get_mut(..take as usize).unwrap_or_default();
                    let read = self.file.read_exact_at(bytes, segment.offset + inside);
                    read.map_err(|error| ReadError::Source {
                        through: self.name(),
                        reason: format!("{PATH} at {at:#x}: {error}"),
                    })?;
                    (Piece::Bytes { address: at, bytes }, take)
                }
                _ => (Piece::Unreadable { address: at, length: gap }, gap),
            };
            if visitor(piece).is_break() {
                break;
            }
            // A range that wraps ends with the address space, where no segment is.
            at = at.saturating_add(taken);
            left -= taken;
        }
        Ok(())
    }
}

fn refused(error: &io::Error) -> ProbeError {
    match error.raw_os_error() {
        Some(libc::ENOENT) => ProbeError::Unsupported {
            what: WHAT,
            lacking: "it is built without CONFIG_PROC_KCORE".into(),
        },
        Some(libc::EPERM | libc::EACCES) => {
            ProbeError::refused(WHAT, &privilege::RAW_IO, error, "")
        }
        _ => ProbeError::file(PATH, error),
    }
}
