// SPDX-License-Identifier: Apache-2.0
use super::BASE;
use crate::saved::{SavedError, SavedIdentity, save};
use crate::{FakeMemory, KernelMemory, Piece, ReadError, SavedImage};

fn memory() -> FakeMemory {
    let mut memory = FakeMemory::new();
    let bytes: Vec<u8> = (0..3 * 4096_u32).map(|at| (at % 251) as u8).collect();
    memory.write(BASE, &bytes);
    memory.write(BASE + 0x8000, &bytes);
    memory
}

fn identity() -> SavedIdentity {
    SavedIdentity { build_id: vec![0xab; 20], boot_id: *b"sixteen letters!" }
}

fn file(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut file = Vec::new();
    save(&memory(), &identity(), ranges, &mut file).unwrap();
    file
}

#[test]
fn saved_memory_reads_as_the_memory_it_was_saved_from() {
    // Out of order, overlapping, with a gap of the memory and a range beyond it.
    let ranges = [(BASE + 0x8800, 0x1000), (BASE + 10, 0x9000), (BASE + 0x20_0000, 64)];
    let mut out = Vec::new();
    let saved = save(&memory(), &identity(), &ranges, &mut out).unwrap();
    assert_eq!((saved.bytes, saved.unreadable), (0x3000 - 10 + 0x1800, 0x5000 + 64));
    let image = SavedImage::open(out.as_slice()).unwrap();
    assert_eq!(*image.identity(), identity());
    let held: Vec<_> = image.ranges().collect();
    assert_eq!(held, [(BASE + 10, 0x3000 - 10), (BASE + 0x8000, 0x1800)]);
    for (start, length) in [(BASE + 10, 100), (BASE + 0xff0, 0x2010), (BASE + 0x97ff, 1)] {
        let (mut from, mut to) = (vec![0; length], vec![1; length]);
        memory().read(start, &mut from).unwrap();
        image.read(start, &mut to).unwrap();
        assert_eq!(from, to);
    }
    let mut byte = [0];
    for outside in [BASE, BASE + 9, BASE + 0x3000, BASE + 0x7fff, BASE + 0x9800, 0, u64::MAX] {
        let error = image.read(outside, &mut byte).unwrap_err();
        assert_eq!(error, ReadError::Unreadable { address: outside, through: "saved memory" });
    }
}

#[test]
fn each_byte_of_a_range_is_in_one_piece() {
    let file = file(&[(BASE, 0x3000), (BASE + 0x8000, 0x3000)]);
    let image = SavedImage::open(&file).unwrap();
    let mut at = BASE - 0x1000;
    let mut unreadable = 0;
    image
        .visit(at, 0x1_0000, &mut |piece| {
            let (address, length) = match piece {
                Piece::Bytes { address, bytes } => (address, bytes.len() as u64),
                Piece::Unreadable { address, length } => {
                    unreadable += length;
                    (address, length)
                }
            };
            assert_eq!(address, at);
            at += length;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((at, unreadable), (BASE + 0xf000, 0x1_0000 - 0x6000));
}

#[test]
fn a_file_cut_off_at_any_length_is_refused() {
    let file = file(&[(BASE, 0x100), (BASE + 0x8000, 0x20)]);
    for length in 0..file.len() {
        assert!(SavedImage::open(&file[..length]).is_err(), "{length}");
    }
    let mut longer = file.clone();
    longer.push(0);
    let offset = file.len();
    assert_eq!(SavedImage::open(longer).unwrap_err(), SavedError::Trailing { offset });
}

#[test]
fn errors_name_what_is_wrong_and_where() {
    let good = file(&[(BASE, 0x100), (BASE + 0x8000, 0x20)]);
    let with = |at: usize, value: u64| {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        SavedImage::open(bytes).unwrap_err()
    };
    assert_eq!(with(0, 0), SavedError::Magic);
    assert_eq!(with(8, 2), SavedError::Version { found: 2 });
    assert_eq!(with(8, 1 | 33 << 32), SavedError::BuildId { length: 33 });
    assert_eq!(with(72, u64::MAX), SavedError::Truncated { offset: 64, what: "a record's bytes" });
    let second = 64 + 16 + 0x100;
    assert_eq!(with(second, BASE), SavedError::Order { offset: second, address: BASE });
    assert_eq!(with(second, u64::MAX), SavedError::Order { offset: second, address: u64::MAX });
    let last = second + 16 + 0x20;
    assert_eq!(with(last, 3), SavedError::Count { offset: last, found: 2, said: 3 });
}

#[test]
fn mutated_files_never_panic() {
    let good = file(&[(BASE, 0x40), (BASE + 0x8000, 0x20)]);
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            if let Ok(image) = SavedImage::open(bytes) {
                let mut buffer = [0; 0x50];
                let _ = image.read(BASE, &mut buffer);
                let _ = image.read(u64::MAX - 4, &mut buffer);
            }
        }
    }
}
