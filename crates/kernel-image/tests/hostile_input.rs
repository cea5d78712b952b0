// SPDX-License-Identifier: Apache-2.0
//! Input that is cut short, damaged or made to harm: always an error or an answer, never a panic,
//! and never more memory than the input can justify.
//!
//! The damage is random from a fixed seed, so that a failure comes back; `fuzz/` does the same
//! without end and guided by coverage.

mod synthetic;

use kernel_image::kallsyms::{self, Region};
use kernel_image::{ImageErrorKind, KernelImage, Relocations};
use synthetic::{Builder, FORMATS, RODATA, TEXT, WRAPPINGS, boot_image, boot_image_with, compress};

/// xorshift64* (Vigna 2016): enough to choose what to damage.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Changes some bytes: single bits, whole words to values at the edge, or a run of bytes.
    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => {
                    let edges =
                        [0, 1, 0x7f, 0x80, 0xff, 0xffff_ffff, 0x7fff_ffff, u64::MAX, 1 << 63];
                    let value = edges[self.below(edges.len())].to_le_bytes();
                    let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&value[..width]);
                }
                2 => bytes[at] = self.next() as u8,
                _ => {
                    let length = self.below(64).min(bytes.len() - at);
                    let from = self.below(bytes.len() - length + 1);
                    bytes.copy_within(from..from + length, at);
                }
            }
        }
    }
}

/// Everything that can be asked of an image that was accepted.
fn ask(image: &KernelImage) {
    let summary = image.summary();
    assert!(summary.run_time_bytes <= summary.patched_bytes);
    assert!(summary.patched_bytes <= summary.text_bytes);
    for section in image.sections() {
        image.section_bytes(&section.name);
        image.relocated(section.address, 64, 0x1000_0000);
        image.relocated(section.address.wrapping_add(section.size), 8, u64::MAX);
    }
    for alternative in &image.tables().alternatives {
        assert!(image.replacement(alternative).is_some());
    }
    image.build_id();
    image.release();
}

#[test]
fn an_elf_cut_anywhere_is_refused_except_between_its_relocation_lists() {
    let (elf, _) = Builder::default().build();
    let mut accepted = Vec::new();
    for length in 0..=elf.len() {
        match KernelImage::parse(&elf[..length]) {
            Ok(image) => accepted.push((elf.len() - length, image.relocations().quads().len())),
            Err(error) => assert!(error.offset() <= elf.len() as u64, "cut at {length}: {error}"),
        }
    }
    // Six words follow the ELF. Without them it looks like a debug kernel, and cut after a list or
    // its zero like one of 6.15 with two lists. A boot image states its size and is refused there.
    assert_eq!(accepted, [(24, 0), (12, 1), (8, 1), (4, 1), (0, 1)]);
}

#[test]
fn a_boot_image_cut_anywhere_before_its_payloads_end_is_refused() {
    let (elf, _) = Builder::default().build();
    for wrapping in WRAPPINGS {
        let file = boot_image(&elf, wrapping);
        let end = file.len() - b"a signature may follow".len();
        for length in 0..end {
            let error = KernelImage::parse(&file[..length])
                .expect_err(&format!("{wrapping} cut at {length} of {}", file.len()));
            assert_ne!(error.kind(), ImageErrorKind::TooLarge, "{wrapping} at {length}: {error}");
        }
        assert!(KernelImage::parse(&file[..end]).is_ok());
    }
}

#[test]
fn a_stream_cut_anywhere_is_refused_even_if_the_headers_agree() {
    let (elf, _) = Builder::default().build();
    for wrapping in WRAPPINGS {
        let stream = compress(&elf, wrapping);
        // The gzip stream ends in its size and lacks nothing without it but that.
        for length in (0..stream.len() - 8).step_by(7) {
            let mut payload = stream[..length].to_vec();
            payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
            let result = KernelImage::parse(&boot_image_with(&payload));
            assert!(result.is_err(), "{wrapping} cut at {length} of {}", stream.len());
        }
    }
}

#[test]
fn a_damaged_elf_never_panics() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    for kallsyms in FORMATS {
        let (elf, _) = Builder { kallsyms, ..Builder::default() }.build();
        let mut accepted = 0;
        for _ in 0..2000 {
            let mut damaged = elf.clone();
            random.damage(&mut damaged);
            if let Ok(image) = KernelImage::parse(&damaged) {
                ask(&image);
                accepted += 1;
            }
        }
        // Most of the text is no site, so some damage must go unnoticed: else nothing was asked.
        assert!(accepted > 100, "{kallsyms:?}: only {accepted} of 2000 were accepted");
    }
}

#[test]
fn damaged_headers_and_tables_never_panic() {
    let mut random = Random(0xfeed_beef);
    let (elf, _) = Builder::default().build();
    let image = KernelImage::parse(&elf).unwrap();
    let mut ranges = vec![0..0x400, elf.len() - 0x800..elf.len()];
    for section in image.sections().iter().filter(|section| section.size < 0x1000) {
        let start = section.offset as usize;
        ranges.push(start..start + section.size as usize);
    }
    ranges.retain(|range| !range.is_empty());
    for round in 0..6000 {
        let mut damaged = elf.clone();
        let range = ranges[round % ranges.len()].clone();
        random.damage(&mut damaged[range]);
        if let Ok(image) = KernelImage::parse(&damaged) {
            ask(&image);
        }
    }
}

#[test]
fn a_damaged_boot_image_never_panics() {
    let mut random = Random(42);
    let (elf, _) = Builder::default().build();
    for wrapping in WRAPPINGS {
        let file = boot_image(&elf, wrapping);
        for round in 0..1000 {
            let mut damaged = file.clone();
            // Half of it in the headers, where the lengths and offsets are.
            let end = if round % 2 == 0 { 0x420 } else { damaged.len() };
            random.damage(&mut damaged[0x1f0..end]);
            if let Ok(image) = KernelImage::parse(&damaged) {
                ask(&image);
            }
        }
    }
}

#[test]
fn damaged_kallsyms_never_panic() {
    let mut random = Random(7);
    for kallsyms in FORMATS {
        let (elf, _) = Builder { kallsyms, ..Builder::default() }.build();
        let image = KernelImage::parse(&elf).unwrap();
        let section = image.section(".rodata").unwrap();
        let bytes = image.section_bytes(".rodata").unwrap();
        for round in 0..2000 {
            let mut damaged = bytes.to_vec();
            random.damage(&mut damaged);
            if round % 10 == 0 {
                damaged.truncate(random.below(damaged.len()));
            }
            let text = TEXT..TEXT + 0x1000;
            let region = Region { bytes: &damaged, offset: section.offset, address: RODATA, text };
            if let Ok(symbols) = kallsyms::decode(&region) {
                assert!(symbols.len() >= 256);
            }
        }
    }
}

#[test]
fn random_relocation_lists_never_panic() {
    let mut random = Random(99);
    for _ in 0..5000 {
        let length = random.below(64);
        let tail: Vec<u8> = (0..length)
            .map(|_| if random.below(3) == 0 { 0 } else { random.next() as u8 })
            .collect();
        let _ = Relocations::parse(&tail, 0);
    }
}

#[test]
fn a_size_that_no_kernel_has_is_refused_before_anything_is_decompressed() {
    let (elf, _) = Builder::default().build();
    for wrapping in ["xz", "zstd", "lz4"] {
        let mut payload = compress(&elf, wrapping);
        payload.extend_from_slice(&u32::MAX.to_le_bytes());
        let error = KernelImage::parse(&boot_image_with(&payload)).unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::TooLarge, "{wrapping}: {error}");
    }
}

#[test]
fn a_stream_that_gives_more_than_stated_is_stopped() {
    // 64 MiB of zeros compress to some kilobytes; the image admits to a page of them.
    let bomb = vec![0; 64 << 20];
    for wrapping in ["gzip", "xz", "zstd", "lz4"] {
        let mut payload = compress(&bomb, wrapping);
        if wrapping == "gzip" {
            let end = payload.len() - 4;
            payload.truncate(end);
        }
        payload.extend_from_slice(&4096_u32.to_le_bytes());
        let before = peak_memory();
        let error = KernelImage::parse(&boot_image_with(&payload)).unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::Decompression, "{wrapping}: {error}");
        let grown = peak_memory().saturating_sub(before);
        assert!(grown < 32 << 20, "{wrapping}: {grown} bytes more for a kernel of 4096");
    }
}

/// The largest resident size of this process so far, in bytes. Tests that run at the same time
/// count as well, but `bomb` above is far more than any of them needs.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).unwrap_or(0)
        << 10
}

#[test]
fn an_xz_stream_that_wants_a_dictionary_of_gigabytes_is_refused() {
    let (elf, _) = Builder::default().build();
    let mut payload = compress(&elf, "xz");
    // The block header follows the 12 bytes of the stream header; its LZMA2 property says how
    // large the dictionary is: 40 stands for 4 GiB - 1. The header's CRC32 is made right again.
    let header = 12;
    let length = (usize::from(payload[header]) + 1) * 4;
    let property = (header..header + length)
        .position(|at| payload[at..].starts_with(&[0x21, 0x01]))
        .map(|at| header + at + 2)
        .unwrap();
    payload[property] = 40;
    let mut crc = flate2::Crc::new();
    crc.update(&payload[header..header + length - 4]);
    payload[header + length - 4..header + length].copy_from_slice(&crc.sum().to_le_bytes());
    payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
    let error = KernelImage::parse(&boot_image_with(&payload)).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::Decompression);
    assert!(
        error.to_string().contains("mem"),
        "refused for its dictionary, not otherwise: {error}"
    );
}
