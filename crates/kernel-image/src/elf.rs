// SPDX-License-Identifier: Apache-2.0
//! The vmlinux ELF: sections, segments, and where it ends.
//!
//! Read by hand and not through a library, so that an error can say which header at which offset
//! is wrong. Layouts: Elf64_Ehdr, Elf64_Shdr, Elf64_Phdr of include/uapi/linux/elf.h.

use crate::error::{ImageError, ImageErrorKind, Place};
use crate::little_endian::{slice, u8_at, u16_at, u32_at, u64_at};

/// Where kernel text is mapped: `__START_KERNEL_map`, arch/x86/include/asm/page_64_types.h.
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// A kernel has some fifty sections; a debug build some seventy.
const MOST_SECTIONS: u16 = 4096;
const MOST_SEGMENTS: u16 = 64;

const SECTION_HEADER: u64 = 64;
const SEGMENT_HEADER: u64 = 56;

/// A section of the kernel's ELF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name, such as `.text`.
    pub name: String,
    /// Virtual address as linked. Zero for the per-CPU section up to 6.14, and for sections that
    /// are not loaded.
    pub address: u64,
    /// Where its bytes are in the ELF.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    kind: u32,
    flags: u64,
}

impl Section {
    /// A section of a module, which gets its address when it is loaded. `offset` counts in the bytes
    /// that the loader made.
    pub(crate) fn of_module(name: &str, address: u64, offset: u64, size: u64, code: bool) -> Self {
        let flags = if code { 6 } else { 2 };
        Self { name: name.to_owned(), address, offset, size, kind: 1, flags }
    }

    /// Whether it is part of the kernel in memory (`SHF_ALLOC`).
    pub fn is_loaded(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Whether it holds code (`SHF_EXECINSTR`). In 6.18 and 7.3 that is also true of `.data`, which the
    /// linker marks so because of relocate_kernel.
    pub fn is_executable(&self) -> bool {
        self.flags & 4 != 0
    }

    /// Whether the ELF has bytes for it (not `SHT_NOBITS`).
    pub fn has_bytes(&self) -> bool {
        self.kind != 8
    }

    /// Whether `length` bytes from `address` lie within it in memory.
    pub fn contains(&self, address: u64, length: u64) -> bool {
        self.is_loaded()
            && address
                .checked_sub(self.address)
                .and_then(|start| start.checked_add(length))
                .is_some_and(|end| end <= self.size)
    }
}

/// A part of the ELF that the boot code loads (`PT_LOAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Virtual address by which the linker knows it.
    pub(crate) address: u64,
    /// Virtual address at which it is loaded: differs for the zero-based per-CPU segment only.
    pub(crate) load_address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// The headers of a vmlinux.
#[derive(Clone, Debug, Default)]
pub(crate) struct Elf {
    pub(crate) sections: Vec<Section>,
    pub(crate) segments: Vec<Segment>,
    /// Where the ELF ends; what follows are the relocation lists.
    pub(crate) end: u64,
}

impl Elf {
    /// Reads the headers of `elf`, all of which must lie within it.
    pub(crate) fn parse(elf: &[u8]) -> Result<Self, ImageError> {
        if !elf.starts_with(b"\x7fELF") {
            let found = elf.get(..4).unwrap_or(elf);
            let problem = format!("the ELF mark expected, {found:02x?} found");
            return Err(ImageError::malformed(0, problem));
        }
        check_machine(elf)?;
        let header = |offset| {
            u64_at(elf, offset).ok_or_else(|| ImageError::truncated(offset, "an ELF header"))
        };
        let short = |offset| {
            u16_at(elf, offset).ok_or_else(|| ImageError::truncated(offset, "an ELF header"))
        };
        let (segments_at, sections_at) = (header(32)?, header(40)?);
        let (segment_size, segments) = (short(54)?, short(56)?);
        let (section_size, sections, names) = (short(58)?, short(60)?, short(62)?);
        count(segments, MOST_SEGMENTS, segment_size, SEGMENT_HEADER, 56, "segment")?;
        count(sections, MOST_SECTIONS, section_size, SECTION_HEADER, 60, "section")?;

        let mut parsed = Self { end: 64, ..Self::default() };
        let table =
            table(elf, segments_at, u64::from(segments) * SEGMENT_HEADER, "the segment headers")?;
        parsed.reach(segments_at, table);
        for (index, bytes) in table.chunks_exact(SEGMENT_HEADER as usize).enumerate() {
            let at = segments_at + index as u64 * SEGMENT_HEADER;
            if u32_at(bytes, 0) == Some(1) {
                parsed.segments.push(segment(elf, at, bytes)?);
            }
        }
        let ends: Vec<u64> =
            parsed.segments.iter().map(|segment| segment.offset + segment.size).collect();
        parsed.end = ends.into_iter().fold(parsed.end, u64::max);
        parsed.read_sections(elf, sections_at, sections, names)?;
        if parsed.segments.is_empty() {
            return Err(ImageError::new(
                ImageErrorKind::NotAKernel,
                Place::Elf,
                segments_at,
                "an ELF without a loadable segment",
            ));
        }
        Ok(parsed)
    }

    fn reach(&mut self, offset: u64, bytes: &[u8]) {
        self.end = self.end.max(offset + bytes.len() as u64);
    }

    fn read_sections(
        &mut self,
        elf: &[u8],
        at: u64,
        count: u16,
        names: u16,
    ) -> Result<(), ImageError> {
        let headers = table(elf, at, u64::from(count) * SECTION_HEADER, "the section headers")?;
        self.reach(at, headers);
        let names_header = u64::from(names) * SECTION_HEADER;
        let strings = match slice(headers, names_header, SECTION_HEADER) {
            Some(header) => {
                let offset = u64_at(header, 24).unwrap_or_default();
                let size = u64_at(header, 32).unwrap_or_default();
                table(elf, offset, size, "the section names")?
            }
            None if count == 0 => &[],
            None => {
                let problem =
                    format!("section {names} has the names, but there are {count} sections");
                return Err(ImageError::malformed(62, problem));
            }
        };
        for (index, bytes) in headers.chunks_exact(SECTION_HEADER as usize).enumerate() {
            let section = section(elf, at + index as u64 * SECTION_HEADER, bytes, strings)?;
            if section.has_bytes() {
                self.end = self.end.max(section.offset + section.size);
            }
            self.sections.push(section);
        }
        Ok(())
    }

    /// The section with this name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Where in the ELF the byte at a virtual address is, and how many follow in one piece. The
    /// per-CPU segment is found at its own addresses and at those where it is loaded.
    pub(crate) fn offset_of(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().find_map(|segment| {
            [segment.load_address, segment.address].into_iter().find_map(|start| {
                let into = address.checked_sub(start)?;
                let left = segment.size.checked_sub(into).filter(|left| *left > 0)?;
                Some((segment.offset + into, left))
            })
        })
    }
}

fn count(
    count: u16,
    most: u16,
    size: u16,
    expected: u64,
    at: u64,
    what: &str,
) -> Result<(), ImageError> {
    if count > most {
        let problem = format!("{count} {what}s, more than the {most} that are allowed");
        return Err(ImageError::new(ImageErrorKind::TooLarge, Place::Elf, at, problem));
    }
    if count > 0 && u64::from(size) != expected {
        let problem = format!("{what} headers of {expected} bytes expected, of {size} found");
        return Err(ImageError::malformed(at - 2, problem));
    }
    Ok(())
}

fn table<'a>(elf: &'a [u8], offset: u64, size: u64, what: &str) -> Result<&'a [u8], ImageError> {
    slice(elf, offset, size)
        .ok_or_else(|| ImageError::truncated(offset, format!("{size} bytes of {what}")))
}

fn segment(elf: &[u8], at: u64, header: &[u8]) -> Result<Segment, ImageError> {
    let field = |offset| {
        u64_at(header, offset).ok_or_else(|| ImageError::truncated(at, "a segment header"))
    };
    let (offset, address, physical, size) = (field(8)?, field(16)?, field(24)?, field(32)?);
    if slice(elf, offset, size).is_none() {
        return Err(ImageError::truncated(
            offset,
            format!("a segment of {size} bytes (header at {at:#x})"),
        ));
    }
    let load_address = physical.wrapping_add(START_KERNEL_MAP);
    if address.checked_add(size).is_none() || load_address.checked_add(size).is_none() {
        let problem =
            format!("a segment of {size} bytes at {address:#x} goes beyond the address space");
        return Err(ImageError::malformed(at, problem));
    }
    Ok(Segment { address, load_address, offset, size })
}

fn section(elf: &[u8], at: u64, header: &[u8], strings: &[u8]) -> Result<Section, ImageError> {
    let field = |offset| {
        u64_at(header, offset).ok_or_else(|| ImageError::truncated(at, "a section header"))
    };
    let word = |offset| {
        u32_at(header, offset).ok_or_else(|| ImageError::truncated(at, "a section header"))
    };
    let name = name(strings, word(0)?).ok_or_else(|| {
        let problem = "the section's name is not in the table of section names";
        ImageError::malformed(at, problem)
    })?;
    let (flags, address, offset, size) = (field(8)?, field(16)?, field(24)?, field(32)?);
    let section = Section { name, address, offset, size, kind: word(4)?, flags };
    if section.kind != 0 && section.has_bytes() && slice(elf, offset, size).is_none() {
        let what = format!("section {} of {size} bytes (header at {at:#x})", section.name);
        return Err(ImageError::truncated(offset, what));
    }
    if address.checked_add(size).is_none() {
        let problem = format!(
            "section {} of {size} bytes at {address:#x} goes beyond the address space",
            section.name
        );
        return Err(ImageError::malformed(at, problem));
    }
    // A header of type NULL describes nothing, whatever its other fields say.
    if section.kind == 0 {
        return Ok(Section { address: 0, offset: 0, size: 0, ..section });
    }
    Ok(section)
}

fn name(strings: &[u8], offset: u32) -> Option<String> {
    let text = strings.get(usize::try_from(offset).ok()?..)?;
    let text = text.get(..text.len().min(256))?;
    let end = text.iter().position(|byte| *byte == 0)?;
    String::from_utf8(text.get(..end)?.to_vec()).ok()
}

/// Whether the ELF header says x86-64 executable; the error names what it says instead.
pub(crate) fn check_machine(elf: &[u8]) -> Result<(), ImageError> {
    let kind = check_class(elf)?;
    let what = match kind {
        2 => return Ok(()),
        1 => "an object file, such as a kernel module",
        3 => "a program or a shared library",
        4 => "a memory dump",
        _ => "no program",
    };
    let problem = format!("ELF type {kind}, {what}, where 2, a kernel's executable, is expected");
    Err(ImageError::new(ImageErrorKind::NotAKernel, Place::Elf, 16, problem))
}

/// Whether the ELF header says x86-64 object file, as that of each module does.
pub(crate) fn check_is_module(elf: &[u8]) -> Result<(), ImageError> {
    match check_class(elf)? {
        1 => Ok(()),
        kind => {
            let problem = format!("ELF type {kind} where 1, an object file, is expected");
            Err(ImageError::new(ImageErrorKind::NotAKernel, Place::Elf, 16, problem))
        }
    }
}

/// The ELF's type, if it is for x86-64.
fn check_class(elf: &[u8]) -> Result<u16, ImageError> {
    let class = u8_at(elf, 4).unwrap_or_default();
    let machine = u16_at(elf, 18).ok_or_else(|| ImageError::truncated(0, "an ELF header"))?;
    let kind = u16_at(elf, 16).unwrap_or_default();
    let found = |kind, offset, problem: String| ImageError::new(kind, Place::Elf, offset, problem);
    if machine != 62 {
        let name = match machine {
            3 => "32-bit x86",
            40 => "32-bit ARM",
            183 => "64-bit ARM",
            21 => "64-bit PowerPC",
            22 => "S/390",
            243 => "RISC-V",
            258 => "LoongArch",
            _ => "another machine",
        };
        let problem = format!("ELF machine {machine}, {name}, where 62, x86-64, is expected");
        return Err(found(ImageErrorKind::WrongArchitecture, 18, problem));
    }
    if class != 2 || u8_at(elf, 5) != Some(1) {
        let problem = format!("ELF class {class} where 2, 64-bit little-endian, is expected");
        return Err(found(ImageErrorKind::WrongArchitecture, 4, problem));
    }
    Ok(kind)
}
