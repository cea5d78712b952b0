// SPDX-License-Identifier: Apache-2.0
//! Saved kernel memory, which somebody may have sent.
#![no_main]

use std::ops::ControlFlow;

use kernel_memory::{KernelMemory, Piece, SavedImage};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(image) = SavedImage::open(data) else { return };
    let mut total = 0;
    for (start, length) in image.ranges() {
        assert!(start.checked_add(length - 1).is_some());
        total += length;
    }
    assert!(total <= data.len() as u64);
    // A range that begins in a gap, crosses records and ends behind the last.
    let Some((start, length)) = image.ranges().next() else { return };
    let start = start.saturating_sub(1);
    let length = length.saturating_add(4096).min(u64::MAX - start);
    let mut seen = 0;
    let read = image.visit(start, length, &mut |piece| {
        seen += match piece {
            Piece::Bytes { bytes, .. } => bytes.len() as u64,
            Piece::Unreadable { length, .. } => length,
        };
        ControlFlow::Continue(())
    });
    if read.is_ok() {
        assert_eq!(seen, length);
    }
});
