// SPDX-License-Identifier: Apache-2.0
//! The parts of a module's file.
//!
//! Layouts: Elf64_Ehdr, Elf64_Shdr, Elf64_Sym of include/uapi/linux/elf.h. The file is an ELF of
//! type ET_REL: it has sections and no segments, and no addresses.

use crate::elf;
use crate::error::{ImageError, ImageErrorKind};
use crate::little_endian::{slice, u8_at, u16_at, u32_at, u64_at};
use crate::module::notes;
use crate::module::unpack::unpack;
use crate::payload::Compression;

/// A section header.
const HEADER: u64 = 64;
/// A symbol.
const SYMBOL: u64 = 24;
/// Debian's modules have up to 150; one built with a section for each function some thousands.
const MOST_SECTIONS: u16 = 0xff00;

/// Types of sections (`sh_type`).
const SYMBOLS: u32 = 2;
pub(super) const RELOCATIONS: u32 = 4;
const NOTES: u32 = 7;
const NO_BYTES: u32 = 8;

/// Flags of sections (`sh_flags`).
const WRITABLE: u64 = 1;
const LOADED: u64 = 2;
const EXECUTABLE: u64 = 4;
/// `SHF_RELA_LIVEPATCH`, include/uapi/linux/elf.h.
const LIVEPATCH: u64 = 0x0010_0000;

/// A section of a module's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSection {
    /// The name. Several sections may have the same.
    pub name: String,
    /// Where its bytes are in the ELF.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// What its address must be a multiple of.
    pub alignment: u64,
    pub(super) kind: u32,
    pub(super) link: u32,
    pub(super) info: u32,
    flags: u64,
}

impl ModuleSection {
    /// Whether the loader puts it into the module's memory. These it leaves out although their flags
    /// ask for it: `.modinfo` and `__versions` (rewrite_section_headers), and per-CPU data, which
    /// has memory of its own (layout_and_allocate, kernel/module/main.c).
    pub fn is_loaded(&self) -> bool {
        let left_out = [".modinfo", "__versions", ".data..percpu"];
        self.flags & LOADED != 0 && !left_out.contains(&self.name.as_str())
    }

    /// Whether it is code.
    pub fn is_executable(&self) -> bool {
        self.flags & EXECUTABLE != 0
    }

    /// Whether the module may write to it.
    pub fn is_writable(&self) -> bool {
        self.flags & WRITABLE != 0
    }

    /// Whether its memory is given back when the module has started (`module_init_section`).
    pub fn is_init(&self) -> bool {
        self.name.starts_with(".init")
    }

    /// Whether the file has bytes for it.
    pub fn has_bytes(&self) -> bool {
        self.kind != NO_BYTES
    }

    pub(super) fn is_for_livepatch(&self) -> bool {
        self.flags & LIVEPATCH != 0
    }

    pub(super) fn kind(&self) -> u32 {
        self.kind
    }
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In another module or in the kernel.
    Elsewhere,
    /// In this section, at its value.
    Section(u16),
    /// Its value is no address.
    Absolute,
    /// Nowhere that the loader resolves: those of livepatches, common symbols.
    Unresolved,
}

/// A symbol of a module's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleSymbol<'a> {
    /// The name; empty for those that stand for a section.
    pub name: &'a str,
    /// Where it is.
    pub place: Place,
    /// Bytes from the start of its section, or the value of an absolute one.
    pub value: u64,
    /// Whether the module can be loaded without it.
    pub weak: bool,
    /// Whether it is visible outside of the module.
    pub global: bool,
    /// Whether it is a function.
    pub function: bool,
}

/// A module's file, taken apart.
#[derive(Debug)]
pub struct ModuleFile {
    pub(super) elf: Vec<u8>,
    pub(super) sections: Vec<ModuleSection>,
    compression: Compression,
    signed: bool,
    symbols: Option<SymbolTable>,
}

#[derive(Clone, Copy, Debug)]
struct SymbolTable {
    section: u32,
    offset: u64,
    count: u64,
    names: (u64, u64),
}

impl ModuleFile {
    /// Takes a `.ko` apart, compressed or not, signed or not.
    ///
    /// # Errors
    /// When the bytes are no x86-64 module or are damaged. The error names the offset.
    pub fn parse(file: &[u8]) -> Result<Self, ImageError> {
        let unpacked = unpack(file)?;
        Self::from_elf(unpacked.elf, unpacked.compression, unpacked.signed)
            .map_err(|error| error.in_place(crate::error::Place::Module))
    }

    fn from_elf(elf: Vec<u8>, compression: Compression, signed: bool) -> Result<Self, ImageError> {
        elf::check_is_module(&elf)?;
        let sections = sections(&elf)?;
        let symbols = symbol_table(&elf, &sections)?;
        Ok(Self { elf, sections, compression, signed, symbols })
    }

    /// The ELF, without its compression and its signature.
    pub fn elf_bytes(&self) -> &[u8] {
        &self.elf
    }

    /// How the file was compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Whether a signature is appended. It is not verified here: the kernel did that, if it was told
    /// to, when it loaded the module.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// All sections, by their numbers.
    pub fn sections(&self) -> &[ModuleSection] {
        &self.sections
    }

    /// The bytes of the first section with this name; nothing if it has none in the file.
    pub fn section_bytes(&self, name: &str) -> Option<&[u8]> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        self.bytes_of(section)
    }

    pub(super) fn bytes_of(&self, section: &ModuleSection) -> Option<&[u8]> {
        section.has_bytes().then(|| slice(&self.elf, section.offset, section.size)).flatten()
    }

    /// The values of `key` in `.modinfo`: texts `key=value`, each ended by a NUL.
    pub fn information<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.section_bytes(".modinfo").unwrap_or_default().split(|byte| *byte == 0);
        all.filter_map(|entry| std::str::from_utf8(entry).ok())
            .filter_map(move |entry| entry.strip_prefix(key)?.strip_prefix('='))
    }

    /// The module's name. Empty if it has none, as before 4.13.
    pub fn name(&self) -> &str {
        self.information("name").next().unwrap_or_default()
    }

    /// The kernel that it was made for, and how that was configured.
    pub fn version_magic(&self) -> &str {
        self.information("vermagic").next().unwrap_or_default()
    }

    /// The modules whose symbols it uses.
    pub fn depends(&self) -> impl Iterator<Item = &str> {
        let list = self.information("depends").flat_map(|list| list.split(','));
        list.filter(|name| !name.is_empty())
    }

    /// Whether it changes the kernel by livepatch. The relocations of such changes
    /// (`.klp.rela.*`) are made when the object that they change is loaded, and not looked at here.
    pub fn is_livepatch(&self) -> bool {
        self.information("livepatch").next().is_some()
            || self.sections.iter().any(ModuleSection::is_for_livepatch)
    }

    /// The GNU build id.
    pub fn build_id(&self) -> Option<&[u8]> {
        let notes = self.sections.iter().filter(|section| section.kind == NOTES);
        notes.filter_map(|section| self.bytes_of(section)).find_map(notes::build_id)
    }

    /// How many symbols there are, with the null symbol that each ELF begins with.
    pub fn symbol_count(&self) -> u64 {
        self.symbols.map_or(0, |table| table.count)
    }

    /// The symbol with this number.
    pub fn symbol(&self, index: u64) -> Option<ModuleSymbol<'_>> {
        let table = self.symbols.filter(|table| index < table.count)?;
        let entry = slice(&self.elf, table.offset + index * SYMBOL, SYMBOL)?;
        let names = slice(&self.elf, table.names.0, table.names.1)?;
        let info = u8_at(entry, 4)?;
        Some(ModuleSymbol {
            name: text(names, u32_at(entry, 0)?)?,
            place: match u16_at(entry, 6)? {
                0 => Place::Elsewhere,
                0xfff1 => Place::Absolute,
                section if usize::from(section) < self.sections.len() => Place::Section(section),
                _ => Place::Unresolved,
            },
            value: u64_at(entry, 8)?,
            weak: info >> 4 == 2,
            global: info >> 4 != 0,
            function: info & 0xf == 2,
        })
    }

    /// All symbols, in the file's order.
    pub fn symbols(&self) -> impl Iterator<Item = ModuleSymbol<'_>> {
        (0..self.symbol_count()).filter_map(|index| self.symbol(index))
    }

    /// The number of the section that holds the symbols, which relocations refer to.
    pub(super) fn symbol_section(&self) -> Option<u32> {
        self.symbols.map(|table| table.section)
    }
}

fn sections(elf: &[u8]) -> Result<Vec<ModuleSection>, ImageError> {
    let truncated = || ImageError::truncated(0, "an ELF header");
    let at = u64_at(elf, 40).ok_or_else(truncated)?;
    let size = u16_at(elf, 58).ok_or_else(truncated)?;
    let count = u16_at(elf, 60).ok_or_else(truncated)?;
    let names = u16_at(elf, 62).ok_or_else(truncated)?;
    if count == 0 || count > MOST_SECTIONS {
        let problem = format!("1 to {MOST_SECTIONS} sections expected, {count} found");
        return Err(ImageError::malformed(60, problem));
    }
    if u64::from(size) != HEADER {
        let problem = format!("section headers of {HEADER} bytes expected, of {size} found");
        return Err(ImageError::malformed(58, problem));
    }
    let length = u64::from(count) * HEADER;
    let headers = slice(elf, at, length)
        .ok_or_else(|| ImageError::truncated(at, format!("{length} bytes of section headers")))?;
    let strings = slice(headers, u64::from(names) * HEADER, HEADER).and_then(|header| {
        Some((u64_at(header, 24)?, slice(elf, u64_at(header, 24)?, u64_at(header, 32)?)?))
    });
    let Some((_, strings)) = strings else {
        let problem = format!("section {names} should have the sections' names, and has not");
        return Err(ImageError::malformed(62, problem));
    };
    let each = headers.chunks_exact(HEADER as usize).zip((at..).step_by(HEADER as usize));
    each.map(|(header, at)| section(elf, at, header, strings)).collect()
}

fn section(elf: &[u8], at: u64, header: &[u8], names: &[u8]) -> Result<ModuleSection, ImageError> {
    let truncated = || ImageError::truncated(at, "a section header");
    let word = |offset| u32_at(header, offset).ok_or_else(truncated);
    let field = |offset| u64_at(header, offset).ok_or_else(truncated);
    let name = text(names, word(0)?).ok_or_else(|| {
        ImageError::malformed(at, "the section's name is not in the table of section names")
    })?;
    let section = ModuleSection {
        name: name.to_owned(),
        kind: word(4)?,
        flags: field(8)?,
        offset: field(24)?,
        size: field(32)?,
        link: word(40)?,
        info: word(44)?,
        alignment: field(48)?.max(1),
    };
    // The header with number 0 describes nothing.
    if section.kind == 0 {
        return Ok(ModuleSection { size: 0, flags: 0, ..section });
    }
    if section.has_bytes() && slice(elf, section.offset, section.size).is_none() {
        let ModuleSection { name, offset, size, .. } = &section;
        let what = format!("section {name} of {size} bytes (header at {at:#x})");
        return Err(ImageError::truncated(*offset, what));
    }
    // Memory is taken for what has no bytes in the file, so it may not ask for any size.
    if section.is_loaded() && section.size > MOST_MEMORY {
        let problem = format!("section {} of {} bytes is too large", section.name, section.size);
        return Err(ImageError::new(
            ImageErrorKind::TooLarge,
            crate::error::Place::Module,
            at,
            problem,
        ));
    }
    if !section.alignment.is_power_of_two() || section.alignment > MOST_ALIGNMENT {
        let problem = format!("section {} is aligned to {}", section.name, section.alignment);
        return Err(ImageError::malformed(at, problem));
    }
    Ok(section)
}

/// The loader takes modules of any size; the area for them has 1.5 GiB.
const MOST_MEMORY: u64 = 256 << 20;
const MOST_ALIGNMENT: u64 = 1 << 21;

fn symbol_table(elf: &[u8], sections: &[ModuleSection]) -> Result<Option<SymbolTable>, ImageError> {
    let mut tables = sections.iter().zip(0..).filter(|(section, _)| section.kind == SYMBOLS);
    let Some((section, index)) = tables.next() else { return Ok(None) };
    if tables.next().is_some() {
        return Err(ImageError::malformed(section.offset, "a second symbol table"));
    }
    let names = sections.get(section.link as usize).filter(|names| names.has_bytes());
    let Some(names) = names else {
        let problem = format!("the symbols' names should be in section {}", section.link);
        return Err(ImageError::malformed(section.offset, problem));
    };
    let table = SymbolTable {
        section: index,
        offset: section.offset,
        count: section.size / SYMBOL,
        names: (names.offset, names.size),
    };
    let strings = slice(elf, names.offset, names.size).unwrap_or_default();
    for at in 0..table.count {
        let offset = section.offset + at * SYMBOL;
        let name = u32_at(elf, offset).unwrap_or(u32::MAX);
        if text(strings, name).is_none() {
            let problem = format!("the name of symbol {at} is not in the table of names");
            return Err(ImageError::malformed(offset, problem));
        }
    }
    Ok(Some(table))
}

/// The text at an offset in a table of names. Names of Rust functions have some hundred bytes.
fn text(names: &[u8], offset: u32) -> Option<&str> {
    let rest = names.get(usize::try_from(offset).ok()?..)?;
    let rest = rest.get(..rest.len().min(4096))?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}
