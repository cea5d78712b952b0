// SPDX-License-Identifier: Apache-2.0
//! A machine's memory as it is, with nothing around it: what QEMU shares of a guest, or a copy.
//!
//! A PC has its devices below 4 GiB, so memory that would lie there continues at 4 GiB. Where the hole
//! begins is the machine's choice. In a file there is no hole: what continues above follows at once.

use super::{Extent, Extents};

/// Where memory continues above the hole.
const ABOVE: u64 = 4 << 30;

/// A q35 machine with less than this has all its memory below the hole (`pc_q35_init`,
/// hw/i386/pc_q35.c, QEMU 7.2).
const Q35_FITS: u64 = 0xb000_0000;
/// With more, it has this much below (the same).
const Q35_LOW: u64 = 0x8000_0000;

/// Where the memory of a q35 machine lies, by its size in bytes.
pub fn q35(size: u64) -> Extents {
    if size < Q35_FITS { split(size, size) } else { split(size, Q35_LOW) }
}

/// Where the memory of a machine lies that has `low` bytes below the hole and the rest above.
pub fn split(size: u64, low: u64) -> Extents {
    let low = low.min(size).min(ABOVE);
    let mut list = vec![Extent { start: 0, end: low, offset: 0 }];
    if low < size {
        list.push(Extent { start: ABOVE, end: ABOVE.saturating_add(size - low), offset: low });
    }
    Extents::new(list)
}

/// Whether the file alone leaves open where memory lies: PC machines differ in where their hole is.
pub fn is_ambiguous(size: u64) -> bool {
    size >= Q35_FITS
}
