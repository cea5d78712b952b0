// SPDX-License-Identifier: Apache-2.0
//! The code that dispatches system calls, branch by branch.

use std::collections::HashSet;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use kernel_memory::Kernel;

use super::Wrong;
use crate::check::{Missing, System};
use crate::sites::INT3;
use crate::sites::state::counted_before;

/// The functions (arch/x86/entry/syscall_64.c and syscall_32.c, 6.12 and 7.3; 6.1 by stable).
const FUNCTIONS: [&str; 3] = ["x64_sys_call", "x32_sys_call", "ia32_sys_call"];

/// What names of system calls begin with (`__SYSCALL`, arch/x86/include/asm/syscall_wrapper.h). An
/// alias without arguments has another name at the same address.
const CALLS: [&str; 4] = ["__x64_sys_", "__ia32_sys_", "__x64_compat_sys_", "__ia32_compat_sys_"];

/// Where else the compiler and the kernel's own patching have these functions branch: returns,
/// indirect branches, and the call of the function tracer.
const MACHINERY: [&str; 13] = [
    "__fentry__",
    "__x86_return_thunk",
    "__x86_indirect_thunk_",
    "__x86_indirect_jump_thunk_",
    "__x86_indirect_its_thunk_",
    "__pi___x86_indirect_",
    "its_return_thunk",
    "srso_return_thunk",
    "srso_alias_return_thunk",
    "retbleed_return_thunk",
    "call_depth_return_thunk",
    "entry_untrain_ret",
    "write_ibpb",
];

/// A function longer than this is none of these (7.3: 9 KiB).
const LONGEST: u64 = 64 << 10;

/// Where a branch of a dispatcher may lead.
#[derive(Debug, Default)]
pub(super) struct Targets {
    calls: HashSet<u64>,
    machinery: HashSet<u64>,
    /// With call depth tracking a call leads to the code before the function, which counts it and is so
    /// long (`retbleed=stuff`, arch/x86/kernel/callthunks.c, 6.12).
    padding: u64,
}

impl Targets {
    /// By name, within the text.
    pub(super) fn gather(kernel: &Kernel<'_>, text: (u64, u64)) -> Self {
        Self::with_padding(kernel, text, counted_before(kernel).unwrap_or(0))
    }

    /// The same where so many bytes before a function count its calls.
    pub(super) fn with_padding(kernel: &Kernel<'_>, text: (u64, u64), padding: u64) -> Self {
        let mut targets = Self { padding, ..Self::default() };
        let text = text.0..text.1;
        for symbol in kernel.symbols.iter().filter(|symbol| text.contains(&symbol.address)) {
            let is_one_of = |beginnings: &[&str]| {
                beginnings.iter().any(|beginning| symbol.name.starts_with(beginning))
            };
            if is_one_of(&CALLS) {
                targets.calls.insert(symbol.address);
            } else if is_one_of(&MACHINERY) {
                targets.machinery.insert(symbol.address);
            }
        }
        targets
    }

    /// Whether a branch may lead there.
    pub(super) fn allow(&self, target: u64) -> bool {
        let one = |address| self.calls.contains(&address) || self.machinery.contains(&address);
        one(target) || (self.padding != 0 && one(target.wrapping_add(self.padding)))
    }

    pub(super) fn is_call(&self, address: u64) -> bool {
        self.calls.contains(&address)
    }
}

/// Where the functions of this kernel are.
pub(super) fn functions(kernel: &Kernel<'_>) -> Vec<Range<u64>> {
    let found = FUNCTIONS.iter().filter_map(|name| {
        let start = kernel.symbols.address_of(name)?;
        let end = kernel.symbols.next_address(start)?;
        Some(start..end.min(start + LONGEST))
    });
    found.collect()
}

/// Branches of a function that lead to what is no system call.
///
/// The tracer's place at its start, which leads to whoever traces, is told of by the checks of text
/// and hooks. So is an int3: behind it code is read as the baseline has it.
pub(super) fn strays(
    system: &System<'_>,
    targets: &Targets,
    function: &Range<u64>,
) -> Result<Vec<Wrong>, Missing> {
    let length = (function.end - function.start) as usize;
    let mut bytes = system.kernel.bytes_at(function.start, length)?;
    let expected = system.baseline.bytes_at(function.start, length).unwrap_or_default();
    for (seen, expected) in bytes.iter_mut().zip(expected) {
        if *seen == INT3 {
            *seen = *expected;
        }
    }
    let traced = system.baseline.sites(&system.kernel).ftrace.addresses();
    Ok(branches(&bytes, function.start)
        .into_iter()
        .filter(|(at, target)| {
            !(function.contains(target)
                || targets.allow(*target)
                || traced.binary_search(at).is_ok())
        })
        .map(|(at, target)| Wrong::Branch(at, target))
        .collect())
}

/// Direct branches and calls: where each stands and where it leads.
pub(super) fn branches(bytes: &[u8], start: u64) -> Vec<(u64, u64)> {
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut found = Vec::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let direct = matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
        );
        if direct && !instruction.is_invalid() {
            found.push((instruction.ip(), instruction.near_branch_target()));
        }
    }
    found
}
