// SPDX-License-Identifier: Apache-2.0
//! What the kernel makes of its own code while it boots, and of a module's while it loads it.
//!
//! One file for each patcher of arch/x86/kernel, which does what that does, byte for byte: given the
//! code as it was linked and relocated, the entries of the tables, and a [`Machine`] that says what
//! the boot code saw, the result is the code that it left. Nothing is guessed: where two kernels
//! patch differently, the image says which way is its own ([`Dialect`]), never a version number.
//!
//! All addresses are those of the running kernel, its slide included. What is patched again at run
//! time (jump labels, static calls, ftrace) is not done here.
//!
//! Sources: alternative.c, callthunks.c, paravirt.c and module.c of arch/x86/kernel, in 6.1.192,
//! 6.12.117 and 7.3.4. The kernel's patching is in C with side effects on live memory, so nothing of
//! it could be taken over; the unit tests give each rule with its source.

pub mod alternatives;
pub mod calls;
mod code;
mod image;
mod instruction;
pub mod its;
mod machine;
mod nops;
pub mod paravirt;
pub mod retpolines;
pub mod returns;
pub mod runtime_constants;
pub mod seals;
pub mod smp_locks;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use code::{Code, Pieces};
pub use image::{Placed, Value};
pub use its::ItsPages;
pub use machine::{CallDepth, Dialect, Machine, NopStyle, Retpoline, Return};

use crate::tables::{Alternative, ParavirtSite};

/// How many sites were not patched, because they are not part of the code or do not hold the
/// instruction that the patcher expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Their number.
    pub places: usize,
}

impl Skipped {
    fn note(&mut self, done: bool) {
        self.places += usize::from(!done);
    }
}

/// The tables of what is patched, with the addresses of the running kernel.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Calls through `pv_ops`.
    pub paravirt: Vec<ParavirtSite>,
    /// Calls and jumps through an indirect thunk.
    pub retpolines: Vec<u64>,
    /// Jumps to the return thunk.
    pub returns: Vec<u64>,
    /// Alternatives in their order.
    pub alternatives: Vec<Alternative>,
    /// Direct calls.
    pub calls: Vec<u64>,
    /// `endbr64` to be sealed.
    pub seals: Vec<u64>,
    /// `lock` prefixes.
    pub smp_locks: Vec<u64>,
}

/// Runs all patchers in the kernel's order (`alternative_instructions` for the kernel itself,
/// `module_finalize` for a module; the same in both).
///
/// `own` is where the code is that may be patched for call depth tracking: `_text` to `_etext`, or a
/// module's text.
pub fn apply(
    code: &mut impl Code,
    entries: &Entries,
    machine: &Machine,
    its: &mut ItsPages,
    own: Range<u64>,
) -> Skipped {
    let mut skipped = Skipped::default();
    let mut count = |one: Skipped| skipped.places += one.places;
    count(paravirt::apply(code, &entries.paravirt, machine));
    count(retpolines::apply(code, entries.retpolines.iter().copied(), machine, its));
    count(returns::apply(code, entries.returns.iter().copied(), machine));
    let before = machine.dialect.calls_before_alternatives;
    if !before {
        count(alternatives::apply(code, &entries.alternatives, machine));
    }
    if let Some(depth) = &machine.call_depth {
        count(calls::apply(code, entries.calls.iter().copied(), depth, own.clone()));
        if !before {
            // Calls that alternatives put in place are in no table of calls.
            let places = entries.alternatives.iter().map(|entry| entry.address);
            let _ = calls::apply(code, places, depth, own);
        }
    }
    if before {
        count(alternatives::apply(code, &entries.alternatives, machine));
    }
    count(seals::apply(code, entries.seals.iter().copied(), machine));
    count(smp_locks::apply(code, entries.smp_locks.iter().copied(), machine));
    skipped
}
