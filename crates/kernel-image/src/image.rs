// SPDX-License-Identifier: Apache-2.0
//! A kernel image, read once and asked many times.

use crate::elf::{Elf, START_KERNEL_MAP, Section};
use crate::error::{ImageError, ImageErrorKind, Place};
use crate::kallsyms::{self, Region};
use crate::little_endian::slice;
use crate::payload::{self, Compression};
use crate::relocations::{Relocation, Relocations};
use crate::symbols::Symbols;
use crate::tables::{Alternative, Source, Tables};

/// The kernel reserves this much above [`START_KERNEL_MAP`] for itself at most
/// (`KERNEL_IMAGE_SIZE` with KASLR, arch/x86/include/asm/page_64_types.h).
const KERNEL_IMAGE_SIZE: u64 = 1 << 30;

/// A decoded kernel. All addresses are as linked: a running kernel is at these plus its slide.
#[derive(Debug)]
pub struct KernelImage {
    elf: Vec<u8>,
    headers: Elf,
    compression: Compression,
    relocations: Relocations,
    symbols: Symbols,
    tables: Tables,
    banner: String,
}

impl KernelImage {
    /// Decodes a vmlinuz (bzImage) or an uncompressed vmlinux with kallsyms.
    ///
    /// Holds the decompressed kernel (some 60 MB) as long as it lives, and needs about twice as
    /// much while it decompresses.
    ///
    /// # Errors
    /// When the bytes are no x86-64 kernel, are damaged, or are of an unknown format. The error
    /// names the offset, what was expected there, and what to do.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let payload = payload::unpack(bytes)?;
        // Without a wrapping the two are the same, and "the file" is what the user knows.
        let place = match payload.compression {
            Compression::None if bytes.starts_with(b"\x7fELF") => Place::File,
            _ => Place::Elf,
        };
        Self::from_elf(payload.elf, payload.compression).map_err(|error| error.in_place(place))
    }

    fn from_elf(elf: Vec<u8>, compression: Compression) -> Result<Self, ImageError> {
        let headers = Elf::parse(&elf)?;
        let tail = slice(&elf, headers.end, (elf.len() as u64).saturating_sub(headers.end));
        let relocations = Relocations::parse(tail.unwrap_or_default(), headers.end)?;
        let end = START_KERNEL_MAP + KERNEL_IMAGE_SIZE;
        if let Some(address) = relocations.outside(START_KERNEL_MAP, end) {
            let problem = format!("relocations of kernel addresses expected, {address:#x} found");
            return Err(ImageError::malformed(headers.end, problem));
        }
        let symbols = symbols(&elf, &headers)?;
        let source = Source { elf: &elf, headers: &headers, symbols: &symbols };
        let banner = banner(&source)?;
        let tables = Tables::decode(&source)?;
        Ok(Self { elf, headers, compression, relocations, symbols, tables, banner })
    }

    /// The vmlinux ELF, with the relocation lists behind it.
    pub fn elf_bytes(&self) -> &[u8] {
        &self.elf
    }

    /// How the kernel was compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// What `uname -r` gives on this kernel.
    pub fn release(&self) -> &str {
        self.banner.strip_prefix(BANNER).and_then(|rest| rest.split(' ').next()).unwrap_or_default()
    }

    /// The text of /proc/version on this kernel, without the line's end.
    pub fn banner(&self) -> &str {
        self.banner.trim_end()
    }

    /// The GNU build id, which the running kernel shows in /sys/kernel/notes.
    pub fn build_id(&self) -> Option<&[u8]> {
        crate::module::build_id(self.section_bytes(".notes")?)
    }

    /// All sections, in the ELF's order.
    pub fn sections(&self) -> &[Section] {
        &self.headers.sections
    }

    /// The section with this name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.headers.section(name)
    }

    /// The bytes of a section; nothing if it has none in the file, as `.bss`.
    pub fn section_bytes(&self, name: &str) -> Option<&[u8]> {
        let section = self.headers.section(name).filter(|section| section.has_bytes())?;
        slice(&self.elf, section.offset, section.size)
    }

    /// `length` bytes at a virtual address as linked; nothing if they are not all in one loaded
    /// segment.
    pub fn bytes_at(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.source().bytes_at(address, length as u64)
    }

    /// Where the boot code changes the kernel by the slide of KASLR.
    pub fn relocations(&self) -> &Relocations {
        &self.relocations
    }

    /// `length` bytes at `address` as linked, changed as the boot code changes them when it moves
    /// the kernel up by `slide` bytes. Nothing where [`Self::bytes_at`] gives nothing.
    pub fn relocated(&self, address: u64, length: usize, slide: u64) -> Option<Vec<u8>> {
        let mut bytes = self.bytes_at(address, length)?.to_vec();
        let end = address.checked_add(length as u64)?;
        for (place, kind) in self.relocations.within(address, end) {
            let width = kind.width() as usize;
            // A value may begin before the range or end after it: change it whole, keep our part.
            let mut value = [0; 8];
            let value = value.get_mut(..width)?;
            value.copy_from_slice(self.bytes_at(place, width)?);
            relocate(value, kind, slide);
            for (index, byte) in value.iter().enumerate() {
                let into = (place + index as u64).checked_sub(address);
                let into = into.and_then(|into| usize::try_from(into).ok());
                if let Some(slot) = into.and_then(|into| bytes.get_mut(into)) {
                    *slot = *byte;
                }
            }
        }
        Some(bytes)
    }

    /// Moves the kernel up by `slide` bytes in place, as the boot code does.
    pub(crate) fn relocate(&mut self, slide: u64) {
        let relocations = std::mem::take(&mut self.relocations);
        for (place, kind) in relocations.within(0, u64::MAX) {
            if let Some(value) = self.bytes_at_mut(place, kind.width() as usize) {
                relocate(value, kind, slide);
            }
        }
        self.relocations = relocations;
    }

    /// As [`Self::bytes_at`], to be changed.
    pub(crate) fn bytes_at_mut(&mut self, address: u64, length: usize) -> Option<&mut [u8]> {
        let (offset, left) = self.headers.offset_of(address)?;
        let start = usize::try_from(offset).ok().filter(|_| length as u64 <= left)?;
        self.elf.get_mut(start..start.checked_add(length)?)
    }

    pub(crate) fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// The kernel's symbols, from its kallsyms.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The kernel's types in BTF, if it was built with them.
    pub fn btf_bytes(&self) -> Option<&[u8]> {
        self.section_bytes(".BTF")
    }

    /// The self-patching tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The bytes that an alternative puts in place, before their calls and jumps are adjusted.
    pub fn replacement(&self, alternative: &Alternative) -> Option<&[u8]> {
        self.bytes_at(alternative.replacement, usize::from(alternative.replacement_length))
    }

    fn source(&self) -> Source<'_> {
        Source { elf: &self.elf, headers: &self.headers, symbols: &self.symbols }
    }
}

/// How `linux_banner` starts (init/version-timestamp.c, in older kernels init/version.c).
const BANNER: &str = "Linux version ";

fn banner(source: &Source<'_>) -> Result<String, ImageError> {
    let Some(address) = source.symbols.address_of("linux_banner") else {
        let problem = "the symbol linux_banner expected in kallsyms, not found";
        return Err(ImageError::new(ImageErrorKind::NotAKernel, Place::Elf, 0, problem));
    };
    let (offset, left) = source.headers.offset_of(address).unwrap_or_default();
    let text = source.bytes_at(address, left.min(1024)).unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok(text) if text.starts_with(BANNER) => Ok(text.to_owned()),
        _ => {
            let problem = format!("\"{BANNER}\" expected, where linux_banner is by kallsyms");
            Err(ImageError::malformed(offset, problem))
        }
    }
}

fn symbols(elf: &[u8], headers: &Elf) -> Result<Symbols, ImageError> {
    let missing = |name: &str| {
        let problem = format!("an ELF without a section {name}, which every kernel has");
        ImageError::new(ImageErrorKind::NotAKernel, Place::Elf, 40, problem)
    };
    let text = headers.section(".text").ok_or_else(|| missing(".text"))?;
    let data = headers.section(".rodata").ok_or_else(|| missing(".rodata"))?;
    if text.address < START_KERNEL_MAP {
        let problem = format!(
            ".text at {START_KERNEL_MAP:#x} or above expected, at {:#x} found: a program, not a kernel",
            text.address
        );
        return Err(ImageError::new(ImageErrorKind::NotAKernel, Place::Elf, 40, problem));
    }
    let bytes = slice(elf, data.offset, data.size).filter(|_| data.has_bytes());
    kallsyms::decode(&Region {
        bytes: bytes.unwrap_or_default(),
        offset: data.offset,
        address: data.address,
        text: text.address..text.address.saturating_add(text.size),
    })
}

fn relocate(value: &mut [u8], kind: Relocation, slide: u64) {
    let apply = |old: u64| match kind {
        Relocation::Add32 | Relocation::Add64 => old.wrapping_add(slide),
        Relocation::Subtract32 => old.wrapping_sub(slide),
    };
    // Arithmetic modulo 2^32 is that modulo 2^64 with the upper half left away.
    let mut wide = [0; 8];
    for (slot, byte) in wide.iter_mut().zip(value.iter()) {
        *slot = *byte;
    }
    let new = apply(u64::from_le_bytes(wide)).to_le_bytes();
    for (slot, byte) in value.iter_mut().zip(new) {
        *slot = byte;
    }
}
