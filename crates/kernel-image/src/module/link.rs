// SPDX-License-Identifier: Apache-2.0
//! A module at the addresses at which a running kernel has it.
//!
//! What `simplify_symbols` and `apply_relocations` (kernel/module/main.c) and `apply_relocate_add`
//! (arch/x86/kernel/module.c) do, the same in 6.1 to 7.3. Writable data is left out, as it changes.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::elf::{Elf, Section, Segment};
use crate::error::{ImageError, ImageErrorKind, Place as ErrorPlace};
use crate::little_endian::u64_at;
use crate::module::file::{ModuleFile, ModuleSection, Place, RELOCATIONS};
use crate::module::sorted;
use crate::patching::{Code, Entries, Machine};
use crate::symbols::Symbols;
use crate::tables::{Source, Tables};

/// A relocation: Elf64_Rela.
const RELOCATION: usize = 24;

/// Sections that are writable at first, and tables of places to patch.
const TABLES: [&str; 2] = ["__jump_table", ".static_call_sites"];

/// Why a module cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The file is not as it should be.
    #[error(transparent)]
    File(#[from] ImageError),
    /// A symbol that the module needs is nowhere.
    #[error(
        "its symbol {0} is in no section with an address, nor exported by the kernel or a module"
    )]
    Symbol(String),
}

/// What a module is put together with.
pub struct Surroundings<'a> {
    /// The address of each section, by its number; of those that the loader leaves out none.
    pub addresses: &'a [Option<u64>],
    /// What the kernel gave to the module for `.data..percpu`.
    pub per_cpu: Option<u64>,
    /// The addresses of what the kernel and other modules export.
    pub exports: &'a dyn Fn(&str) -> Option<u64>,
}

/// A section at its address.
#[derive(Clone, Copy, Debug)]
pub struct LinkedSection<'a> {
    /// What the file says of it.
    pub section: &'a ModuleSection,
    /// Where it is.
    pub address: u64,
    /// What it holds, before the kernel patches it.
    pub bytes: &'a [u8],
}

/// A module at its addresses.
#[derive(Debug)]
pub struct Linked<'f> {
    file: &'f ModuleFile,
    /// The bytes of all sections in `placed`, one after the other.
    bytes: Vec<u8>,
    placed: Vec<Placement>,
    /// The values of the symbols, by their numbers.
    values: Vec<Option<u64>>,
    tables: Tables,
}

/// Where a section is in memory and in [`Linked::bytes`].
#[derive(Clone, Debug)]
struct Placement {
    index: usize,
    address: u64,
    range: Range<usize>,
}

impl<'f> Linked<'f> {
    /// Puts the module together.
    ///
    /// # Errors
    /// When a symbol is not known, the file asks for what the loader would refuse, or a table does
    /// not lead to the instructions that it is for.
    pub fn new(file: &'f ModuleFile, surroundings: &Surroundings<'_>) -> Result<Self, LinkError> {
        let placed = placements(file, surroundings.addresses)?;
        let size = placed.last().map_or(0, |last| last.range.end);
        let (bytes, values, tables) = (vec![0; size], Vec::new(), Tables::default());
        let mut linked = Self { file, bytes, placed, values, tables };
        for Placement { index, range, .. } in &linked.placed {
            let section = file.sections.get(*index).and_then(|section| file.bytes_of(section));
            if let (Some(from), Some(to)) = (section, linked.bytes.get_mut(range.clone())) {
                to.copy_from_slice(from);
            }
        }
        let values = Values::of(file, surroundings);
        for section in file.sections.iter().filter(|one| one.kind() == RELOCATIONS) {
            linked.relocate(section, &values)?;
        }
        linked.sort();
        linked.tables = linked.decode(&values, surroundings)?;
        linked.values = values.values;
        Ok(linked)
    }

    /// Its self-patching tables, with addresses as running.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The sections of code and read-only data, and of tables.
    pub fn sections(&self) -> impl Iterator<Item = LinkedSection<'_>> {
        self.placed.iter().filter_map(|placement| {
            Some(LinkedSection {
                section: self.file.sections.get(placement.index)?,
                address: placement.address,
                bytes: self.bytes.get(placement.range.clone())?,
            })
        })
    }

    /// The addresses of the module's own symbols whose names begin so, by what follows in the names.
    pub fn addresses_of<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s str, u64)> {
        self.file.symbols().zip(&self.values).filter_map(move |(symbol, value)| {
            let here = matches!(symbol.place, Place::Section(_));
            Some((symbol.name.strip_prefix(prefix)?, (*value).filter(|_| here)?))
        })
    }

    /// `length` bytes at an address, if one section holds all of them.
    pub fn bytes_at(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.sections().find_map(|section| {
            let into = usize::try_from(address.checked_sub(section.address)?).ok()?;
            section.bytes.get(into..into.checked_add(length)?)
        })
    }

    /// Where the pointers stand that direct calls of the module are made from when it is patched.
    pub fn pointer_slots(&self, machine: &Machine) -> BTreeSet<u64> {
        let direct = self.tables.alternatives.iter().filter(|entry| entry.direct_call);
        let direct = direct.filter_map(|entry| {
            let [0xff, 0x15, distance @ ..] = self.bytes_at(entry.address, 6)? else { return None };
            let distance = i32::from_le_bytes(distance.try_into().ok()?);
            Some(entry.address.wrapping_add(6).wrapping_add_signed(i64::from(distance)))
        });
        let operations = self.tables.paravirt.iter().map(|site| u64::from(site.operation));
        direct.chain(operations.map(|operation| machine.pv_ops + 8 * operation)).collect()
    }

    /// What `module_finalize` patches.
    pub fn entries(&self) -> Entries {
        let Tables { paravirt, retpolines, returns, alternatives, .. } = &self.tables;
        Entries {
            paravirt: paravirt.clone(),
            retpolines: retpolines.iter().map(|site| site.address).collect(),
            returns: returns.clone(),
            alternatives: alternatives.clone(),
            calls: self.tables.calls.clone(),
            seals: self.tables.endbr_seals.clone(),
            smp_locks: self.tables.smp_locks.clone(),
        }
    }

    /// All bytes from `start` on, as the loader leaves them: it clears the memory first, so what is
    /// between sections is zero.
    pub fn fill(&self, start: u64, memory: &mut [u8]) {
        for section in self.sections() {
            let Some(into) = section.address.checked_sub(start) else { continue };
            let into = usize::try_from(into).unwrap_or(usize::MAX);
            let end = into.saturating_add(section.bytes.len());
            if let Some(target) = memory.get_mut(into..end) {
                target.copy_from_slice(section.bytes);
            }
        }
    }

    fn relocate(&mut self, list: &ModuleSection, values: &Values<'_>) -> Result<(), LinkError> {
        let target = list.info as usize;
        let Some(placement) = self.placed.iter().find(|placed| placed.index == target) else {
            return Ok(());
        };
        if list.is_for_livepatch() {
            return Ok(());
        }
        if self.file.symbol_section() != Some(list.link) {
            let problem = format!("the relocations of {} have no symbols", list.name);
            return Err(malformed(list.offset, problem).into());
        }
        let section = self.bytes.get_mut(placement.range.clone()).unwrap_or_default();
        let entries = self.file.bytes_of(list).unwrap_or_default().chunks_exact(RELOCATION);
        for (entry, at) in entries.zip((list.offset..).step_by(RELOCATION)) {
            let field = |offset| u64_at(entry, offset).unwrap_or_default();
            let (offset, info, addend) = (field(0), field(8), field(16));
            let kind = info as u32;
            let width = match kind {
                NONE => continue,
                ABSOLUTE_64 | RELATIVE_64 => 8,
                ABSOLUTE_32 | SIGNED_32 | RELATIVE_32 | CALL_32 => 4,
                _ => return Err(malformed(at, format!("relocation of unknown type {kind}")).into()),
            };
            let place = placement.address.wrapping_add(offset);
            let value = values.of_symbol(info >> 32, at)?.wrapping_add(addend);
            let value = match kind {
                RELATIVE_64 | RELATIVE_32 | CALL_32 => value.wrapping_sub(place),
                _ => value,
            };
            let fits = match kind {
                ABSOLUTE_32 => u32::try_from(value).is_ok(),
                SIGNED_32 => i32::try_from(value.cast_signed()).is_ok(),
                _ => true,
            };
            if !fits {
                let problem =
                    format!("the value {value:#x} does not fit a relocation of type {kind}");
                return Err(malformed(at, problem).into());
            }
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let slot = section.get_mut(start..start.saturating_add(width));
            let bytes = value.to_le_bytes();
            match (slot, bytes.get(..width)) {
                (Some(slot), Some(bytes)) if slot.iter().all(|byte| *byte == 0) => {
                    slot.copy_from_slice(bytes);
                }
                (Some(_), _) => {
                    let problem = format!("the relocation of offset {offset:#x} would overwrite");
                    return Err(malformed(at, problem).into());
                }
                (None, _) => {
                    let problem = format!("offset {offset:#x} to relocate is not in its section");
                    return Err(malformed(at, problem).into());
                }
            }
        }
        Ok(())
    }

    /// Where the first section with this name is.
    fn named(&self, name: &str) -> Option<Placement> {
        let found = |placed: &&Placement| {
            self.file.sections.get(placed.index).is_some_and(|section| section.name == name)
        };
        self.placed.iter().find(found).cloned()
    }

    fn sort(&mut self) {
        if let Some(Placement { range, .. }) = self.named("__mcount_loc") {
            sorted::addresses(self.bytes.get_mut(range).unwrap_or_default());
        }
        if let Some(Placement { range, address, .. }) = self.named("__ex_table") {
            sorted::exceptions(self.bytes.get_mut(range).unwrap_or_default(), address);
        }
        if let (Some(places), Some(entries)) =
            (self.named(".orc_unwind_ip"), self.named(".orc_unwind"))
        {
            let mut order = self.bytes.get(places.range.clone()).unwrap_or_default().to_vec();
            let target = self.bytes.get_mut(entries.range).unwrap_or_default();
            sorted::unwinding(&mut order, places.address, target);
            if let Some(target) = self.bytes.get_mut(places.range) {
                target.copy_from_slice(&order);
            }
        }
    }

    /// Decodes the tables as those of a kernel: the sections have the same names and layouts.
    fn decode(
        &self,
        values: &Values<'_>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Tables, LinkError> {
        let mut headers = Elf::default();
        for (placement, one) in self.placed.iter().zip(self.sections()) {
            let (address, offset) = (one.address, placement.range.start as u64);
            let size = one.bytes.len() as u64;
            let code = one.section.is_executable();
            headers.segments.push(Segment { address, load_address: address, offset, size });
            let name = one.section.name.as_str();
            headers.sections.push(Section::of_module(name, address, offset, size, code));
        }
        let fentry = (surroundings.exports)("__fentry__").map(|at| (at, b'T', "__fentry__"));
        let trampolines = (0..).zip(self.file.symbols()).filter_map(|(index, symbol)| {
            let trampoline = symbol.name.starts_with("__SCT__");
            let here = trampoline && matches!(symbol.place, Place::Section(_));
            Some((values.known(index).filter(|_| here)?, b'T', symbol.name))
        });
        let symbols: Symbols = trampolines.chain(fentry).collect();
        let source = Source { elf: &self.bytes, headers: &headers, symbols: &symbols };
        Ok(Tables::decode(&source).map_err(|error| error.in_place(ErrorPlace::Module))?)
    }
}

impl Code for Linked<'_> {
    fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.bytes_at(address, length)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let found = self.placed.iter().find_map(|placed| {
            let into = usize::try_from(address.checked_sub(placed.address)?).ok()?;
            let start = placed.range.start.checked_add(into)?;
            let end = start.checked_add(bytes.len())?;
            (end <= placed.range.end).then_some(start..end)
        });
        let slot = found.and_then(|range| self.bytes.get_mut(range));
        slot.map(|slot| slot.copy_from_slice(bytes)).is_some()
    }
}

/// Types of relocations that the loader knows (arch/x86/include/asm/elf.h).
const NONE: u32 = 0;
const ABSOLUTE_64: u32 = 1;
const RELATIVE_32: u32 = 2;
const CALL_32: u32 = 4;
const ABSOLUTE_32: u32 = 10;
const SIGNED_32: u32 = 11;
const RELATIVE_64: u32 = 24;

fn malformed(offset: u64, problem: String) -> ImageError {
    ImageError::new(ImageErrorKind::Malformed, ErrorPlace::Module, offset, problem)
}

/// The sections that are put together, with their addresses.
fn placements(file: &ModuleFile, addresses: &[Option<u64>]) -> Result<Vec<Placement>, ImageError> {
    let mut placed: Vec<Placement> = Vec::new();
    let mut end = 0_usize;
    for (index, section) in file.sections.iter().enumerate() {
        let wanted = !section.is_writable() || TABLES.contains(&section.name.as_str());
        let address = addresses.get(index).copied().flatten();
        let Some(address) = address.filter(|_| wanted && section.is_loaded()) else { continue };
        if !section.has_bytes() || section.size == 0 {
            continue;
        }
        if address.checked_add(section.size).is_none() {
            let problem = format!("section {} at {address:#x} has no room there", section.name);
            return Err(malformed(section.offset, problem));
        }
        let start = end;
        end = end.saturating_add(usize::try_from(section.size).unwrap_or(usize::MAX));
        // Sections of a file do not overlap, so together they are smaller than the file.
        if end > file.elf.len() {
            let problem = format!("section {} overlaps with others", section.name);
            return Err(malformed(section.offset, problem));
        }
        placed.push(Placement { index, address, range: start..end });
    }
    Ok(placed)
}

/// The values of symbols, by their numbers.
struct Values<'a> {
    file: &'a ModuleFile,
    values: Vec<Option<u64>>,
}

impl<'a> Values<'a> {
    fn of(file: &'a ModuleFile, surroundings: &Surroundings<'_>) -> Self {
        let value = |index| {
            let symbol = file.symbol(index)?;
            match symbol.place {
                Place::Absolute => Some(symbol.value),
                Place::Unresolved => None,
                Place::Elsewhere if symbol.name.is_empty() => Some(0),
                Place::Elsewhere => {
                    (surroundings.exports)(symbol.name).or(symbol.weak.then_some(0))
                }
                Place::Section(section) => {
                    let section = usize::from(section);
                    let base = match file.sections.get(section) {
                        Some(section) if section.name == ".data..percpu" => surroundings.per_cpu,
                        _ => surroundings.addresses.get(section).copied().flatten(),
                    };
                    Some(base?.wrapping_add(symbol.value))
                }
            }
        };
        Self { file, values: (0..file.symbol_count()).map(value).collect() }
    }

    fn known(&self, index: u64) -> Option<u64> {
        self.values.get(usize::try_from(index).ok()?).copied().flatten()
    }

    /// The value of a symbol that the relocation at offset `at` needs.
    fn of_symbol(&self, index: u64, at: u64) -> Result<u64, LinkError> {
        if let Some(value) = self.known(index) {
            return Ok(value);
        }
        let Some(symbol) = self.file.symbol(index) else {
            return Err(malformed(at, format!("there is no symbol {index}")).into());
        };
        let section = match symbol.place {
            Place::Section(section) => self.file.sections.get(usize::from(section)),
            _ => None,
        };
        let name = match (symbol.name, section) {
            ("", Some(section)) => &section.name,
            (name, _) => name,
        };
        Err(LinkError::Symbol(name.to_owned()))
    }
}
