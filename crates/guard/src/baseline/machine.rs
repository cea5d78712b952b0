// SPDX-License-Identifier: Apache-2.0
//! What the boot code of the running kernel saw, read from its memory.
//!
//! The boot code decided by these values which form each boot-time site gets, and they are still
//! there: most of them in memory that was made read-only since. Whoever changes one of them now
//! makes the text disagree with the baseline, which is found; nobody is let off by it.

use std::collections::BTreeMap;
use std::ops::Range;

use kernel_image::patching::{
    CallDepth, Dialect, Machine, NopStyle, Placed, Retpoline, Return, Value,
};
use kernel_image::tables::RuntimeConstantKind;
use kernel_memory::Kernel;

use crate::check::Missing;

/// Features that the patchers ask for by number (arch/x86/include/asm/cpufeatures.h, the same in 6.1,
/// 6.12 and 7.3).
const RETPOLINE: u16 = 11 * 32 + 12;
const RETPOLINE_LFENCE: u16 = 11 * 32 + 13;
const RETHUNK: u16 = 11 * 32 + 14;

/// What a sealed `endbr64` is from 6.18 on (`gen_endbr_poison`), and functions that know it.
const NEW_SEAL: [u8; 4] = [0x0f, 0x1f, 0x40, 0xd6];
const SEALERS: [&str; 4] = ["poison_endbr", "apply_seal_endbr", "apply_ibt_endbr", "is_endbr"];

/// The page of `relocate_kernel`, whose calls are not counted (KEXEC_CONTROL_CODE_MAX_SIZE).
const KEXEC_CONTROL_CODE: u64 = 2048;

/// Functions whose calls are not counted (`skip_addr`, arch/x86/kernel/callthunks.c).
const UNCOUNTED: [&str; 7] = [
    "error_entry",
    "paranoid_entry",
    "xen_error_entry",
    "__switch_to_asm",
    "ret_from_fork",
    "soft_restart_cpu",
    "__fentry__",
];

/// Reads what the boot code saw, all but the pointers that calls were made from
/// ([`read_pointers`]). `find` gives running addresses of symbols; `dialect` is the image's, or
/// [`dialect_of`] where there is none.
///
/// # Errors
/// With what is missing, where a variable is not in the symbol table or cannot be read.
pub fn observe(
    kernel: &Kernel<'_>,
    find: &dyn Fn(&str) -> Option<u64>,
    dialect: Dialect,
) -> Result<Machine, Missing> {
    let symbol =
        |name: &str| find(name).ok_or_else(|| Missing(format!("there is no symbol {name}")));
    let flag = |name: &str| match find(name) {
        Some(at) => kernel.u8_at(at).map(|value| value != 0).map_err(Missing::because),
        None => Ok(false),
    };
    let cpu = kernel.object("cpuinfo_x86", symbol("boot_cpu_data")?).map_err(Missing::because)?;
    let capability = cpu.bytes("x86_capability").map_err(Missing::because)?;
    let mut machine = Machine {
        capability: capability
            .chunks_exact(4)
            .filter_map(|word| Some(u32::from_le_bytes(word.try_into().ok()?)))
            .collect(),
        dialect,
        return_thunk: find("__x86_return_thunk").unwrap_or(0),
        indirect_thunks: find("__x86_indirect_thunk_array").unwrap_or(0),
        pv_ops: find("pv_ops").unwrap_or(0),
        one_cpu: flag("uniproc_patched")?,
        ..Machine::default()
    };
    // The names before 6.8 come second.
    let either = |new: &str, old: &str| find(new).or_else(|| find(old));
    machine.bug_function = either("BUG_func", "paravirt_BUG").unwrap_or(0);
    machine.nop_function = either("nop_func", "_paravirt_nop").unwrap_or(0);
    machine.retpoline = match (machine.has(RETPOLINE), machine.has(RETPOLINE_LFENCE)) {
        (_, true) => Retpoline::Lfence,
        (true, false) => Retpoline::Thunk,
        (false, false) => Retpoline::Inline,
    };
    if machine.has(RETHUNK) {
        let thunk = kernel.u64_at(symbol("x86_return_thunk")?).map_err(Missing::because)?;
        let is_its = find("its_return_thunk") == Some(thunk);
        // `its_apply_mitigation` sets both, unless there are retpolines.
        machine.its = is_its && !machine.has(RETPOLINE);
        machine.returns = if is_its { Return::LowerHalf(thunk) } else { Return::Thunk(thunk) };
    }
    if flag("thunks_initialized")? {
        machine.call_depth = Some(call_depth(kernel, find)?);
    }
    Ok(machine)
}

/// Reads the pointers that direct calls were made from: those at `slots`, which the image or the
/// module's code names.
pub fn read_pointers(
    kernel: &Kernel<'_>,
    slots: impl IntoIterator<Item = u64>,
    machine: &mut Machine,
) -> Result<(), Missing> {
    for slot in slots {
        let value = kernel.u64_at(slot).map_err(Missing::because)?;
        machine.pointers.insert(slot, value);
    }
    Ok(())
}

/// How the running kernel's patchers write, as far as its memory tells: for kernels without an
/// image. With an image, [`Placed::dialect`] says it.
pub fn dialect_of(kernel: &Kernel<'_>) -> Dialect {
    let symbols = kernel.symbols;
    let ninth = symbols.address_of("x86nops").and_then(|nops| kernel.u8_at(nops + 36).ok());
    let bodies = SEALERS.iter().filter_map(|name| symbols.address_of(name)).filter_map(|start| {
        let end = symbols.next_address(start).unwrap_or(start).min(start + 4096);
        kernel.bytes_at(start, (end - start) as usize).ok()
    });
    let new = bodies.into_iter().any(|body| body.windows(4).any(|window| window == NEW_SEAL));
    Dialect {
        nops: if ninth == Some(0x2e) { NopStyle::Long } else { NopStyle::Short },
        wide_nops: symbols.all_named("insn_is_nop").any(|symbol| symbol.kind == b'T'),
        prefixed_calls: new,
        seal: if new { NEW_SEAL } else { Dialect::default().seal },
        // Of the kernels looked at, 6.18 and 7.3 have both; the table that says it is gone.
        calls_before_alternatives: new,
    }
}

/// What is needed to know of call depth tracking, where it is on.
pub fn call_depth(
    kernel: &Kernel<'_>,
    find: &dyn Fn(&str) -> Option<u64>,
) -> Result<CallDepth, Missing> {
    let symbol =
        |name: &str| find(name).ok_or_else(|| Missing(format!("there is no symbol {name}")));
    let template_address = symbol("skl_call_thunk_template")?;
    let length = symbol("skl_call_thunk_tail")?.saturating_sub(template_address);
    if !(1..=64).contains(&length) {
        return Err(Missing(format!("skl_call_thunk_template of {length} bytes makes no sense")));
    }
    let template = kernel.bytes_at(template_address, length as usize).map_err(Missing::because)?;
    let mut skipped: Vec<Range<u64>> =
        UNCOUNTED.iter().filter_map(|name| find(name)).map(|at| at..at + 1).collect();
    let bounds = ("__relocate_kernel_start", "__relocate_kernel_end");
    match (find(bounds.0), find(bounds.1), find("relocate_kernel")) {
        (Some(start), Some(end), _) => skipped.push(start..end),
        (_, _, Some(start)) => skipped.push(start..start + KEXEC_CONTROL_CODE),
        _ => {}
    }
    Ok(CallDepth {
        template,
        template_address,
        skipped,
        call_thunks: symbol("__x86_indirect_call_thunk_array")?,
        jump_thunks: symbol("__x86_indirect_jump_thunk_array")?,
        text: std::iter::once(symbol("_text")?..symbol("_etext")?).collect(),
    })
}

/// The value that a run-time constant must have: that of its variable, or, where the variable has
/// no symbol, what most of its sites hold.
pub fn value_of(kernel: &Kernel<'_>, placed: &Placed, constant: &Value) -> Option<u64> {
    let read = |at: u64| match constant.kind {
        RuntimeConstantKind::Pointer => kernel.u64_at(at).ok(),
        RuntimeConstantKind::Shift => kernel.u8_at(at).ok().map(u64::from),
        RuntimeConstantKind::Mask => kernel.u32_at(at).ok().map(u64::from),
    };
    if let Some(at) = placed.symbol(&constant.variable) {
        return read(at);
    }
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for value in constant.sites.iter().filter_map(|site| read(*site)) {
        *votes.entry(value).or_default() += 1;
    }
    votes.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}
