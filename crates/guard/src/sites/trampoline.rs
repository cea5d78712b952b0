// SPDX-License-Identifier: Apache-2.0
//! The jumps behind the names of static calls.
//!
//! `__SCT__name` is `jmp function` or a return, then the signature `0f b9 cc` (arch/x86/kernel/
//! static_call.c, tramp_ud). It must lead where the key of the same name points. The keys are data,
//! which a kernel without CONFIG_KALLSYMS_ALL does not list; they are learned from the tracepoints
//! (struct tracepoint names both) and from `static_call_tramp_key`. For the others it can only be
//! said that a trampoline leads where *some* key points.

use std::collections::HashMap;

use kernel_image::Symbols;
use kernel_memory::Kernel;

use super::{Encoding, Legal, Returns, Site, SiteKind, State, Verdict};
use super::{branch, relative, table, target_of};
use crate::baseline::{Baseline, RegionKind};

const PREFIX: &str = "__SCT__";
const KEY_PREFIX: &str = "__SCK__";
const SIGNATURE: [u8; 3] = [0x0f, 0xb9, 0xcc];

/// One trampoline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trampoline {
    /// Where it is.
    pub address: u64,
    /// The address of its `struct static_call_key`, where that is known.
    pub key: Option<u64>,
}

/// All trampolines.
#[derive(Debug, Default)]
pub struct Trampolines {
    entries: Vec<Trampoline>,
}

impl Trampolines {
    /// Finds them by name and signature, and the keys of those whose keys can be known.
    pub(super) fn gather(baseline: &Baseline, kernel: &Kernel<'_>) -> Self {
        let Some(text) = baseline.region(RegionKind::Text) else { return Self::default() };
        let mut keys = of_tracepoints(baseline, kernel).unwrap_or_default();
        keys.extend(of_table(baseline, kernel.symbols));
        let named = kernel.symbols.iter().filter(|symbol| symbol.name.starts_with(PREFIX));
        let entries = named
            .filter(|symbol| text.holds(symbol.address))
            .filter(|symbol| {
                let signature = baseline.bytes_at(symbol.address + 5, SIGNATURE.len());
                signature == Some(&SIGNATURE)
            })
            .map(|symbol| {
                let address = symbol.address;
                let key = keys.get(&address).copied().or_else(|| {
                    let name = symbol.name.strip_prefix(PREFIX)?;
                    kernel.symbols.address_of(&format!("{KEY_PREFIX}{name}"))
                });
                Trampoline { address, key }
            })
            .collect();
        Self { entries }
    }

    /// Trampolines that are known otherwise.
    pub fn from_entries(entries: Vec<Trampoline>) -> Self {
        Self { entries }
    }

    /// The trampolines.
    pub fn entries(&self) -> &[Trampoline] {
        &self.entries
    }

    /// The entry of a site.
    pub fn entry(&self, site: &Site) -> Option<&Trampoline> {
        self.entries.get(site.index as usize)
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        self.entries.iter().zip(0..).map(|(entry, index)| Site {
            address: entry.address,
            length: 5,
            kind: SiteKind::StaticCallTrampoline,
            index,
        })
    }

    pub(super) fn judge(
        &self,
        site: &Site,
        bytes: &[u8],
        state: &State,
        returns: &Returns,
    ) -> Verdict {
        let Some(entry) = self.entry(site) else { return Verdict::Illegal };
        let function = entry.key.and_then(|key| state.function_of(key));
        if let Some(to) = target_of(entry.address, bytes, &[0xe9])
            && (Some(to) == function || (entry.key.is_none() && state.some_key_points_at(to)))
        {
            return Verdict::Expected(Encoding::Jump(to));
        }
        if !returns.matches_in_trampoline(entry.address, bytes) {
            return Verdict::Illegal;
        }
        match function {
            None | Some(0) => Verdict::Expected(Encoding::Return),
            Some(_) => Verdict::OutOfStep(Encoding::Return),
        }
    }

    pub(super) fn legal(&self, site: &Site, state: &State, returns: &Returns) -> Vec<Legal> {
        let Some(entry) = self.entry(site) else { return Vec::new() };
        let function = entry.key.and_then(|key| state.function_of(key));
        let jump = function.filter(|to| *to != 0).and_then(|to| {
            let bytes = branch(&[0xe9], entry.address, to)?;
            Some(Legal { bytes, encoding: Encoding::Jump(to) })
        });
        let returns = returns.legal_in_trampoline(entry.address).into_iter();
        jump.into_iter()
            .chain(returns.map(|bytes| Legal { bytes, encoding: Encoding::Return }))
            .collect()
    }
}

/// `static_call_tramp_key`: entries of 8 bytes, s32 trampoline, s32 key, each relative to its own
/// address (struct static_call_tramp_key, include/linux/static_call_types.h).
fn of_table(baseline: &Baseline, symbols: &Symbols) -> Vec<(u64, u64)> {
    let bounds = ("__start_static_call_tramp_key", "__stop_static_call_tramp_key");
    let Some((start, bytes)) = table(baseline, symbols, bounds.0, bounds.1) else {
        return Vec::new();
    };
    bytes
        .chunks_exact(8)
        .zip((start..).step_by(8))
        .filter_map(|(entry, at)| Some((relative(at, entry, 0)?, relative(at, entry, 4)?)))
        .collect()
}

/// Trampoline and key of each tracepoint. `__tracepoints_ptrs` holds relative pointers of 32 bits
/// (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS, include/linux/tracepoint.h).
fn of_tracepoints(baseline: &Baseline, kernel: &Kernel<'_>) -> Option<HashMap<u64, u64>> {
    let bounds = ("__start___tracepoints_ptrs", "__stop___tracepoints_ptrs");
    let (start, bytes) = table(baseline, kernel.symbols, bounds.0, bounds.1)?;
    let key_at = kernel.offset_of("tracepoint", "static_call_key").ok()? as usize;
    let trampoline_at = kernel.offset_of("tracepoint", "static_call_tramp").ok()? as usize;
    let size = u32::try_from(kernel.size_of("tracepoint").ok()?).ok()?;
    let ranges: Vec<(u64, u32)> = bytes
        .chunks_exact(4)
        .zip((start..).step_by(4))
        .filter_map(|(entry, at)| Some((relative(at, entry, 0)?, size)))
        .collect();
    let pointer = |bytes: &[u8], at: usize| {
        Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    let read = kernel.memory.read_many(&ranges);
    let pairs = read.iter().filter_map(|tracepoint| {
        let tracepoint = tracepoint.as_ref().ok()?;
        Some((pointer(tracepoint, trampoline_at)?, pointer(tracepoint, key_at)?))
    });
    Some(pairs.filter(|(trampoline, key)| *trampoline != 0 && *key != 0).collect())
}
