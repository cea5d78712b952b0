// SPDX-License-Identifier: Apache-2.0
//! Kprobes: what the kernel's table of them says about its text.
//!
//! A kprobe that is not at a place of ftrace is an int3 where its instruction began, or, once the
//! kernel has optimised it, a jump over five bytes to a copy of what was there (`optimized_kprobe`,
//! kernel/kprobes.c and arch/x86/kernel/kprobes/opt.c, 6.1 to 7.3). Both are in no table of the
//! image; what explains them is the table of kprobes as it is now. Whoever put a kprobe there is for
//! the check of hooks to tell.

use kernel_memory::{Kernel, PAGE_SIZE};

use crate::baseline::Baseline;
use crate::check::Missing;
use crate::compare::Place;
use crate::confirm::Explained;
use crate::recover::{KPROBE_BUCKETS, Recovered};
use crate::sites::{Encoding, INT3, Verdict};

/// `KPROBE_FLAG_OPTIMIZED` (include/linux/kprobes.h).
const OPTIMISED: u64 = 4;

/// A jump with a distance of four bytes, and its length.
const JUMP: u8 = 0xe9;
const JUMP_LENGTH: u64 = 5;

/// A kprobe in the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Where it is.
    pub(crate) address: u64,
    /// Where it has been optimised to jump to.
    detour: Option<u64>,
}

/// All kprobes of the table.
pub(crate) fn probes(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<Vec<Probe>, Missing> {
    let table = recovered.data_symbol(kernel, "kprobe_table")?.address;
    let heads = kernel.bytes_at(table, 8 * KPROBE_BUCKETS as usize)?;
    let used = heads.as_chunks::<8>().0.iter().zip(0..).filter(|(head, _)| **head != [0; 8]);
    let mut probes = Vec::new();
    for (_, bucket) in used {
        for probe in kernel.hlist(table.wrapping_add(8 * bucket), "kprobe", "hlist") {
            let probe = probe?;
            let is_optimised = probe.u64("flags")? & OPTIMISED != 0;
            let detour = || probe.container_of("optimized_kprobe", "kp")?.u64("optinsn.insn");
            probes.push(Probe {
                address: probe.u64("addr")?,
                detour: if is_optimised { Some(detour()?) } else { None },
            });
        }
    }
    Ok(probes)
}

/// Pages of the slots in which kprobes run what they displaced (kernel/kprobes.c).
pub(crate) fn pages(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Vec<u64> {
    let mut pages = Vec::new();
    for cache in ["kprobe_insn_slots", "kprobe_optinsn_slots"] {
        let Ok(cache) = recovered.data_symbol(kernel, cache) else { continue };
        let Ok(head) = kernel.object("kprobe_insn_cache", cache.address) else { continue };
        let Ok(head) = head.field("pages") else { continue };
        for page in kernel.list(head.address(), "kprobe_insn_page", "list") {
            pages.extend(page.ok().and_then(|page| page.u64("insns").ok()));
        }
    }
    pages
}

/// Takes out of `places` those that are what a kprobe of the table makes of them, and gives the
/// kprobes as explained changes: of one byte each, because that is what the kernel announces both
/// when it arms and when it optimises one.
pub(crate) fn explain(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    baseline: &Baseline,
    places: &mut Vec<Place>,
) -> Vec<Explained> {
    let mut explained: Vec<Explained> = Vec::new();
    if places.is_empty() {
        return explained;
    }
    let probes = probes(kernel, recovered).unwrap_or_default();
    places.retain(|place| {
        let found = probes.iter().find_map(|probe| made_by(kernel, baseline, *probe, place));
        let Some((probe, encoding)) = found else { return true };
        let start = probe.address;
        if explained.iter().all(|one| one.place.start != start) {
            explained.push(Explained {
                place: Place { start, end: start + 1, site: None },
                seen: vec![if encoding == Encoding::Probe { INT3 } else { JUMP }],
                verdict: Verdict::Expected(encoding),
            });
        }
        false
    });
    explained
}

fn made_by(
    kernel: &Kernel<'_>,
    baseline: &Baseline,
    probe: Probe,
    place: &Place,
) -> Option<(Probe, Encoding)> {
    let end = probe.address.checked_add(JUMP_LENGTH)?;
    if place.start < probe.address || place.end > end {
        return None;
    }
    let seen = kernel.bytes_at(probe.address, JUMP_LENGTH as usize).ok()?;
    let expected = baseline.bytes_at(probe.address, JUMP_LENGTH as usize)?;
    let encoding = encoding(probe, &seen, expected)?;
    Some((probe, encoding))
}

/// What the bytes at a kprobe are, if the kernel put them there for it.
fn encoding(probe: Probe, seen: &[u8], expected: &[u8]) -> Option<Encoding> {
    match (seen, expected) {
        ([INT3, seen @ ..], [_, expected @ ..]) if seen == expected => Some(Encoding::Probe),
        ([JUMP, ..], _) => {
            let target = target(probe.address, seen)?;
            (probe.detour == Some(target)).then_some(Encoding::Jump(target))
        }
        _ => None,
    }
}

/// Where a jump of five bytes leads.
fn target(address: u64, bytes: &[u8]) -> Option<u64> {
    let [JUMP, distance @ ..] = bytes else { return None };
    let distance = i32::from_le_bytes(*distance.first_chunk()?);
    Some(address.wrapping_add(JUMP_LENGTH).wrapping_add_signed(i64::from(distance)))
}

/// Whether `bytes`, which stand at `address`, jump to where only kprobes lead.
pub(crate) fn is_detour(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    address: u64,
    bytes: &[u8],
) -> bool {
    let Some(target) = target(address, bytes) else { return false };
    pages(kernel, recovered).iter().any(|page| (*page..page + PAGE_SIZE).contains(&target))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: u64 = 0xffff_ffff_8100_0010;
    const CODE: [u8; 5] = [0x55, 0x53, 0x48, 0x8b, 0x5f];

    #[test]
    fn an_int3_of_a_listed_kprobe_is_explained_and_nothing_more() {
        let probe = Probe { address: PLACE, detour: None };
        let mut seen = CODE;
        seen[0] = INT3;
        assert_eq!(encoding(probe, &seen, &CODE), Some(Encoding::Probe));
        seen[3] = 0x90;
        assert_eq!(encoding(probe, &seen, &CODE), None);
        assert_eq!(encoding(probe, &CODE, &CODE), None);
    }

    #[test]
    fn a_jump_is_explained_only_if_it_leads_to_the_detour_of_its_kprobe() {
        let seen = [JUMP, 0xeb, 0x0f, 0, 0x3f];
        let detour = PLACE + 5 + 0x3f00_0feb;
        let optimised = Probe { address: PLACE, detour: Some(detour) };
        assert_eq!(encoding(optimised, &seen, &CODE), Some(Encoding::Jump(detour)));
        let elsewhere = Probe { address: PLACE, detour: Some(detour + 16) };
        assert_eq!(encoding(elsewhere, &seen, &CODE), None);
        assert_eq!(encoding(Probe { address: PLACE, detour: None }, &seen, &CODE), None);
    }
}
