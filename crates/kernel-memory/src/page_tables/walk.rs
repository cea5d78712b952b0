// SPDX-License-Identifier: Apache-2.0
//! The walk over all tables of the kernel's half.

use std::ops::ControlFlow;

use super::{
    ENTRIES, LARGE, Mapping, Only, PRESENT, PageTables, Permissions, Unreadable, WalkError, Walked,
    span,
};
use crate::{AddressSet, PAGE_SIZE};

/// Entries of one table whose tables are read with one question to the source.
const BATCH: usize = 64;

impl PageTables<'_> {
    pub(super) fn visit_leaves(
        &self,
        only: Only,
        visitor: &mut dyn FnMut(Mapping) -> ControlFlow<()>,
    ) -> Result<Walked, WalkError> {
        let walked = Walked::default();
        let (barren, spare) = (AddressSet::default(), Vec::new());
        let mut walk = Walk { tables: self, only, visitor, walked, barren, spare };
        walk.root()?;
        Ok(walk.walked)
    }
}

/// A table with the level that it is walked at: it may be entered at several. Tables begin where pages
/// do.
fn at_level(table: u64, level: u32) -> u64 {
    table | u64::from(level)
}

/// A walk under way.
struct Walk<'w, 'a> {
    tables: &'w PageTables<'a>,
    only: Only,
    visitor: &'w mut dyn FnMut(Mapping) -> ControlFlow<()>,
    walked: Walked,
    /// Tables in which nothing was to be visited: address and, in its lowest bits, level.
    barren: AddressSet,
    /// Buffers that are not used now.
    spare: Vec<Below>,
}

/// Tables that were read with one question.
#[derive(Default)]
struct Below {
    /// Where they are, in order of address, and whether they could be read.
    wanted: Vec<(u64, u32)>,
    readable: Vec<bool>,
    bytes: Vec<u8>,
}

impl Below {
    /// The bytes of a table; `None` for one that could not be read. Fails for one that was not to be
    /// read at all.
    fn table(&self, address: u64) -> Result<Option<&[u8]>, ()> {
        let index = self.wanted.binary_search(&(address, PAGE_SIZE as u32)).map_err(|_| ())?;
        let start = index * PAGE_SIZE as usize;
        let readable = self.readable.get(index).is_some_and(|readable| *readable);
        Ok(self.bytes.get(start..start + PAGE_SIZE as usize).filter(|_| readable))
    }
}

/// An entry of a table, with what holds for all below it.
#[derive(Clone, Copy)]
struct Entry {
    value: u64,
    /// The level of the table that it stands in.
    level: u32,
    start: u64,
    permissions: Permissions,
}

impl Entry {
    fn is_leaf(&self) -> bool {
        self.level == 1 || (self.level <= 3 && self.value & LARGE != 0)
    }
}

impl Walk<'_, '_> {
    /// Visits what the root maps in the kernel's half.
    fn root(&mut self) -> Result<(), WalkError> {
        let mut bytes = vec![0; PAGE_SIZE as usize];
        let root = self.tables.root & !(PAGE_SIZE - 1);
        self.tables.memory.read(root, &mut bytes).map_err(WalkError::Root)?;
        self.walked.tables = 1;
        let level = self.tables.map.levels.count();
        // Whether the visitor ended the walk is known to the visitor.
        let _ = self.table(&bytes, level, 0, Permissions::ALL, ENTRIES / 2)?;
        Ok(())
    }

    /// Visits what one table maps, from its slot `first` on. `base` is the address of its slot 0.
    fn table(
        &mut self,
        bytes: &[u8],
        level: u32,
        base: u64,
        above: Permissions,
        first: usize,
    ) -> Result<ControlFlow<()>, WalkError> {
        let words = bytes.as_chunks::<8>().0.iter().enumerate().skip(first);
        let mut entries: Vec<Entry> = Vec::with_capacity(BATCH);
        for (slot, word) in words {
            let value = u64::from_le_bytes(*word);
            if value & PRESENT == 0 {
                continue;
            }
            let permissions = above.with(value);
            if self.only == Only::Executable && !permissions.executable {
                continue;
            }
            let start = base.wrapping_add(slot as u64 * span(level));
            let start = self.tables.map.levels.canonical(start);
            let entry = Entry { value, level, start, permissions };
            if level == 1 {
                if self.leaf(&entry).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
            entries.push(entry);
            if entries.len() == BATCH {
                if self.entries(&entries)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                entries.clear();
            }
        }
        self.entries(&entries)
    }

    /// Visits leaves, and what the tables below the other entries map, in order.
    fn entries(&mut self, entries: &[Entry]) -> Result<ControlFlow<()>, WalkError> {
        let mut below = self.spare.pop().unwrap_or_default();
        self.read_below(entries, &mut below);
        let flow = self.entries_with(entries, &below);
        self.spare.push(below);
        flow
    }

    fn entries_with(
        &mut self,
        entries: &[Entry],
        below: &Below,
    ) -> Result<ControlFlow<()>, WalkError> {
        for entry in entries {
            let flow = if entry.is_leaf() {
                self.leaf(entry)
            } else {
                let table = self.tables.table_at(entry.value);
                // What was not read is known to be barren.
                let Ok(bytes) = below.table(table) else { continue };
                self.below(entry, table, bytes)?
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads the tables to which entries lead.
    fn read_below(&self, entries: &[Entry], below: &mut Below) {
        let Below { wanted, readable, bytes } = below;
        wanted.clear();
        for entry in entries.iter().filter(|entry| !entry.is_leaf()) {
            let table = self.tables.table_at(entry.value);
            if !self.barren.contains(&at_level(table, entry.level - 1)) {
                wanted.push((table, PAGE_SIZE as u32));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        bytes.clear();
        readable.clear();
        let read = self.tables.memory.visit_many(wanted, &mut |_, table| {
            readable.push(table.is_ok());
            match table {
                Ok(table) => bytes.extend_from_slice(table),
                Err(_) => bytes.resize(bytes.len() + PAGE_SIZE as usize, 0),
            }
        });
        if read.is_err() {
            readable.clear();
        }
    }

    fn leaf(&mut self, entry: &Entry) -> ControlFlow<()> {
        self.walked.leaves += 1;
        let size = span(entry.level);
        (self.visitor)(Mapping {
            start: entry.start,
            length: size,
            physical: Some(self.tables.physical(entry.value) & !(size - 1)),
            permissions: entry.permissions,
            page_size: size,
        })
    }

    fn below(
        &mut self,
        entry: &Entry,
        table: u64,
        bytes: Option<&[u8]>,
    ) -> Result<ControlFlow<()>, WalkError> {
        let level = entry.level - 1;
        if self.barren.contains(&at_level(table, level)) {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(bytes) = bytes else {
            let (start, length) = (entry.start, span(entry.level));
            self.walked.unreadable.push(Unreadable { start, length, table });
            return Ok(ControlFlow::Continue(()));
        };
        // A table that many entries lead to counts for each: it is the way that must end.
        self.walked.tables += 1;
        if self.walked.tables > self.tables.limit {
            let (root, limit) = (self.tables.root, self.tables.limit);
            return Err(WalkError::TooMany { root, limit });
        }
        let before = (self.walked.leaves, self.walked.unreadable.len());
        let flow = self.table(bytes, level, entry.start, entry.permissions, 0)?;
        let after = (self.walked.leaves, self.walked.unreadable.len());
        if self.only == Only::Executable && flow.is_continue() && before == after {
            self.barren.insert(at_level(table, level));
        }
        Ok(flow)
    }
}
