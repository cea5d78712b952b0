// SPDX-License-Identifier: Apache-2.0
//! kdump's compressed format, as makedumpfile and QEMU write it: pages one by one, each compressed or
//! not, with a bitmap of those that are there.
//!
//! A block is `block_size` bytes, which is also the size of a page. Block 0 is the header, then comes
//! the sub-header, then two bitmaps of equal size (which pages the machine has; which are in the
//! dump), then a descriptor of 24 bytes for each page in the dump, then the pages
//! (`disk_dump_header`, `kdump_sub_header`, `page_desc` of diskdump_mod.h and makedumpfile.h 1.7;
//! docs/specs and dump/dump.c of QEMU 7.2). Numbers are little-endian.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::ops::{ControlFlow, Range};

use super::notes::{Note, notes};
use super::{FileBytes, FormatError, PhysicalMemory, lzo, u32_at, u64_at};
use crate::{PAGE_SIZE, Piece, ReadError};

/// How the header begins.
pub const MAGIC: [u8; 8] = *b"KDUMP   ";

const PAGE: usize = PAGE_SIZE as usize;

/// Offsets in the header.
const VERSION: u64 = 8;
const BLOCK_SIZE: u64 = 428;
const SUB_HEADER_BLOCKS: u64 = 432;
const BITMAP_BLOCKS: u64 = 436;
const PAGES: u64 = 440;
const HEADER: usize = 464;

/// Offsets in the sub-header: whether this is a part of a dump, where VMCOREINFO and the notes are,
/// and how many pages there are where 32 bits do not suffice.
const SPLIT: u64 = 12;
const VMCOREINFO: u64 = 32;
const NOTES: u64 = 48;
const PAGES_64: u64 = 96;
const SUB_HEADER: usize = 104;

/// `page_desc`: offset in the file, size, flags, and page flags that are not used.
const DESCRIPTOR: u64 = 24;

/// Flags of a page.
const ZLIB: u32 = 0x01;
const LZO: u32 = 0x02;
const SNAPPY: u32 = 0x04;
const ZSTD: u32 = 0x20;

/// Text and notes beyond this are refused.
const NOTES_LIMIT: u64 = 16 << 20;

/// Pages of the bitmap's count that are kept: one for so many pages.
const COUNTED: u64 = 4096;

/// Pages that are kept decompressed. Those of page tables are asked for again and again.
const KEPT: usize = 4096;

/// A dump.
pub struct Kdump<F> {
    file: F,
    /// Which pages are in the dump.
    bitmap: Vec<u8>,
    /// How many pages of the dump lie before each stretch of [`COUNTED`].
    before: Vec<u64>,
    pages: u64,
    descriptors: u64,
    vmcoreinfo: Vec<u8>,
    notes: Vec<u8>,
    kept: RefCell<Kept>,
}

impl<F> std::fmt::Debug for Kdump<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kdump").field("pages", &self.pages).finish_non_exhaustive()
    }
}

/// Pages that were decompressed last, by where they are in the file: equal pages, such as those of
/// zeroes, are there once.
#[derive(Default)]
struct Kept {
    pages: HashMap<u64, Box<[u8; PAGE]>>,
    order: VecDeque<u64>,
}

impl<F: FileBytes> Kdump<F> {
    /// Reads headers and bitmap.
    ///
    /// # Errors
    /// When the file is cut off or something else.
    pub fn open(file: F) -> Result<Self, FormatError> {
        let header = copy(&file, 0, HEADER, "the header")?;
        if !header.starts_with(&MAGIC) {
            return Err(FormatError::malformed(0, "the header of a dump of kdump expected"));
        }
        let field = |at: u64| {
            let cut = FormatError::Truncated { what: "the header", offset: at };
            u32_at(&header, at).map(u64::from).ok_or(cut)
        };
        let block = field(BLOCK_SIZE)?;
        if block != PAGE_SIZE {
            let problem = format!("blocks of 4096 bytes expected, {block} found");
            return Err(FormatError::malformed(BLOCK_SIZE, problem));
        }
        let (version, sub_blocks) = (field(VERSION)?, field(SUB_HEADER_BLOCKS)?);
        let sub = copy(&file, block, SUB_HEADER, "the sub-header")?;
        let word = |at: u64| {
            let cut = FormatError::Truncated { what: "the sub-header", offset: block + at };
            u64_at(&sub, at).ok_or(cut)
        };
        // Each version of the format added to the sub-header.
        let since = |first: u64, value: u64| if version >= first { value } else { 0 };
        if since(2, u64::from(u32_at(&sub, SPLIT).unwrap_or(0))) != 0 {
            let problem =
                "a whole dump expected, a part of a split one found: put it together first";
            return Err(FormatError::malformed(block + SPLIT, problem));
        }
        let text = |first: u64, at: u64| {
            let (offset, length) = (since(first, word(at)?), since(first, word(at + 8)?));
            if length > NOTES_LIMIT {
                let problem = format!("{length} bytes of notes are refused");
                return Err(FormatError::malformed(block + at, problem));
            }
            copy(&file, offset, length as usize, "the notes")
        };
        let (vmcoreinfo, notes) = (text(3, VMCOREINFO)?, text(4, NOTES)?);
        let pages = match since(6, word(PAGES_64)?) {
            0 => field(PAGES)?,
            many => many,
        };
        let start = (1 + sub_blocks) * block;
        let bitmaps = field(BITMAP_BLOCKS)? * block;
        let length = pages.div_ceil(8);
        if length > bitmaps / 2 {
            let problem = format!("{pages} pages do not fit a bitmap of {} bytes", bitmaps / 2);
            return Err(FormatError::malformed(PAGES, problem));
        }
        if start.saturating_add(bitmaps) > file.length() {
            return Err(FormatError::Truncated { what: "the bitmaps", offset: start });
        }
        let bitmap = copy(&file, start + bitmaps / 2, length as usize, "the bitmap")?;
        let descriptors = start + bitmaps;
        let before = count(&bitmap);
        let all: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let end = all.checked_mul(DESCRIPTOR).and_then(|length| descriptors.checked_add(length));
        if end.is_none_or(|end| end > file.length()) {
            let what = "the descriptors of pages";
            return Err(FormatError::Truncated { what, offset: descriptors });
        }
        let kept = RefCell::default();
        Ok(Self { file, bitmap, before, pages, descriptors, vmcoreinfo, notes, kept })
    }

    /// The text of VMCOREINFO; empty where the dump has none.
    pub fn vmcoreinfo(&self) -> &[u8] {
        &self.vmcoreinfo
    }

    /// The notes.
    pub fn notes(&self) -> Vec<Note<'_>> {
        notes(&self.notes)
    }

    fn has(&self, page: u64) -> bool {
        let byte = self.bitmap.get((page / 8) as usize).copied().unwrap_or(0);
        page < self.pages && byte >> (page % 8) & 1 == 1
    }

    /// The number of the page's descriptor, if the page is in the dump.
    fn index(&self, page: u64) -> Option<u64> {
        if !self.has(page) {
            return None;
        }
        let stretch = page / COUNTED;
        let bytes = self.bitmap.get((stretch * COUNTED / 8) as usize..(page / 8) as usize)?;
        let whole: u64 = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let last = self.bitmap.get((page / 8) as usize)? & ((1 << (page % 8)) - 1);
        Some(self.before.get(stretch as usize)? + whole + u64::from(last.count_ones()))
    }

    /// Hands over a page; false if it is not in the dump or cannot be decompressed.
    fn with_page(&self, page: u64, look: impl FnOnce(&[u8])) -> bool {
        let Some(index) = self.index(page) else { return false };
        let mut descriptor = [0; DESCRIPTOR as usize];
        if !fill(&self.file, self.descriptors + index * DESCRIPTOR, &mut descriptor) {
            return false;
        }
        let (Some(offset), Some(size), Some(flags)) =
            (u64_at(&descriptor, 0), u32_at(&descriptor, 8), u32_at(&descriptor, 12))
        else {
            return false;
        };
        let mut kept = self.kept.borrow_mut();
        if !kept.pages.contains_key(&offset) {
            let Some(bytes) = self.unpack(offset, size, flags) else { return false };
            if kept.order.len() >= KEPT
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.pages.remove(&oldest);
            }
            kept.pages.insert(offset, bytes);
            kept.order.push_back(offset);
        }
        let Some(bytes) = kept.pages.get(&offset) else { return false };
        look(bytes.as_slice());
        true
    }

    fn unpack(&self, offset: u64, size: u32, flags: u32) -> Option<Box<[u8; PAGE]>> {
        // A page that did not become smaller is stored as it is.
        let mut stored = vec![0; Some(size as usize).filter(|size| *size <= PAGE)?];
        if !fill(&self.file, offset, &mut stored) {
            return None;
        }
        let mut page = Box::new([0; PAGE]);
        let filled = match flags & (ZLIB | LZO | SNAPPY | ZSTD) {
            0 => {
                page.get_mut(..stored.len())?.copy_from_slice(&stored);
                stored.len()
            }
            ZLIB => read_page(flate2::read::ZlibDecoder::new(stored.as_slice()), &mut page),
            ZSTD => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(stored.as_slice()).ok()?;
                read_page(decoder, &mut page)
            }
            SNAPPY => {
                // The length stands at the beginning; a larger one is refused before it is used.
                let length = snap::raw::decompress_len(&stored).ok()?;
                let into = page.get_mut(..length)?;
                snap::raw::Decoder::new().decompress(&stored, into).ok()?
            }
            LZO => lzo::decompress(&stored, page.as_mut_slice())?,
            _ => 0,
        };
        (filled == PAGE).then_some(page)
    }
}

/// Fills a page from a stream; gives how many bytes there were.
fn read_page(mut stream: impl Read, page: &mut [u8; PAGE]) -> usize {
    let mut filled = 0;
    while let Some(rest) = page.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) | Err(_) => break,
            Ok(length) => filled += length,
        }
    }
    filled
}

fn count(bitmap: &[u8]) -> Vec<u64> {
    let mut sum = 0;
    let stretches = bitmap.chunks((COUNTED / 8) as usize);
    let before = stretches.map(|stretch| {
        let here: u64 = stretch.iter().map(|byte| u64::from(byte.count_ones())).sum();
        sum += here;
        sum - here
    });
    before.collect()
}

/// Copies bytes of the file; tells whether all of them are there.
fn fill(file: &impl FileBytes, offset: u64, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    let _ = file.pieces(offset, buffer.len() as u64, &mut |bytes| {
        if let Some(part) = buffer.get_mut(filled..filled + bytes.len()) {
            part.copy_from_slice(bytes);
            filled += bytes.len();
        }
        ControlFlow::Continue(())
    });
    filled == buffer.len()
}

fn copy(
    file: &impl FileBytes,
    offset: u64,
    length: usize,
    what: &'static str,
) -> Result<Vec<u8>, FormatError> {
    let cut = FormatError::Truncated { what, offset };
    if offset.checked_add(length as u64).is_none_or(|end| end > file.length()) {
        return Err(cut);
    }
    let mut bytes = vec![0; length];
    if fill(file, offset, &mut bytes) { Ok(bytes) } else { Err(cut) }
}

impl<F: FileBytes> PhysicalMemory for Kdump<F> {
    fn name(&self) -> &'static str {
        "kdump"
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for page in (0..self.pages).filter(|page| self.has(*page)) {
            let (start, end) = (page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (mut at, end) = (start, start.saturating_add(length));
        while at < end {
            let offset = (at % PAGE_SIZE) as usize;
            let part = (PAGE - offset).min((end - at) as usize);
            let mut page = [0; PAGE];
            // The visitor may read more, so what is kept is not borrowed meanwhile.
            let there = self.with_page(at / PAGE_SIZE, |bytes| page.copy_from_slice(bytes));
            let bytes = page.get(offset..offset + part).unwrap_or_default();
            let piece = match there {
                true => Piece::Bytes { address: at, bytes },
                false => Piece::Unreadable { address: at, length: part as u64 },
            };
            if visitor(piece).is_break() {
                break;
            }
            at += part as u64;
        }
        Ok(())
    }
}
