// SPDX-License-Identifier: Apache-2.0
//! What there is to say of an image on one page, for `ringfence image`.

use crate::image::KernelImage;
use crate::payload::Compression;
use crate::tables::{TableKind, When};

/// The main numbers of a kernel image. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// `uname -r`.
    pub release: String,
    /// GNU build id, to compare with /sys/kernel/notes of a running kernel.
    pub build_id: Option<Vec<u8>>,
    /// How the kernel was compressed.
    pub compression: Compression,
    /// Size of the vmlinux ELF with the relocation lists.
    pub elf_bytes: u64,
    /// Size of the core text, `_text` to `_etext`: what stays executable after boot.
    pub text_bytes: u64,
    /// Number of symbols.
    pub symbols: usize,
    /// Size of the kernel's BTF; zero if it has none.
    pub btf_bytes: u64,
    /// Number of 32-bit values that KASLR raises.
    pub relocations_32: usize,
    /// Number of 32-bit values that KASLR lowers (up to 6.14).
    pub relocations_32_inverse: usize,
    /// Number of 64-bit values that KASLR raises.
    pub relocations_64: usize,
    /// One line for each table that the kernel has.
    pub tables: Vec<TableSummary>,
    /// Bytes of core text in a site of any table. Sites overlap; a byte counts once.
    pub patched_bytes: u64,
    /// Of these, bytes that may change at run time; all others are fixed once booted.
    pub run_time_bytes: u64,
}

/// The size of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSummary {
    /// Which table.
    pub table: TableKind,
    /// Number of entries.
    pub entries: usize,
    /// Of these, entries whose site begins in core text; the others are in init and exit code.
    pub entries_in_text: usize,
    /// Bytes of core text in its sites; a byte counts once.
    pub text_bytes: u64,
}

impl ImageSummary {
    /// Share of core text that the kernel patches at boot or at run time, from 0 to 1.
    pub fn patched_share(&self) -> f64 {
        share(self.patched_bytes, self.text_bytes)
    }

    /// Share of core text that may change at run time, from 0 to 1.
    pub fn run_time_share(&self) -> f64 {
        share(self.run_time_bytes, self.text_bytes)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl KernelImage {
    /// Counts what there is to count.
    pub fn summary(&self) -> ImageSummary {
        let (start, end) = self.text_range();
        let mut all = Marks::new(start, end);
        let mut run = Marks::new(start, end);
        let mut tables = Vec::new();
        for table in TableKind::ALL {
            let mut one = Marks::new(start, end);
            let mut entries_in_text = 0;
            for site in self.tables().sites_of(table) {
                entries_in_text += usize::from((start..end).contains(&site.address));
                one.mark(site.address, u64::from(site.length));
                all.mark(site.address, u64::from(site.length));
                if table.when() == When::Run {
                    run.mark(site.address, u64::from(site.length));
                }
            }
            let entries = self.tables().count(table);
            if entries > 0 {
                let text_bytes = one.count();
                tables.push(TableSummary { table, entries, entries_in_text, text_bytes });
            }
        }
        ImageSummary {
            release: self.release().to_owned(),
            build_id: self.build_id().map(<[u8]>::to_vec),
            compression: self.compression(),
            elf_bytes: self.elf_bytes().len() as u64,
            text_bytes: end - start,
            symbols: self.symbols().len(),
            btf_bytes: self.btf_bytes().map_or(0, |bytes| bytes.len() as u64),
            relocations_32: self.relocations().words().len(),
            relocations_32_inverse: self.relocations().inverse_words().len(),
            relocations_64: self.relocations().quads().len(),
            tables,
            patched_bytes: all.count(),
            run_time_bytes: run.count(),
        }
    }

    /// Core text as linked, from `_text` up to `_etext`, which is what stays executable once the
    /// kernel has booted.
    pub fn text_range(&self) -> (u64, u64) {
        let section =
            self.section(".text").map_or((0, 0), |text| (text.address, text.address + text.size));
        let start = self.symbols().address_of("_text").unwrap_or(section.0);
        let end = self.symbols().address_of("_etext").unwrap_or(section.1);
        // Both come from the image; a range that is no text would cost memory for nothing.
        if start < end && end - start <= self.elf_bytes().len() as u64 {
            (start, end)
        } else {
            section
        }
    }
}

/// One bit for each byte of a range.
struct Marks {
    start: u64,
    end: u64,
    bits: Vec<u64>,
}

impl Marks {
    fn new(start: u64, end: u64) -> Self {
        let words = usize::try_from((end - start).div_ceil(64)).unwrap_or(0);
        Self { start, end, bits: vec![0; words] }
    }

    fn mark(&mut self, address: u64, length: u64) {
        for byte in address..address.saturating_add(length) {
            if (self.start..self.end).contains(&byte) {
                let index = byte - self.start;
                if let Some(word) = self.bits.get_mut((index / 64) as usize) {
                    *word |= 1 << (index % 64);
                }
            }
        }
    }

    fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_in_two_sites_counts_once_and_one_outside_not_at_all() {
        let mut marks = Marks::new(0x1000, 0x1080);
        marks.mark(0x1000, 5);
        marks.mark(0x1003, 5);
        marks.mark(0x107e, 5);
        marks.mark(u64::MAX, 8);
        assert_eq!(marks.count(), 8 + 2);
    }
}
