// SPDX-License-Identifier: Apache-2.0
//! Physical memory that lies in a file in stretches, as it is.

use std::ops::{ControlFlow, Range};

use super::{FileBytes, PhysicalMemory};
use crate::{Piece, ReadError};

/// Memory at these addresses lies in the file from this offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first physical address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// Where its bytes begin in the file.
    pub offset: u64,
}

/// Stretches in order of address. None overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    list: Vec<Extent>,
}

impl Extents {
    /// Puts stretches in order. Where some overlap, the one that begins first has the bytes: dumps
    /// that name memory twice (/proc/vmcore does, for the kernel's text) hold the same twice.
    pub fn new(mut list: Vec<Extent>) -> Self {
        list.sort_by_key(|extent| extent.start);
        let mut free = 0;
        list.retain_mut(|extent| {
            let covered = free.max(extent.start);
            extent.offset = extent.offset.saturating_add(covered - extent.start);
            extent.start = covered;
            free = free.max(extent.end);
            extent.start < extent.end
        });
        Self { list }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.list.iter()
    }

    /// The stretch that has the address, or the next one above it.
    fn at_or_after(&self, address: u64) -> Option<&Extent> {
        self.list.get(self.list.partition_point(|extent| extent.end <= address))
    }
}

/// A file with stretches of physical memory in it.
#[derive(Clone, Debug)]
pub struct Stretches<F> {
    name: &'static str,
    file: F,
    extents: Extents,
}

impl<F: FileBytes> Stretches<F> {
    /// The memory in `file`, which reports call `name`.
    pub fn new(name: &'static str, file: F, extents: Extents) -> Self {
        Self { name, file, extents }
    }
}

impl<F: FileBytes> PhysicalMemory for Stretches<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.extents.iter().map(|extent| extent.start..extent.end).collect()
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (mut at, end) = (start, start.saturating_add(length));
        while at < end {
            let extent = self.extents.at_or_after(at);
            let Some(extent) = extent.filter(|extent| extent.start < end) else {
                let _ = visitor(Piece::Unreadable { address: at, length: end - at });
                return Ok(());
            };
            if at < extent.start {
                let piece = Piece::Unreadable { address: at, length: extent.start - at };
                if visitor(piece).is_break() {
                    return Ok(());
                }
                at = extent.start;
            }
            let part = end.min(extent.end) - at;
            let from = extent.offset.saturating_add(at - extent.start);
            let stop = at + part;
            let flow = self.file.pieces(from, part, &mut |bytes| {
                let flow = visitor(Piece::Bytes { address: at, bytes });
                at += bytes.len() as u64;
                flow
            });
            if flow.is_break() {
                return Ok(());
            }
            // The file became shorter than it was.
            if at < stop {
                let piece = Piece::Unreadable { address: at, length: stop - at };
                if visitor(piece).is_break() {
                    return Ok(());
                }
                at = stop;
            }
        }
        Ok(())
    }
}
