// SPDX-License-Identifier: Apache-2.0
//! The places in a module's text that the kernel patches at run time.
//!
//! Its tables come from its file (`kernel_image::module::Linked`), so they are as trusted as that.
//! Those in memory (`jump_entries`, `static_call_sites`, the ftrace records) are not asked.

use std::collections::HashMap;

use kernel_image::Tables;
use kernel_image::module::Linked;
use kernel_image::patching::CallDepth;

use super::ftrace::{FtraceSites, Source};
use super::jump_label::{JumpLabel, JumpLabels};
use super::static_call::{StaticCall, StaticCalls};
use super::trampoline::{Trampoline, Trampolines};
use super::{NOP5, Paddings, Returns, Sites, State, Verdict};
use crate::baseline::{Region, RegionKind};

impl Sites {
    /// The sites in a module's text. `core` are those of the kernel: a return looks the same in
    /// modules, and a static call of the kernel may be known to a module by its trampoline only.
    /// `depth` where calls are counted.
    pub(crate) fn of_module(
        text: (u64, &[u8]),
        linked: &Linked<'_>,
        core: &Self,
        depth: Option<&CallDepth>,
    ) -> Self {
        let (start, bytes) = text;
        let region = Region { kind: RegionKind::Text, start, bytes };
        let tables: &Tables = linked.tables();
        let jump_labels = tables.jump_labels.iter().filter(|one| region.holds(one.address));
        let jump_labels = jump_labels.map(|one| JumpLabel {
            code: one.address,
            target: one.target,
            key: one.key,
            branch: one.branch,
            length: one.length,
        });
        let key_of = |key: u64| {
            let mut trampolines = core.trampolines.entries().iter();
            trampolines.find(|one| one.address == key).and_then(|one| one.key).unwrap_or(key)
        };
        let calls = tables.static_calls.iter().filter(|one| region.holds(one.address));
        let calls = calls.map(|one| StaticCall {
            address: one.address,
            key: key_of(one.key),
            tail: one.tail,
            condition: linked.bytes_at(one.address, 2).and_then(|code| match code {
                [0x0f, second @ 0x80..=0x8f] => Some(*second),
                _ => None,
            }),
        });
        let keys: HashMap<&str, u64> = linked.addresses_of("__SCK__").collect();
        let trampolines = tables.static_call_trampolines.iter().map(|one| Trampoline {
            address: one.address,
            key: one.name.strip_prefix("__SCT__").and_then(|name| keys.get(name)).copied(),
        });
        let traced = tables.mcount.sites.iter().copied().filter(|site| region.holds(*site));
        // A symbol of its own stands before the padding of each function.
        let functions = linked.addresses_of("").filter(|(name, _)| !name.starts_with("__pfx_"));
        let functions = functions.map(|(_, address)| address);
        let mut sites = Self {
            text_start: start,
            paddings: depth.map_or_else(Paddings::default, |depth| {
                Paddings::of(depth.clone(), &region, functions)
            }),
            jump_labels: JumpLabels::from_entries(jump_labels.collect()),
            static_calls: StaticCalls::of_module(calls.collect(), &core.static_calls),
            trampolines: Trampolines::from_entries(trampolines.collect()),
            returns: Returns::through(core.returns.thunks().to_vec()),
            ..Self::default()
        };
        sites.ftrace = FtraceSites::of(&region, traced.collect(), Source::Records);
        sites.index();
        sites
    }

    /// Puts into a module's text what its sites hold as the kernel's data is now. What changes later
    /// is explained when it is seen; this only spares that for all that never changes.
    pub(crate) fn settle(&self, start: u64, text: &mut [u8], state: &State) {
        for site in self.iter() {
            let Some(offset) = site.address.checked_sub(start) else { continue };
            let Ok(offset) = usize::try_from(offset) else { continue };
            let end = offset.saturating_add(usize::from(site.length));
            let Some(slot) = text.get_mut(offset..end) else { continue };
            let legal =
                match site.kind {
                    // The call of `__fentry__` is taken out when the module is loaded.
                    super::SiteKind::Ftrace => Some(NOP5.to_vec()),
                    _ => self.legal(&site, state).into_iter().map(|legal| legal.bytes).find(
                        |bytes| matches!(self.judge(&site, bytes, state), Verdict::Expected(_)),
                    ),
                };
            match legal {
                Some(bytes) if bytes.len() == slot.len() => slot.copy_from_slice(&bytes),
                _ => {}
            }
        }
    }

    /// The keys of its branches.
    pub(crate) fn branch_keys(&self) -> impl Iterator<Item = u64> {
        self.jump_labels.entries().iter().map(|entry| entry.key)
    }
}
