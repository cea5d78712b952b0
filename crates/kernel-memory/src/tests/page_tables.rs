// SPDX-License-Identifier: Apache-2.0
use std::ops::ControlFlow;

use crate::page_tables::{
    DirectMap, Levels, Only, PageTables, Permissions, Translation, WalkError, find_direct_map_base,
};
use crate::{FakeMemory, KernelMemory};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const LARGE: u64 = 128;
const NX: u64 = 1 << 63;
/// What Linux puts into entries that lead to tables (`_KERNPG_TABLE`, without the A and D bits).
const TABLE: u64 = PRESENT | WRITABLE;

const KIB_4: u64 = 4096;
const MIB_2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const ROOT: u64 = 0x10_0000;

/// Builds tables in made-up memory as a kernel does: pages for tables are taken one after the other
/// from physical memory, and read through a direct map.
struct Tables {
    memory: FakeMemory,
    map: DirectMap,
    free: u64,
}

impl Tables {
    fn new(map: DirectMap) -> Self {
        let mut tables = Self { memory: FakeMemory::new(), map, free: ROOT };
        tables.take();
        tables
    }

    fn root(&self) -> u64 {
        self.map.base + ROOT
    }

    fn take(&mut self) -> u64 {
        let page = self.free;
        self.free += KIB_4;
        self.memory.write(self.map.base + page, &[0; 4096]);
        page
    }

    fn entry(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read(at, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// The address of the entry for `address` in the table of `level`.
    fn at(&mut self, address: u64, level: u32) -> u64 {
        let top = if self.map.levels == Levels::Five { 5 } else { 4 };
        let mut table = self.root();
        for current in (level..=top).rev() {
            let slot = (address >> (12 + 9 * (current - 1))) & 511;
            let at = table + 8 * slot;
            if current == level {
                return at;
            }
            if self.entry(at) == 0 {
                let page = self.take();
                self.memory.write_u64(at, page | TABLE);
            }
            table = self.map.base + (self.entry(at) & 0x000f_ffff_ffff_f000);
        }
        unreachable!("the loop ends at `level`")
    }

    fn map(&mut self, address: u64, physical: u64, size: u64, flags: u64) {
        let (level, large) = match size {
            GIB => (3, LARGE),
            MIB_2 => (2, LARGE),
            _ => (1, 0),
        };
        let at = self.at(address, level);
        self.memory.write_u64(at, physical | flags | large | PRESENT);
    }

    fn tables(&self) -> PageTables<'_> {
        PageTables::new(&self.memory, self.root(), self.map)
    }
}

const FOUR: DirectMap =
    DirectMap { base: 0xffff_8880_0000_0000, levels: Levels::Four, encryption: 0 };
const FIVE: DirectMap =
    DirectMap { base: 0xff11_0000_0000_0000, levels: Levels::Five, encryption: 0 };

/// A small kernel: 6 GiB of direct map, text of two large pages, read-only data, a module.
fn kernel(map: DirectMap) -> Tables {
    let mut tables = Tables::new(map);
    // The first gigabyte in pages of 2 MiB, as where its parts differ.
    for page in 0..512 {
        tables.map(map.base + page * MIB_2, page * MIB_2, MIB_2, WRITABLE | NX);
    }
    for page in 1..6 {
        tables.map(map.base + page * GIB, page * GIB, GIB, WRITABLE | NX);
    }
    for page in 0..2 {
        tables.map(TEXT + page * MIB_2, 0x100_0000 + page * MIB_2, MIB_2, 0);
    }
    tables.map(TEXT + 2 * MIB_2, 0x140_0000, MIB_2, NX);
    for (page, physical) in [0x50_0000, 0x71_0000, 0x71_1000].into_iter().enumerate() {
        tables.map(0xffff_ffff_c000_0000 + page as u64 * KIB_4, physical, KIB_4, 0);
    }
    // Another module behind a gap of one page.
    tables.map(0xffff_ffff_c000_4000, 0x60_0000, KIB_4, 0);
    tables
}

const EXECUTABLE: Permissions = Permissions { writable: false, executable: true, user: false };

#[test]
fn addresses_are_translated_through_pages_of_each_size() {
    for map in [FOUR, FIVE] {
        let kernel = kernel(map);
        let tables = kernel.tables();
        let found = |address| tables.translate(address).unwrap();
        let text = Translation { physical: 0x120_1234, permissions: EXECUTABLE, page_size: MIB_2 };
        assert_eq!(found(TEXT + 0x20_1234), Some(text));
        assert_eq!(found(0xffff_ffff_c000_1008).map(|page| page.physical), Some(0x71_0008));
        let direct = found(map.base + 5 * GIB + 77).unwrap();
        assert_eq!((direct.physical, direct.page_size), (5 * GIB + 77, GIB));
        assert_eq!(found(TEXT - 1), None);
        assert_eq!(found(0x1234), None);
        assert_eq!(found(0x1234_0000_0000_0000), None);
    }
}

#[test]
fn adjacent_leaves_with_equal_permissions_are_one_range() {
    for map in [FOUR, FIVE] {
        let kernel = kernel(map);
        let (ranges, walked) = kernel.tables().ranges(Only::Present).unwrap();
        let seen: Vec<_> =
            ranges.iter().map(|range| (range.start, range.length, range.physical)).collect();
        let expected = [
            (map.base, GIB, Some(0)),
            (map.base + GIB, 5 * GIB, Some(GIB)),
            (TEXT, 2 * MIB_2, Some(0x100_0000)),
            (TEXT + 2 * MIB_2, MIB_2, Some(0x140_0000)),
            (0xffff_ffff_c000_0000, 3 * KIB_4, None),
            (0xffff_ffff_c000_4000, KIB_4, Some(0x60_0000)),
        ];
        assert_eq!(seen, expected);
        assert_eq!(walked.leaves, 512 + 5 + 3 + 3 + 1);
        assert_eq!(walked.unreadable, []);
        assert_eq!(
            ranges[0].permissions,
            Permissions { writable: true, executable: false, user: false }
        );
    }
}

#[test]
fn only_executable_ranges_are_visited_where_asked_for() {
    let kernel = kernel(FOUR);
    let (ranges, _) = kernel.tables().ranges(Only::Executable).unwrap();
    let starts: Vec<u64> = ranges.iter().map(|range| range.start).collect();
    assert_eq!(starts, [TEXT, 0xffff_ffff_c000_0000, 0xffff_ffff_c000_4000]);
    assert!(ranges.iter().all(|range| range.permissions == EXECUTABLE));
}

#[test]
fn the_strictest_level_decides() {
    let mut kernel = kernel(FOUR);
    // NX, and neither W nor U, in the entry above the module's table.
    let module = 0xffff_ffff_c000_0000;
    kernel.map(module, 0x50_0000, KIB_4, WRITABLE | USER);
    let above = kernel.at(module, 2);
    let entry = kernel.entry(above);
    kernel.memory.write_u64(above, (entry & !WRITABLE) | NX);
    let page = kernel.tables().translate(module).unwrap().unwrap();
    let none = Permissions { writable: false, executable: false, user: false };
    assert_eq!(page.permissions, none);
    let all = kernel.tables().ranges(Only::Executable).unwrap();
    // Below an entry that forbids execution no table is read: its loss is not noticed.
    kernel.memory.remove_page(FOUR.base + (entry & 0x000f_ffff_ffff_f000));
    let (ranges, walked) = kernel.tables().ranges(Only::Executable).unwrap();
    assert_eq!((ranges.len(), walked.unreadable.len()), (1, 0));
    assert_eq!(all.0, ranges);
}

#[test]
fn a_table_that_cannot_be_read_is_told_with_what_it_decides_on() {
    let mut kernel = kernel(FOUR);
    let at = kernel.at(0xffff_ffff_c000_0000, 2);
    let table = FOUR.base + (kernel.entry(at) & 0x000f_ffff_ffff_f000);
    kernel.memory.remove_page(table);
    let (ranges, walked) = kernel.tables().ranges(Only::Executable).unwrap();
    assert_eq!(ranges.len(), 1);
    let lost = walked.unreadable[0];
    assert_eq!((lost.start, lost.length, lost.table), (0xffff_ffff_c000_0000, MIB_2, table));
    assert!(kernel.tables().translate(0xffff_ffff_c000_0000).is_err());
    kernel.memory.remove_page(kernel.root());
    assert!(matches!(kernel.tables().ranges(Only::Present), Err(WalkError::Root(_))));
}

#[test]
fn a_walk_ends_where_its_visitor_says() {
    let kernel = kernel(FOUR);
    let mut seen = 0;
    kernel
        .tables()
        .walk(Only::Present, &mut |_| {
            seen += 1;
            if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, 2);
}

#[test]
fn tables_that_refer_to_themselves_end_the_walk() {
    let mut tables = Tables::new(FOUR);
    // Each entry of the root leads to the root: 256 * 512^3 leaves.
    for slot in 0..512 {
        tables.memory.write_u64(FOUR.base + ROOT + 8 * slot, ROOT | TABLE);
    }
    let mut leaves = 0_u64;
    tables
        .tables()
        .leaves(Only::Present, &mut |_| {
            leaves += 1;
            if leaves == 1_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(leaves, 1_000_000);
}

#[test]
fn tables_that_fan_out_without_leaves_are_read_once_for_executable_ones() {
    let mut tables = Tables::new(FOUR);
    let pages: Vec<u64> = (0..3).map(|_| tables.take()).collect();
    for slot in 0..512 {
        tables.memory.write_u64(tables.root() + 8 * slot, pages[0] | TABLE);
        tables.memory.write_u64(FOUR.base + pages[0] + 8 * slot, pages[1] | TABLE);
        tables.memory.write_u64(FOUR.base + pages[1] + 8 * slot, pages[2] | TABLE);
    }
    let (ranges, walked) = tables.tables().ranges(Only::Executable).unwrap();
    assert_eq!((ranges.len(), walked.tables), (0, 4));
    // Read again and again, they come to an end as well.
    let root = tables.root();
    assert_eq!(
        tables.tables().at_most(50_000).ranges(Only::Present),
        Err(WalkError::TooMany { root, limit: 50_000 })
    );
}

#[test]
fn the_base_of_the_direct_map_is_found_from_the_root() {
    for base in [FOUR.base, 0xffff_9a3c_c000_0000] {
        let map = DirectMap { base, levels: Levels::Four, encryption: 0 };
        assert_eq!(DirectMap::find(&kernel(map).memory, map.base + ROOT), Some(map));
    }
    for base in [FIVE.base, 0xff3a_bc00_4000_0000] {
        let map = DirectMap { base, levels: Levels::Five, encryption: 0 };
        assert_eq!(DirectMap::find(&kernel(map).memory, map.base + ROOT), Some(map));
        assert_eq!(find_direct_map_base(&kernel(map).memory, map.base + ROOT), Some(base));
    }
}

#[test]
fn a_root_some_gigabytes_above_the_base_is_no_hindrance() {
    let mut tables = Tables { memory: FakeMemory::new(), map: FOUR, free: 5 * GIB + ROOT };
    let root = tables.take();
    // The builder takes its root at ROOT; here the root is elsewhere, so it is written by hand.
    let (upper, lower) = (tables.take(), tables.take());
    tables.memory.write_u64(FOUR.base + root + 8 * 273, upper | TABLE);
    for page in 0..6 {
        let entry = (page * GIB) | TABLE | LARGE | NX;
        tables.memory.write_u64(FOUR.base + upper + 8 * page, entry);
    }
    tables.memory.write_u64(FOUR.base + lower, 0);
    assert_eq!(DirectMap::find(&tables.memory, FOUR.base + root), Some(FOUR));
    // Mapped elsewhere than the base says: no base fits.
    tables.memory.write_u64(FOUR.base + upper + 8 * 5, (3 * GIB) | TABLE | LARGE | NX);
    assert_eq!(DirectMap::find(&tables.memory, FOUR.base + root), None);
}

#[test]
fn an_encryption_bit_is_no_part_of_an_address() {
    for bit in [47, 51] {
        let mut kernel = kernel(FOUR);
        // Linux sets it in each entry, of tables and of pages.
        let tables: Vec<u64> = (ROOT..kernel.free).step_by(4096).collect();
        for at in tables.into_iter().flat_map(|table| (0..512).map(move |slot| table + 8 * slot)) {
            let entry = kernel.entry(FOUR.base + at);
            if entry != 0 {
                kernel.memory.write_u64(FOUR.base + at, entry | 1 << bit);
            }
        }
        let map = DirectMap::find(&kernel.memory, kernel.root()).unwrap();
        assert_eq!(map, DirectMap { encryption: 1 << bit, ..FOUR });
        let tables = PageTables::new(&kernel.memory, kernel.root(), map);
        assert_eq!(tables.translate(TEXT).unwrap().unwrap().physical, 0x100_0000);
        let (ranges, _) = tables.ranges(Only::Executable).unwrap();
        assert_eq!(ranges[0].physical, Some(0x100_0000));
    }
}
