// SPDX-License-Identifier: Apache-2.0
//! Tables whose sites the kernel changes at any time.

use crate::error::ImageError;
use crate::little_endian::{i32_at, u64_at};
use crate::tables::place::{Entry, Source};
use crate::tables::{NamedAddress, TableKind, Tables};

/// The calls to `__fentry__` (`call rel32`, 5 bytes each on disk).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mcount {
    /// Address of each call, in the order of the table.
    pub sites: Vec<u64>,
    /// Entries that are zero: weak functions that the linker replaced (scripts/sorttable.c).
    pub zeroed: usize,
}

/// A jump label: a nop that a static key turns into a jump (`struct jump_entry`,
/// include/linux/jump_label.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JumpLabel {
    /// Address of the nop or jump.
    pub address: u64,
    /// Where the jump goes.
    pub target: u64,
    /// Address of the `struct static_key`.
    pub key: u64,
    /// The branch bit: a jump stands here when the key's state differs from it.
    pub branch: bool,
    /// 2 for `jmp rel8`, 5 for `jmp rel32`.
    pub length: u8,
}

/// A static call site (`struct static_call_site`, include/linux/static_call_types.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaticCall {
    /// Address of the call or jump.
    pub address: u64,
    /// Address of the `struct static_call_key`.
    pub key: u64,
    /// A tail call: `jmp`, or a conditional jump.
    pub tail: bool,
    /// 5, or 6 for a conditional jump.
    pub length: u8,
}

/// A trampoline and its key (`struct static_call_tramp_key`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaticCallKey {
    /// Address of the trampoline.
    pub trampoline: u64,
    /// Address of the `struct static_call_key`.
    pub key: u64,
}

/// A call inside ftrace's entry code (arch/x86/kernel/ftrace_64.S) that is aimed at the function
/// that traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FtraceCall {
    /// The symbol at the instruction.
    pub name: &'static str,
    /// Its address.
    pub address: u64,
}

pub(super) fn decode(source: &Source<'_>, tables: &mut Tables) -> Result<(), ImageError> {
    mcount(source, tables)?;
    let symbols = ("__start___jump_table", "__stop___jump_table");
    if let Some(table) = source.table(TableKind::JumpLabels, "__jump_table", symbols, 16)? {
        tables.jump_labels = table.entries(|entry| jump_label(source, entry))?;
        tables.bounds.push(table.bounds);
    }
    let symbols = ("__start_static_call_sites", "__stop_static_call_sites");
    if let Some(table) = source.table(TableKind::StaticCalls, ".static_call_sites", symbols, 8)? {
        tables.static_calls = table.entries(|entry| static_call(source, entry))?;
        tables.bounds.push(table.bounds);
    }
    let symbols = ("__start_static_call_tramp_key", "__stop_static_call_tramp_key");
    let kind = TableKind::StaticCallTrampolines;
    if let Some(table) = source.table(kind, ".static_call_tramp_key", symbols, 8)? {
        tables.static_call_keys = table.entries(|entry| {
            let trampoline = entry.code(source, 8, "a static call trampoline", is_trampoline)?;
            Ok(StaticCallKey { trampoline, key: entry.relative(4) & !3 })
        })?;
        tables.bounds.push(table.bounds);
    }
    from_symbols(source, tables);
    Ok(())
}

fn mcount(source: &Source<'_>, tables: &mut Tables) -> Result<(), ImageError> {
    let symbols = ("__start_mcount_loc", "__stop_mcount_loc");
    let Some(table) = source.table(TableKind::Mcount, "__mcount_loc", symbols, 8)? else {
        return Ok(());
    };
    let fentry = source.symbols.address_of("__fentry__");
    let entries = table.entries(|entry| {
        let address = u64_at(entry.bytes, 0).unwrap_or_default();
        if address == 0 {
            return Ok(None);
        }
        let code = source.code_at(address, 5);
        let target = code.filter(|code| code.starts_with(&[0xe8])).and_then(|code| {
            let distance = i64::from(i32_at(code, 1)?);
            Some(address.wrapping_add(5).wrapping_add(distance as u64))
        });
        if target.is_some() && (target == fentry || fentry.is_none()) {
            Ok(Some(address))
        } else {
            Err(entry.error("a call to __fentry__", address, code))
        }
    })?;
    let all = entries.len();
    tables.mcount.sites = entries.into_iter().flatten().collect();
    tables.mcount.zeroed = all - tables.mcount.sites.len();
    tables.bounds.push(table.bounds);
    Ok(())
}

fn jump_label(source: &Source<'_>, entry: &Entry<'_>) -> Result<JumpLabel, ImageError> {
    let address = entry.relative(0);
    let length = match source.code_at(address, 5).or_else(|| source.code_at(address, 2)) {
        Some([0x66, 0x90, ..] | [0xeb, ..]) => 2,
        Some([0x0f, 0x1f, 0x44, 0x00, 0x00] | [0xe9, _, _, _, _]) => 5,
        found => return Err(entry.error("the nop or jmp of a jump label", address, found)),
    };
    let target = entry.relative(4);
    if source.code_at(target, 1).is_none() {
        return Err(entry.error("the target of a jump label", target, None));
    }
    // The key's distance is a long, counted from its own place; bit 0 is the branch, and bit 1 is
    // set while booting for code in init memory.
    let distance = u64_at(entry.bytes, 8).unwrap_or_default();
    let key = entry.address.wrapping_add(8).wrapping_add(distance & !3);
    Ok(JumpLabel { address, target, key, branch: distance & 1 != 0, length })
}

fn static_call(source: &Source<'_>, entry: &Entry<'_>) -> Result<StaticCall, ImageError> {
    let address = entry.relative(0);
    let length = match source.code_at(address, 5) {
        Some([0xe8 | 0xe9, ..]) => 5,
        Some([0x0f, 0x80..=0x8f, ..]) => 6,
        found => return Err(entry.error("the call or jmp of a static call", address, found)),
    };
    let key = entry.relative(4);
    // STATIC_CALL_SITE_TAIL is bit 0; bit 1 is set while booting for code in init memory.
    Ok(StaticCall { address, key: key & !3, tail: key & 1 != 0, length })
}

/// Five bytes of jump or return, then `ud1 %esp,%ecx` as a signature
/// (arch/x86/include/asm/static_call.h, the same in 6.1 to 7.3).
fn is_trampoline(code: &[u8]) -> bool {
    matches!(code, [_, _, _, _, _, 0x0f, 0xb9, 0xcc])
}

/// What has no table but names.
fn from_symbols(source: &Source<'_>, tables: &mut Tables) {
    for symbol in source.symbols.iter() {
        let named = || NamedAddress { name: symbol.name.to_owned(), address: symbol.address };
        if symbol.name.starts_with("__SCT__") {
            if source.code_at(symbol.address, 8).is_some_and(is_trampoline) {
                tables.static_call_trampolines.push(named());
            }
        } else if symbol.name.starts_with("bpf_dispatcher_")
            && symbol.name.ends_with("_func")
            // An inline function that does without a program.
            && symbol.name != "bpf_dispatcher_nop_func"
        {
            tables.bpf_dispatchers.push(named());
        }
    }
    for name in ["ftrace_call", "ftrace_regs_call", "ftrace_graph_call"] {
        let address = source.symbols.address_of(name);
        let call = |address: &u64| {
            source.code_at(*address, 5).is_some_and(|code| matches!(code, [0xe8 | 0xe9, ..]))
        };
        if let Some(address) = address.filter(call) {
            tables.ftrace_calls.push(FtraceCall { name, address });
        }
    }
}
