// SPDX-License-Identifier: Apache-2.0
//! What a return looks like.
//!
//! A return is `c3` and int3s, or a jump to the return thunk that the mitigations chose at boot
//! (`x86_return_thunk`; __static_call_transform of arch/x86/kernel/static_call.c and apply_returns of
//! alternative.c). Which one it is shows at the static calls that return: a kernel without security
//! modules has hundreds.

use std::collections::BTreeMap;

use kernel_image::Symbols;

use super::{branch, target_of};
use crate::baseline::Baseline;

/// Names of return thunks, 6.1 to 7.3 (arch/x86/lib/retpoline.S).
const THUNKS: [&str; 7] = [
    "__x86_return_thunk",
    "srso_return_thunk",
    "srso_alias_return_thunk",
    "retbleed_return_thunk",
    "zen_return_thunk",
    "its_return_thunk",
    "call_depth_return_thunk",
];

/// A plain return with what fills it up.
pub const RET: [u8; 5] = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];

/// The return that the assembler put into a trampoline without a function
/// (ARCH_DEFINE_STATIC_CALL_NULL_TRAMP, arch/x86/include/asm/static_call.h).
const RET_NULL: [u8; 5] = [0xc3, 0xcc, 0x90, 0x90, 0x90];

/// The return thunks that may be jumped to.
#[derive(Debug, Default)]
pub struct Returns {
    thunks: Vec<u64>,
}

impl Returns {
    /// Finds out which thunk is in use: the one that most of the static calls that return now jump
    /// to. Where none does, each that exists may be.
    pub(super) fn of(
        baseline: &Baseline,
        symbols: &Symbols,
        calls: impl Iterator<Item = u64>,
    ) -> Self {
        let thunks: Vec<u64> = THUNKS.iter().filter_map(|name| symbols.address_of(name)).collect();
        let mut used: BTreeMap<u64, usize> = BTreeMap::new();
        for address in calls {
            let target = baseline
                .bytes_at(address, 5)
                .and_then(|bytes| target_of(address, bytes, &[0xe9]))
                .filter(|target| thunks.contains(target));
            if let Some(target) = target {
                *used.entry(target).or_default() += 1;
            }
        }
        match used.into_iter().max_by_key(|(_, count)| *count) {
            Some((thunk, _)) => Self { thunks: vec![thunk] },
            None => Self { thunks },
        }
    }

    /// These thunks and no others.
    pub fn through(thunks: Vec<u64>) -> Self {
        Self { thunks }
    }

    /// Whether `bytes` at `address` return.
    pub(super) fn matches(&self, address: u64, bytes: &[u8]) -> bool {
        bytes == RET
            || target_of(address, bytes, &[0xe9]).is_some_and(|to| self.thunks.contains(&to))
    }

    /// Whether `bytes` return in a trampoline.
    pub(super) fn matches_in_trampoline(&self, address: u64, bytes: &[u8]) -> bool {
        bytes == RET_NULL || self.matches(address, bytes)
    }

    /// Whether a conditional tail call may lead to `target` in place of a return.
    pub(super) fn holds(&self, target: u64) -> bool {
        self.thunks.contains(&target)
    }

    /// The thunks.
    pub(super) fn thunks(&self) -> &[u64] {
        &self.thunks
    }

    /// All ways to return at `address`.
    pub(super) fn legal(&self, address: u64) -> Vec<Vec<u8>> {
        let jumps = self.thunks.iter().filter_map(|thunk| branch(&[0xe9], address, *thunk));
        std::iter::once(RET.to_vec()).chain(jumps).collect()
    }

    /// All ways to return in a trampoline at `address`.
    pub(super) fn legal_in_trampoline(&self, address: u64) -> Vec<Vec<u8>> {
        let mut legal = self.legal(address);
        legal.push(RET_NULL.to_vec());
        legal
    }
}
