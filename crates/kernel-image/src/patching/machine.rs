// SPDX-License-Identifier: Apache-2.0
//! What the boot code saw.

use std::collections::BTreeMap;
use std::ops::Range;

/// Everything on which the choice at a boot-time site depends.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// `boot_cpu_data.x86_capability`: the words of features, then those of bugs.
    pub capability: Vec<u32>,
    /// What becomes of calls and jumps through an indirect thunk.
    pub retpoline: Retpoline,
    /// `__x86_indirect_thunk_array`: thunks of 32 bytes, one for each register.
    pub indirect_thunks: u64,
    /// Whether branches in the lower half of a cache line go through thunks of their own
    /// (X86_FEATURE_INDIRECT_THUNK_ITS).
    pub its: bool,
    /// Call depth tracking, where it is on (`retbleed=stuff`).
    pub call_depth: Option<CallDepth>,
    /// What becomes of returns.
    pub returns: Return,
    /// `__x86_return_thunk`, to which the compiler jumps.
    pub return_thunk: u64,
    /// What is called for an operation of `pv_ops` that is not there: `BUG_func`, and
    /// `paravirt_BUG` before 6.8.
    pub bug_function: u64,
    /// What needs no call: `nop_func`, and `_paravirt_nop` before 6.8.
    pub nop_function: u64,
    /// Pointers that direct calls were made from, by their addresses: `pv_ops`.
    pub pointers: BTreeMap<u64, u64>,
    /// `pv_ops`, whose slots the sites of the paravirt table count.
    pub pv_ops: u64,
    /// The kernel was patched for a single CPU.
    pub one_cpu: bool,
    /// How this kernel's patchers write.
    pub dialect: Dialect,
}

/// What becomes of `call __x86_indirect_thunk_reg` (`patch_retpoline`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retpoline {
    /// `call *%reg`: no X86_FEATURE_RETPOLINE.
    #[default]
    Inline,
    /// `lfence; call *%reg`: X86_FEATURE_RETPOLINE_LFENCE.
    Lfence,
    /// It stays, or goes to the thunks of call depth tracking.
    Thunk,
}

/// What becomes of `jmp __x86_return_thunk` (`patch_return`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Return {
    /// `ret; int3…`: no X86_FEATURE_RETHUNK.
    #[default]
    Plain,
    /// A jump to this thunk.
    Thunk(u64),
    /// A jump to this thunk (`its_return_thunk`) from the lower half of a cache line, `ret; int3…` in
    /// the upper half.
    LowerHalf(u64),
}

/// Call depth tracking (arch/x86/kernel/callthunks.c).
#[derive(Clone, Debug, Default)]
pub struct CallDepth {
    /// `skl_call_thunk_template` up to `skl_call_thunk_tail`, as relocated.
    pub template: Vec<u8>,
    /// The address of the template.
    pub template_address: u64,
    /// Destinations whose calls are not counted (`skip_addr`).
    pub skipped: Vec<Range<u64>>,
    /// `__x86_indirect_call_thunk_array`.
    pub call_thunks: u64,
    /// `__x86_indirect_jump_thunk_array`.
    pub jump_thunks: u64,
    /// Where functions are that have such padding: the kernel's text and, for a module, its own.
    pub text: Vec<Range<u64>>,
}

/// How a kernel's patchers write. Each is told from the image ([`crate::patching::Placed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// How nops are put together.
    pub nops: NopStyle,
    /// What of several bytes counts as a nop: in 7.3 also moves of a register to itself.
    pub wide_nops: bool,
    /// `cs` prefixes before an indirect call, and int3s after an indirect jump, in place of nops
    /// (7.3, not 6.12).
    pub prefixed_calls: bool,
    /// What a sealed `endbr64` becomes.
    pub seal: [u8; 4],
    /// Calls are counted before alternatives are applied (7.3), not after (6.12).
    pub calls_before_alternatives: bool,
}

impl Default for Dialect {
    /// That of 6.12.
    fn default() -> Self {
        Self {
            nops: NopStyle::Long,
            wide_nops: false,
            prefixed_calls: false,
            seal: [0x66, 0x0f, 0x1f, 0x00],
            calls_before_alternatives: false,
        }
    }
}

/// How nops are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NopStyle {
    /// Runs of one-byte nops become nops of at most 8 bytes, one after the other (6.1).
    Short,
    /// Runs of nops of any length become one of at most 11 bytes, or a jump over int3s (6.12).
    Long,
}

impl Machine {
    /// Whether the boot CPU has a feature, or a bug (`boot_cpu_has`).
    pub fn has(&self, feature: u16) -> bool {
        let word = self.capability.get(usize::from(feature / 32));
        word.is_some_and(|word| word >> (feature % 32) & 1 != 0)
    }
}
