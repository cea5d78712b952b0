// SPDX-License-Identifier: Apache-2.0
//! Kernel memory by the page tables that lie in physical memory.

use std::ops::{ControlFlow, Range};

use super::PhysicalMemory;
use crate::page_tables::{DirectMap, Levels};
use crate::{KernelMemory, PAGE_SIZE, PageTables, Piece, ReadError};

/// Kernel memory, translated as the processor does.
///
/// No translation is kept from one call to the next: a guest that runs maps and unmaps, and a page
/// that was another meanwhile would be read for it. The kernel's text has few translations, as it is
/// mapped by large pages, and each is handed on in one piece.
#[derive(Clone, Copy)]
pub struct Translated<'a> {
    physical: &'a dyn PhysicalMemory,
    root: u64,
    map: DirectMap,
}

impl std::fmt::Debug for Translated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translated").field("root", &self.root).field("map", &self.map).finish()
    }
}

/// Physical memory at its own addresses, for page tables to be read from.
struct AtOwnAddresses<'a>(&'a dyn PhysicalMemory);

impl KernelMemory for AtOwnAddresses<'_> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.0.visit(start, length, visitor)
    }
}

impl<'a> Translated<'a> {
    /// Memory as the tables below the root at this physical address map it. `encryption` has the bits
    /// of entries that are no part of the address (`sme_me_mask`).
    pub fn new(
        physical: &'a dyn PhysicalMemory,
        root: u64,
        levels: Levels,
        encryption: u64,
    ) -> Self {
        Self { physical, root, map: DirectMap { base: 0, levels, encryption } }
    }

    /// The physical address of the root.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// How many levels of tables there are.
    pub fn levels(&self) -> Levels {
        self.map.levels
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &'a dyn PhysicalMemory {
        self.physical
    }

    /// The physical address that a virtual one leads to, and the size of its page; nothing if it is
    /// not mapped, or a table on the way is not in the source.
    pub fn physical(&self, address: u64) -> Option<(u64, u64)> {
        let memory = AtOwnAddresses(self.physical);
        let found = PageTables::new(&memory, self.root, self.map).translate(address).ok()??;
        Some((found.physical, found.page_size))
    }

    /// The next stretch from `at` on that is contiguous in physical memory, or that is mapped nowhere.
    fn stretch(&self, at: u64, left: u64) -> (Option<u64>, u64) {
        match self.physical(at) {
            Some((physical, page_size)) => (Some(physical), (page_size - at % page_size).min(left)),
            None => (None, (PAGE_SIZE - at % PAGE_SIZE).min(left)),
        }
    }
}

impl KernelMemory for Translated<'_> {
    fn name(&self) -> &'static str {
        self.physical.name()
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut at = start;
        let mut left = length;
        // Pages that cannot be read follow each other; they are one stretch.
        let mut hole: Option<Range<u64>> = None;
        while left > 0 {
            let (physical, length) = self.stretch(at, left);
            let mut ended = false;
            let mut hand_over = |piece: Piece<'_>| {
                let (address, bytes) = match piece {
                    Piece::Bytes { address, bytes } => (address, bytes),
                    Piece::Unreadable { address, length } => {
                        hole = Some(match hole.take() {
                            Some(hole) => hole.start..address.wrapping_add(length),
                            None => address..address.wrapping_add(length),
                        });
                        return ControlFlow::Continue(());
                    }
                };
                if let Some(hole) = hole.take() {
                    let length = hole.end.wrapping_sub(hole.start);
                    visitor(Piece::Unreadable { address: hole.start, length })?;
                }
                visitor(Piece::Bytes { address, bytes })
            };
            match physical {
                None => ended = hand_over(Piece::Unreadable { address: at, length }).is_break(),
                Some(physical) => {
                    self.physical.visit(physical, length, &mut |piece| {
                        let flow = hand_over(moved(piece, at.wrapping_sub(physical)));
                        ended |= flow.is_break();
                        flow
                    })?;
                }
            }
            if ended {
                return Ok(());
            }
            at = at.wrapping_add(length);
            left -= length;
        }
        if let Some(hole) = hole {
            let length = hole.end.wrapping_sub(hole.start);
            // Nothing is left to be ended early.
            let _ = visitor(Piece::Unreadable { address: hole.start, length });
        }
        Ok(())
    }
}

fn moved(piece: Piece<'_>, by: u64) -> Piece<'_> {
    match piece {
        Piece::Bytes { address, bytes } => {
            Piece::Bytes { address: address.wrapping_add(by), bytes }
        }
        Piece::Unreadable { address, length } => {
            Piece::Unreadable { address: address.wrapping_add(by), length }
        }
    }
}
