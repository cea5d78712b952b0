// SPDX-License-Identifier: Apache-2.0
//! Physical memory in each format, made up here: what comes back, and what is refused.

use std::io::Write;
use std::ops::ControlFlow;

use crate::page_tables::Levels;
use crate::physical::flattened::Flattened;
use crate::physical::kdump::Kdump;
use crate::physical::vmcoreinfo::VmCoreInfo;
use crate::physical::{
    Extent, Extents, FormatError, Stretches, Translated, elf_core, lime, qemu_processors, raw,
};
use crate::{KernelMemory, PhysicalMemory, Piece};

const PAGE: usize = 4096;

/// A page that is told from others and does not compress to nothing.
fn page(number: u64) -> Vec<u8> {
    (0..PAGE as u64).map(|at| ((at * (number + 3)) >> 3) as u8).collect()
}

fn read(memory: &dyn PhysicalMemory, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    memory.read(address, &mut bytes).then_some(bytes)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// Each beginning of a file is refused, and no change of a byte makes a parser fail otherwise.
fn survives(file: &[u8], parse: impl Fn(&[u8])) {
    for length in 0..file.len().min(6000) {
        parse(&file[..length]);
    }
    for at in 0..file.len().min(6000) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = file.to_vec();
            changed[at] = value;
            parse(&changed);
        }
    }
}

#[test]
fn memory_above_the_hole_follows_in_the_file() {
    let extents = raw::split(3 * PAGE as u64, PAGE as u64);
    let file = [page(1), page(2), page(3)].concat();
    let memory = Stretches::new("raw", file, extents);
    assert_eq!(read(&memory, 0, PAGE), Some(page(1)));
    assert_eq!(read(&memory, 4 << 30, 2 * PAGE), Some([page(2), page(3)].concat()));
    assert_eq!(read(&memory, PAGE as u64 - 1, 2), None);
    // QEMU 7.2, `-M q35 -m 3G`, by `info mtree -f`.
    let all: Vec<_> = raw::q35(3 << 30).iter().copied().collect();
    let low = Extent { start: 0, end: 2 << 30, offset: 0 };
    assert_eq!(all, [low, Extent { start: 4 << 30, end: 5 << 30, offset: 2 << 30 }]);
    assert_eq!(raw::q35(2 << 30).iter().count(), 1);
}

#[test]
fn holes_between_stretches_are_pieces_of_their_own() {
    let list = vec![
        Extent { start: 0x3000, end: 0x4000, offset: 0 },
        Extent { start: 0x1000, end: 0x2000, offset: 0x1000 },
    ];
    let memory = Stretches::new("test", [page(1), page(2)].concat(), Extents::new(list));
    let mut pieces = Vec::new();
    memory
        .visit(0, 0x5000, &mut |piece| {
            pieces.push(match piece {
                Piece::Bytes { address, bytes } => (address, bytes.len() as u64, true),
                Piece::Unreadable { address, length } => (address, length, false),
            });
            ControlFlow::Continue(())
        })
        .unwrap();
    let length = 0x1000;
    let expected = [(0, false), (1, true), (2, false), (3, true), (4, false)];
    assert_eq!(pieces, expected.map(|(page, there)| (page * length, length, there)));
}

#[test]
fn of_memory_that_is_named_twice_the_first_counts() {
    let first = Extent { start: 0, end: 0x2000, offset: 0 };
    let inner = Extent { start: 0x1000, end: 0x1800, offset: 0x9000 };
    let longer = Extent { start: 0x1000, end: 0x3000, offset: 0x5000 };
    let all: Vec<_> = Extents::new(vec![longer, first, inner]).iter().copied().collect();
    assert_eq!(all, [first, Extent { start: 0x2000, end: 0x3000, offset: 0x6000 }]);
}

fn core() -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &[4, 0, 62, 0]);
    put(&mut file, 32, &64_u64.to_le_bytes());
    put(&mut file, 54, &56_u16.to_le_bytes());
    put(&mut file, 56, &2_u16.to_le_bytes());
    let mut state = vec![0; 432];
    put(&mut state, 0, &1_u32.to_le_bytes());
    // idt, then cr0 to cr4.
    put(&mut state, 368 + 4, &0xfff_u32.to_le_bytes());
    put(&mut state, 368 + 16, &0xffff_fe00_0000_0000_u64.to_le_bytes());
    put(&mut state, 392, &0x8005_0033_u64.to_le_bytes());
    put(&mut state, 392 + 24, &0x1234_5000_u64.to_le_bytes());
    let mut notes = [5_u32, 432, 0].map(u32::to_le_bytes).concat();
    notes.extend(b"QEMU\0\0\0\0");
    notes.extend(state);
    let offset = file.len() as u64;
    for (at, kind, from, physical, length) in [
        (64, 4_u32, offset, 0_u64, notes.len() as u64),
        (120, 1, offset + notes.len() as u64, 0x10_0000, 2 * PAGE as u64),
    ] {
        put(&mut file, at, &kind.to_le_bytes());
        put(&mut file, at + 8, &from.to_le_bytes());
        put(&mut file, at + 24, &physical.to_le_bytes());
        put(&mut file, at + 32, &length.to_le_bytes());
    }
    [file, notes, page(1), page(2)].concat()
}

#[test]
fn an_elf_core_gives_memory_and_registers() {
    let file = core();
    let parsed = elf_core::parse(&file).unwrap();
    let processors = qemu_processors(&parsed.notes);
    assert_eq!(processors.len(), 1);
    assert_eq!((processors[0].cr0, processors[0].cr3), (0x8005_0033, 0x1234_5000));
    assert_eq!(processors[0].idt, (0xffff_fe00_0000_0000, 0xfff));
    let memory = Stretches::new("core", file.as_slice(), parsed.extents);
    assert_eq!(read(&memory, 0x10_1000, PAGE), Some(page(2)));
    assert_eq!(read(&memory, 0x10_2000, 1), None);
}

#[test]
fn a_core_that_is_cut_off_says_where() {
    let file = core();
    let cut = elf_core::parse(&file[..file.len() - 1]).unwrap_err();
    assert!(matches!(cut, FormatError::Truncated { what: "the bytes of a segment", .. }), "{cut}");
    assert!(elf_core::parse(&file[..100]).is_err());
    survives(&file, |bytes| drop(elf_core::parse(bytes)));
}

fn lime_file() -> Vec<u8> {
    let range = |start: u64, content: &[u8]| {
        let end = start + content.len() as u64 - 1;
        let numbers = [start, end, 0].map(u64::to_le_bytes).concat();
        [b"EMiL\x01\0\0\0".as_slice(), &numbers, content].concat()
    };
    [range(0x1000, &page(1)), range(0x10_0000, &page(2))].concat()
}

#[test]
fn a_file_of_lime_gives_its_ranges() {
    let file = lime_file();
    let memory = Stretches::new("LiME", file.as_slice(), lime::parse(&file).unwrap());
    assert_eq!(read(&memory, 0x1000, PAGE), Some(page(1)));
    assert_eq!(read(&memory, 0x10_0ff0, 16), Some(page(2)[0xff0..].to_vec()));
    assert_eq!(memory.ranges(), [0x1000..0x2000, 0x10_0000..0x10_1000]);
    let error = lime::parse(&file[..file.len() - 1]).unwrap_err().to_string();
    assert!(error.contains("a range of memory at offset 0x1040"), "{error}");
    survives(&file, |bytes| drop(lime::parse(bytes)));
}

/// Pages 0 to 7 of a machine, of which 1, 4, 5, 6 and 7 are in the dump, each compressed otherwise.
fn kdump() -> Vec<u8> {
    let mut file = vec![0; 4 * PAGE];
    put(&mut file, 0, b"KDUMP   ");
    put(&mut file, 8, &6_u32.to_le_bytes());
    // Block size, blocks of the sub-header, blocks of both bitmaps, pages.
    put(&mut file, 428, &[4096_u32, 1, 2, 8].map(u32::to_le_bytes).concat());
    put(&mut file, PAGE + 96, &8_u64.to_le_bytes());
    file[2 * PAGE] = 0xff;
    file[3 * PAGE] = 0b1111_0010;
    let zlib = |bytes: &[u8]| {
        let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    };
    let stored = [
        (0_u32, page(1)),
        (1, zlib(&page(4))),
        (2, lzokay_native::compress(&page(5)).unwrap()),
        (4, snap::raw::Encoder::new().compress_vec(&page(6)).unwrap()),
        (0x20, zstd(&page(7))),
    ];
    let mut at = (file.len() + stored.len() * 24) as u64;
    for (flags, bytes) in &stored {
        file.extend(at.to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend(flags.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        at += bytes.len() as u64;
    }
    for (_, bytes) in stored {
        file.extend(bytes);
    }
    file
}

fn flattened(file: &[u8]) -> Vec<u8> {
    let record = |at: u64, bytes: &[u8]| {
        [&at.to_be_bytes(), &(bytes.len() as u64).to_be_bytes(), bytes].concat()
    };
    let mut out = vec![0; PAGE];
    put(&mut out, 0, b"makedumpfile");
    put(&mut out, 16, &1_u64.to_be_bytes());
    put(&mut out, 24, &1_u64.to_be_bytes());
    // In another order than in the dump, and the header a second time.
    let (first, second) = file.split_at(5000);
    out.extend(record(0, &[0xee; 464]));
    out.extend(record(5000, second));
    out.extend(record(0, first));
    out.extend([0xff; 16]);
    out
}

#[test]
fn pages_of_kdump_come_back_however_they_were_compressed() {
    let plain = Kdump::open(kdump()).unwrap();
    let unflattened = Kdump::open(Flattened::open(flattened(&kdump())).unwrap()).unwrap();
    for memory in [&plain as &dyn PhysicalMemory, &unflattened] {
        for number in [1, 4, 5, 6, 7] {
            let found = read(memory, number * PAGE as u64, PAGE);
            assert_eq!(found, Some(page(number)), "page {number}");
        }
        for number in [0, 2, 3, 8, 1 << 40] {
            assert_eq!(read(memory, number * PAGE as u64, 1), None, "page {number}");
        }
        let across = [&page(4)[4090..], &page(5)[..6]].concat();
        assert_eq!(read(memory, 5 * PAGE as u64 - 6, 12), Some(across));
        assert_eq!(memory.ranges(), [0x1000..0x2000, 0x4000..0x8000]);
    }
}

#[test]
fn a_dump_of_kdump_that_is_damaged_is_refused_or_has_fewer_pages() {
    let look = |bytes: &[u8]| {
        let Ok(dump) = Kdump::open(bytes) else { return };
        for number in 0..9 {
            let _ = read(&dump, number * PAGE as u64, PAGE);
        }
    };
    let file = kdump();
    let error = Kdump::open(&file[..3 * PAGE]).unwrap_err().to_string();
    assert!(error.contains("the bitmaps at offset 0x2000"), "{error}");
    // The interesting bytes: both headers, the bitmap, the descriptors and the compressed pages.
    for at in
        (0..480).chain(PAGE..PAGE + 110).chain(3 * PAGE..3 * PAGE + 4).chain(4 * PAGE..file.len())
    {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = file.clone();
            changed[at] = value;
            look(&changed);
        }
    }
    let flat = flattened(&file);
    for length in (0..flat.len()).step_by(7) {
        assert!(Flattened::open(&flat[..length]).is_err());
    }
    for at in (0..40).chain(PAGE..PAGE + 500) {
        let mut changed = flat.clone();
        changed[at] ^= 0x80;
        if let Ok(flat) = Flattened::open(changed)
            && let Ok(dump) = Kdump::open(flat)
        {
            let _ = read(&dump, PAGE as u64, PAGE);
        }
    }
}

#[test]
fn kernel_memory_is_translated_by_the_tables_in_physical_memory() {
    // Tables in pages 1 to 4, data in page 5 and a large page at 2 MiB.
    let mut file = vec![0; 4 << 20];
    let text = 0xffff_ffff_8120_0000_u64;
    let slot = |level: u64| ((text >> (12 + 9 * (level - 1))) & 0x1ff) as usize;
    let entry = |table: usize, slot: usize| table * PAGE + 8 * slot;
    put(&mut file, entry(1, slot(4)), &0x2003_u64.to_le_bytes());
    put(&mut file, entry(2, slot(3)), &0x3003_u64.to_le_bytes());
    put(&mut file, entry(3, slot(2)), &0x20_00e1_u64.to_le_bytes());
    put(&mut file, entry(3, slot(2) + 1), &0x4003_u64.to_le_bytes());
    put(&mut file, entry(4, 0), &0x5003_u64.to_le_bytes());
    // A page that is mapped to memory which the file does not hold.
    put(&mut file, entry(4, 2), &0x7fff_f003_u64.to_le_bytes());
    put(&mut file, 5 * PAGE, &page(5));
    put(&mut file, (4 << 20) - PAGE, &page(9));
    let extents = raw::q35(file.len() as u64);
    let memory = Stretches::new("raw", file, extents);
    let kernel = Translated::new(&memory, 0x1000, Levels::Four, 0);
    assert_eq!(kernel.physical(text + 5), Some((0x20_0005, 2 << 20)));
    assert_eq!(kernel.physical(text + (3 << 20)), None);
    let mut pieces = Vec::new();
    kernel
        .visit(text + (2 << 20) - PAGE as u64, 5 * PAGE as u64, &mut |piece| {
            pieces.push(match piece {
                Piece::Bytes { address, bytes } => (address - text, Some(bytes.to_vec()), 0),
                Piece::Unreadable { address, length } => (address - text, None, length),
            });
            ControlFlow::Continue(())
        })
        .unwrap();
    let large = 2 << 20;
    let expected = [
        (large - 0x1000, Some(page(9)), 0),
        (large, Some(page(5)), 0),
        // Not mapped, mapped to nothing, not mapped: one stretch.
        (large + 0x1000, None, 3 * 0x1000),
    ];
    assert_eq!(pieces, expected);
}

#[test]
fn vmcoreinfo_is_found_at_the_beginning_of_a_page() {
    let text = b"OSRELEASE=6.12.1-test\nBUILD-ID=00ff\nPAGESIZE=4096\n\
        SYMBOL(swapper_pg_dir)=ffffffff9d010000\nNUMBER(phys_base)=-16777216\n\
        SYMBOL(init_top_pgt)=ffffffff9d020000\nNUMBER(pgtable_l5_enabled)=0\n\
        KERNELOFFSET=1b000000\nNUMBER(sme_mask)=0\n";
    let mut file = vec![0; 8 * PAGE];
    put(&mut file, 3 * PAGE, text);
    // In the middle of a page, and one that lacks what is needed.
    put(&mut file, 5 * PAGE + 8, text);
    put(&mut file, 6 * PAGE, b"OSRELEASE=6.12.1-test\n");
    let memory = Stretches::new("raw", file, raw::q35(8 * PAGE as u64));
    let found = VmCoreInfo::search(&memory).unwrap();
    assert_eq!(found.iter().map(|(page, _)| *page).collect::<Vec<_>>(), [0x3000]);
    let info = &found[0].1;
    assert_eq!((info.release.as_str(), info.build_id.as_str()), ("6.12.1-test", "00ff"));
    assert_eq!((info.slide, info.levels), (0x1b00_0000, Levels::Four));
    assert_eq!(info.root, 0x1c02_0000);
    survives(text, |bytes| drop(VmCoreInfo::parse(bytes)));
}
