// SPDX-License-Identifier: Apache-2.0
//! The kernel's page tables on x86-64, read as data.
//!
//! What the processor may execute is decided here and nowhere else: code that no list of the kernel
//! names is still mapped executable, and a second mapping of a text page that can be written is
//! seen as such. Entries are as in the Intel manual, volume 3, chapter 4.5 (4-level and 5-level
//! paging), the names of their bits as in arch/x86/include/asm/pgtable_types.h.
//!
//! Tables point to each other by physical addresses. The kernel maps all of physical memory at one
//! base, its direct map (`page_offset_base`), through which tables are read. Where no symbol tells
//! the base, [`DirectMap::find`] does.
//!
//! Tables that somebody else writes may refer to each other in any way. The depth of a walk is that
//! of the hardware, and it ends with an error after [`MAX_TABLES`].

mod direct_map;
mod walk;

use std::ops::ControlFlow;

use crate::{KernelMemory, ReadError};

pub use direct_map::{DirectMap, find_direct_map_base};

/// Tables that a walk goes through at most, if not told otherwise: enough for 8 TiB mapped by pages
/// of 4 KiB.
pub const MAX_TABLES: usize = 4 << 20;

/// Entries in a table.
const ENTRIES: usize = 512;

/// Physical address within an entry: bits 12 to 51.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// `_PAGE_PRESENT`.
const PRESENT: u64 = 1 << 0;
/// `_PAGE_RW`.
const WRITABLE: u64 = 1 << 1;
/// `_PAGE_USER`.
const USER: u64 = 1 << 2;
/// `_PAGE_PSE`: a leaf above the lowest level.
const LARGE: u64 = 1 << 7;
/// `_PAGE_NX`.
const NO_EXECUTE: u64 = 1 << 63;

/// How many levels of tables there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// 48-bit addresses.
    Four,
    /// 57-bit addresses (CR4.LA57).
    Five,
}

impl Levels {
    fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    /// Bits of an address that count; the rest repeats the highest of them.
    fn address_bits(self) -> u32 {
        12 + 9 * self.count()
    }

    fn canonical(self, address: u64) -> u64 {
        let unused = 64 - self.address_bits();
        (((address << unused) as i64) >> unused) as u64
    }
}

/// Bytes that one entry covers in a table of this level; level 1 is the lowest.
fn span(level: u32) -> u64 {
    1 << (12 + 9 * (level - 1))
}

fn slot(address: u64, level: u32) -> u64 {
    (address >> (12 + 9 * (level - 1))) & 0x1ff
}

/// What all levels together permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// Each level permits writing.
    pub writable: bool,
    /// No level forbids execution.
    pub executable: bool,
    /// Each level permits access from user mode.
    pub user: bool,
}

impl Permissions {
    /// What holds above the root.
    const ALL: Self = Self { writable: true, executable: true, user: true };

    fn with(self, entry: u64) -> Self {
        Self {
            writable: self.writable && entry & WRITABLE != 0,
            executable: self.executable && entry & NO_EXECUTE == 0,
            user: self.user && entry & USER != 0,
        }
    }
}

/// A range of mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first virtual address.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The physical address of the first byte, if the whole range is physically contiguous.
    pub physical: Option<u64>,
    /// What may be done there.
    pub permissions: Permissions,
    /// The size of the pages that map it: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
}

impl Mapping {
    /// The first address behind it; wraps to 0 at the end of the address space.
    pub fn end(&self) -> u64 {
        self.start.wrapping_add(self.length)
    }
}

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address.
    pub physical: u64,
    /// What may be done there.
    pub permissions: Permissions,
    /// The size of the page that maps it.
    pub page_size: u64,
}

/// Which leaves a walk visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// All that are present.
    Present,
    /// Those that can be executed. Tables below an entry that forbids execution are not read, and a
    /// table without such leaves is read once however often it is referred to.
    Executable,
}

/// How far a walk came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Tables that were walked; one that several entries lead to counts for each.
    pub tables: usize,
    /// Leaves that were visited.
    pub leaves: usize,
    /// Tables that could not be read: the first virtual address that each decides on, how many
    /// bytes from there, and where the table was to be read.
    pub unreadable: Vec<Unreadable>,
}

/// A table that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The first virtual address whose mapping is unknown.
    pub start: u64,
    /// Bytes from there.
    pub length: u64,
    /// The virtual address of the table in the direct map.
    pub table: u64,
}

/// Why a walk ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// The root or the source itself could not be read.
    #[error("cannot read the root of the page tables: {0}")]
    Root(ReadError),
    /// More tables than a kernel has: tables refer to each other.
    #[error("the page tables at {root:#x} have more than {limit} tables")]
    TooMany {
        /// The virtual address of the root.
        root: u64,
        /// The most that it may have.
        limit: usize,
    },
}

/// A root table and where to read those below.
#[derive(Clone, Copy)]
pub struct PageTables<'a> {
    memory: &'a dyn KernelMemory,
    root: u64,
    map: DirectMap,
    limit: usize,
}

impl<'a> PageTables<'a> {
    /// The tables below the root at this virtual address.
    pub fn new(memory: &'a dyn KernelMemory, root: u64, map: DirectMap) -> Self {
        Self { memory, root, map, limit: MAX_TABLES }
    }

    /// Goes through at most so many tables in one walk, instead of [`MAX_TABLES`].
    pub fn at_most(self, tables: usize) -> Self {
        Self { limit: tables, ..self }
    }

    /// The base and the levels in use.
    pub fn direct_map(&self) -> DirectMap {
        self.map
    }

    /// The physical address in an entry.
    fn physical(&self, entry: u64) -> u64 {
        entry & ADDRESS & !self.map.encryption
    }

    fn table_at(&self, entry: u64) -> u64 {
        self.map.base.wrapping_add(self.physical(entry))
    }

    /// Goes down the tables to a leaf; `seen` is told the address of each table below the root.
    fn descend(
        &self,
        address: u64,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Option<Translation>, ReadError> {
        let levels = self.map.levels;
        if levels.canonical(address) != address {
            return Ok(None);
        }
        let mut table = self.root;
        let mut permissions = Permissions::ALL;
        for level in (1..=levels.count()).rev() {
            let mut entry = [0; 8];
            self.memory.read(table.wrapping_add(8 * slot(address, level)), &mut entry)?;
            let entry = u64::from_le_bytes(entry);
            if entry & PRESENT == 0 {
                return Ok(None);
            }
            permissions = permissions.with(entry);
            if level == 1 || (level <= 3 && entry & LARGE != 0) {
                let page_size = span(level);
                let page = self.physical(entry) & !(page_size - 1);
                let physical = page | (address & (page_size - 1));
                return Ok(Some(Translation { physical, permissions, page_size }));
            }
            table = self.table_at(entry);
            seen(table);
        }
        Ok(None)
    }

    /// Where a virtual address leads; `None` if it is not mapped.
    pub fn translate(&self, address: u64) -> Result<Option<Translation>, ReadError> {
        self.descend(address, &mut |_| ())
    }

    /// Visits each leaf of the kernel's half in order of address, each by itself.
    pub fn leaves(
        &self,
        only: Only,
        visitor: &mut dyn FnMut(Mapping) -> ControlFlow<()>,
    ) -> Result<Walked, WalkError> {
        self.visit_leaves(only, visitor)
    }

    /// Visits the ranges of the kernel's half in order of address: adjacent leaves with equal
    /// permissions and page size are one.
    pub fn walk(
        &self,
        only: Only,
        visitor: &mut dyn FnMut(Mapping) -> ControlFlow<()>,
    ) -> Result<Walked, WalkError> {
        let mut pending: Option<Mapping> = None;
        let mut ended = false;
        let walked = self.leaves(only, &mut |leaf| {
            if let Some(range) = pending.as_mut() {
                let adjacent = range.end() == leaf.start;
                if adjacent
                    && (range.permissions, range.page_size) == (leaf.permissions, leaf.page_size)
                {
                    let follows =
                        |start: u64| leaf.physical == Some(start.wrapping_add(range.length));
                    range.physical = range.physical.filter(|start| follows(*start));
                    range.length += leaf.length;
                    return ControlFlow::Continue(());
                }
                let flow = visitor(*range);
                if flow.is_break() {
                    ended = true;
                    return flow;
                }
            }
            pending = Some(leaf);
            ControlFlow::Continue(())
        })?;
        if let Some(range) = pending.filter(|_| !ended) {
            // Nothing is left to be ended early.
            let _ = visitor(range);
        }
        Ok(walked)
    }

    /// The ranges of the kernel's half, as [`PageTables::walk`] visits them.
    pub fn ranges(&self, only: Only) -> Result<(Vec<Mapping>, Walked), WalkError> {
        let mut ranges = Vec::new();
        let walked = self.walk(only, &mut |range| {
            ranges.push(range);
            ControlFlow::Continue(())
        })?;
        Ok((ranges, walked))
    }
}
