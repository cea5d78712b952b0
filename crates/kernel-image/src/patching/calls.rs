// SPDX-License-Identifier: Apache-2.0
//! Call depth tracking: each direct call goes to the padding before the function, where the call is
//! counted (`callthunks_patch_builtin_calls`, arch/x86/kernel/callthunks.c).

use std::ops::Range;

use super::alternatives::{call_at, moved};
use super::code::Code;
use super::instruction::{branch, target};
use super::machine::CallDepth;
use super::nops::NOP;
use super::{Dialect, Skipped};

impl CallDepth {
    /// How many bytes before a function its calls are counted.
    pub fn size(&self) -> u64 {
        self.template.len() as u64
    }

    /// What stands before a function whose calls are counted.
    pub fn padding_of(&self, function: u64) -> Vec<u8> {
        let at = function.wrapping_sub(self.size());
        moved(&self.template, self.template_address, at, Dialect::default())
    }

    /// Whether calls of a function are counted, as far as its address says.
    pub fn counts(&self, function: u64) -> bool {
        let within = |ranges: &[Range<u64>]| ranges.iter().any(|range| range.contains(&function));
        !within(&self.skipped) && within(&self.text)
    }
}

/// Retargets the calls at these places that lie within `own`, and fills the padding.
pub fn apply(
    code: &mut impl Code,
    sites: impl IntoIterator<Item = u64>,
    depth: &CallDepth,
    own: Range<u64>,
) -> Skipped {
    let mut skipped = Skipped::default();
    for address in sites {
        if own.contains(&address) {
            skipped.note(one(code, address, depth).is_some());
        }
    }
    skipped
}

fn one(code: &mut impl Code, address: u64, depth: &CallDepth) -> Option<()> {
    // The call may have been patched out.
    let Some(bytes) = call_at(code, address) else { return Some(()) };
    let function = target(address, &bytes, 0xe8)?;
    if !depth.counts(function) {
        return Some(());
    }
    let at = function.wrapping_sub(depth.size());
    let template = depth.padding_of(function);
    let there = code.read(at, template.len())?;
    if there != template {
        // A function without padding is called as before.
        if there.iter().any(|byte| *byte != NOP) {
            return Some(());
        }
        if !code.write(at, &template) {
            return None;
        }
    }
    code.write(address, &branch(0xe8, address, at)).then_some(())
}
