// SPDX-License-Identifier: Apache-2.0
//! Tables that the kernel works through once, while booting.
//!
//! Entry layouts: `struct alt_instr` and `struct paravirt_patch_site` of
//! arch/x86/include/asm/{alternative,paravirt_types}.h; the others are lists of i32, each the
//! distance from itself to the site (arch/x86/kernel/alternative.c, 6.1 to 7.3).

use crate::error::ImageError;
use crate::little_endian::{i32_at, u8_at, u64_at};
use crate::tables::place::{Entry, Source};
use crate::tables::{Instruction, TableKind, Tables};

/// A call through `pv_ops` that becomes a direct call, an inline instruction or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParavirtSite {
    /// Address of the instruction.
    pub address: u64,
    /// Which operation: the index into `struct paravirt_patch_template`.
    pub operation: u8,
    /// Length of the instruction in bytes.
    pub length: u8,
}

/// What part of an instruction a run-time constant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuntimeConstantKind {
    /// The 8-byte immediate of a `mov`, 0x0123456789abcdef on disk.
    Pointer,
    /// The 1-byte count of a `shr`, 12 on disk.
    Shift,
    /// The 4-byte immediate of an `and`, 0x12345678 on disk (7.3, not yet 6.18).
    Mask,
}

impl RuntimeConstantKind {
    /// How many bytes are set.
    pub fn length(self) -> u8 {
        match self {
            Self::Pointer => 8,
            Self::Shift => 1,
            Self::Mask => 4,
        }
    }

    /// What the image has in place of the value (arch/x86/include/asm/runtime-const.h).
    pub fn on_disk(self) -> &'static [u8] {
        match self {
            Self::Pointer => &[0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01],
            Self::Shift => &[12],
            Self::Mask => &[0x78, 0x56, 0x34, 0x12],
        }
    }
}

/// A value that is written into instructions once it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConstant {
    /// The variable whose value it is, such as `d_hash_shift`.
    pub variable: String,
    /// What part of the instruction is set.
    pub kind: RuntimeConstantKind,
    /// Addresses of the immediates (not of the instructions).
    pub sites: Vec<u64>,
}

pub(super) fn decode(source: &Source<'_>, tables: &mut Tables) -> Result<(), ImageError> {
    if let Some(table) = source.table(
        TableKind::Paravirt,
        ".parainstructions",
        ("__parainstructions", "__parainstructions_end"),
        16,
    )? {
        tables.paravirt = table.entries(|entry| paravirt(source, entry))?;
        tables.bounds.push(table.bounds);
    }
    tables.cfi = sites(source, tables, TableKind::Cfi, "__cfi_sites", |entry| {
        // The preamble of a function is `mov $hash,%eax` with nops around it (kCFI).
        entry.code(source, 16, "a kCFI preamble", |_| true)
    })?;
    tables.retpolines =
        sites(source, tables, TableKind::Retpolines, "__retpoline_sites", |entry| {
            retpoline(source, entry)
        })?;
    tables.returns = sites(source, tables, TableKind::Returns, "__return_sites", |entry| {
        entry.code(source, 5, "a jmp to the return thunk", |code| code.starts_with(&[0xe9]))
    })?;
    tables.calls = sites(source, tables, TableKind::Calls, "__call_sites", |entry| {
        entry.code(source, 5, "a call", |code| code.starts_with(&[0xe8]))
    })?;
    tables.endbr_seals =
        sites(source, tables, TableKind::EndbrSeals, "__ibt_endbr_seal", |entry| {
            entry.code(source, 4, "endbr64", |code| code == [0xf3, 0x0f, 0x1e, 0xfa])
        })?;
    let locks =
        sites(source, tables, TableKind::SmpLocks, "__smp_locks", |entry| smp_lock(source, entry))?;
    tables.smp_locks = locks.into_iter().flatten().collect();
    runtime_constants(source, tables)
}

/// A table of i32 that are distances to sites, in the section named as the table or from the symbol
/// `start` to that with `_end`.
fn sites<T>(
    source: &Source<'_>,
    tables: &mut Tables,
    kind: TableKind,
    start: &str,
    decode: impl FnMut(&Entry<'_>) -> Result<T, ImageError>,
) -> Result<Vec<T>, ImageError> {
    let section = format!(".{}", kind.name());
    let end = format!("{start}_end");
    let Some(table) = source.table(kind, &section, (start, &end), 4)? else {
        return Ok(Vec::new());
    };
    let list = table.entries(decode)?;
    tables.bounds.push(table.bounds);
    Ok(list)
}

fn paravirt(source: &Source<'_>, entry: &Entry<'_>) -> Result<ParavirtSite, ImageError> {
    let address = u64_at(entry.bytes, 0).unwrap_or_default();
    let operation = u8_at(entry.bytes, 8).unwrap_or_default();
    let length = u8_at(entry.bytes, 9).unwrap_or_default();
    match source.code_at(address, u64::from(length)) {
        Some(code) if !code.is_empty() => Ok(ParavirtSite { address, operation, length }),
        found => Err(entry.error("a call through pv_ops", address, found)),
    }
}

/// Entries that alternatives_smp_unlock() does not act on are left out: padding up to the end of
/// the page, and instructions whose first byte is another prefix (`data16 lock cmpxchg`).
fn smp_lock(source: &Source<'_>, entry: &Entry<'_>) -> Result<Option<u64>, ImageError> {
    if i32_at(entry.bytes, 0) == Some(0) {
        return Ok(None);
    }
    let address = entry.relative(0);
    match source.code_at(address, 2) {
        Some([0xf0, _]) => Ok(Some(address)),
        Some([0x66, 0xf0]) => Ok(None),
        found => Err(entry.error("a lock prefix", address, found)),
    }
}

fn retpoline(source: &Source<'_>, entry: &Entry<'_>) -> Result<Instruction, ImageError> {
    let address = entry.relative(0);
    let length = match source.code_at(address, 5) {
        Some([0xe8 | 0xe9, ..]) => 5,
        // A conditional jump, or a call or jump with the prefix that makes room for lfence.
        Some([0x0f, 0x80..=0x8f, ..] | [0x2e, 0xe8 | 0xe9, ..]) => 6,
        found => return Err(entry.error("a call or jump to an indirect thunk", address, found)),
    };
    Ok(Instruction { address, length })
}

/// Each variable has a section of its own, named for the kind and the variable.
fn runtime_constants(source: &Source<'_>, tables: &mut Tables) -> Result<(), ImageError> {
    let kinds = [
        ("runtime_ptr_", RuntimeConstantKind::Pointer),
        ("runtime_shift_", RuntimeConstantKind::Shift),
        ("runtime_mask_", RuntimeConstantKind::Mask),
    ];
    for section in &source.headers.sections {
        let Some((kind, variable)) = kinds
            .iter()
            .find_map(|(prefix, kind)| Some((*kind, section.name.strip_prefix(prefix)?)))
        else {
            continue;
        };
        let table = source.table(TableKind::RuntimeConstants, &section.name, ("", ""), 4)?;
        let Some(table) = table else { continue };
        let sites = table.entries(|entry| {
            let placeholder = kind.on_disk();
            let length = u64::from(kind.length());
            entry.code(source, length, "the placeholder of a run-time constant", |code| {
                code == placeholder
            })
        })?;
        tables.runtime_constants.push(RuntimeConstant {
            variable: variable.to_owned(),
            kind,
            sites,
        });
        tables.bounds.push(table.bounds);
    }
    Ok(())
}
