// SPDX-License-Identifier: Apache-2.0
//! Where the pages of thunks for indirect branches are that the kernel allocated while it patched
//! itself or a module (`kernel_image::patching::its`).

use std::collections::BTreeMap;

use kernel_image::patching::its::Use;
use kernel_image::patching::{Code, ItsPages};
use kernel_memory::Kernel;

use crate::check::Missing;

/// Learns from memory where the pages are: most of the sites of a page lead there. `code` is as it
/// was before it was patched, `plan` what was planned for its sites. What the pages hold must be
/// compared ([`compare`]) once the sites were patched.
pub(crate) fn learn(
    kernel: &Kernel<'_>,
    code: &impl Code,
    plan: impl IntoIterator<Item = Use>,
) -> ItsPages {
    let mut votes: BTreeMap<usize, BTreeMap<u64, usize>> = BTreeMap::new();
    for planned in plan {
        let target = code.read(planned.site, 1).and_then(|first| {
            // A segment prefix, or the first byte of a conditional jump.
            let prefix = u64::from(matches!(first, [0x2e | 0x0f]));
            let at = planned.site + prefix + 1;
            let distance = kernel.u32_at(at).ok()?.cast_signed();
            Some((at + 4).wrapping_add_signed(i64::from(distance)))
        });
        if let Some(target) = target {
            let base = target.wrapping_sub(planned.offset);
            *votes.entry(planned.page).or_default().entry(base).or_default() += 1;
        }
    }
    let winner = |votes: &BTreeMap<u64, usize>| {
        votes.iter().max_by_key(|(_, count)| **count).map_or(0, |(base, _)| *base)
    };
    ItsPages::new(votes.values().map(winner).collect())
}

/// Whether the pages hold what they must: where they are was learned from the code that is about to
/// be judged.
pub(crate) fn compare(kernel: &Kernel<'_>, pages: &ItsPages) -> Result<(), Missing> {
    for (address, thunks) in pages.pages() {
        let seen = kernel.bytes_at(address, thunks.len()).map_err(Missing::because)?;
        if seen != thunks {
            return Err(Missing(format!(
                "the page of thunks for indirect branches at {address:#x} does not hold what the \
                 kernel puts there"
            )));
        }
    }
    Ok(())
}
