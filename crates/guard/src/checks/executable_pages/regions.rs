// SPDX-License-Identifier: Apache-2.0
//! Which addresses may be executable, and on whose behalf.

use std::ops::Range;

use kernel_memory::{Kernel, PAGE_SIZE};

use crate::kprobes;
use crate::owners::{Owner, Owners};
use crate::recover::Recovered;

/// What executable memory a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The kernel's own code.
    Text,
    /// Module text.
    Module,
    /// A BPF image. What lies between images must be filler.
    Bpf,
    /// A trampoline of ftrace, to the end of its page: what is left of the page is not cleared by
    /// the kernel (`alloc_tramp`, arch/x86/kernel/ftrace.c), so it is watched for changes instead.
    Ftrace,
    /// Slots of kprobes, whole pages.
    Kprobes,
    /// Code that starts further processors and reboots, below 1 MiB (arch/x86/realmode).
    RealMode,
    /// A page for calls to the hypervisor.
    Hypercalls,
    /// The page of the old system calls, executed by processes only.
    Vsyscall,
}

/// A range of addresses that may be executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Its addresses.
    pub(super) range: Range<u64>,
    /// What it is.
    pub(super) kind: Kind,
}

/// `VSYSCALL_ADDR` (arch/x86/include/uapi/asm/vsyscall.h).
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

/// All regions, in order of address, not overlapping.
pub(super) fn gather(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    owners: &Owners,
    direct_map: u64,
) -> Vec<Region> {
    let mut regions = Vec::new();
    let mut add = |start: u64, end: u64, kind| {
        if start < end {
            regions.push(Region { range: start..end, kind });
        }
    };
    // `mark_rodata_ro` protects up to the end of the page in which the text ends.
    add(page_of(owners.text.start), page_after(owners.text.end), Kind::Text);
    for image in &owners.images {
        let range = &image.range;
        match image.owner {
            Owner::Kernel { .. } => {}
            Owner::Module(_) => add(page_of(range.start), page_after(range.end), Kind::Module),
            Owner::Bpf(_) => add(range.start, range.end, Kind::Bpf),
            Owner::FtraceTrampoline(_) => {
                add(page_of(range.start), page_after(range.end), Kind::Ftrace);
            }
        }
    }
    for page in kprobes::pages(kernel, recovered) {
        add(page, page + PAGE_SIZE, Kind::Kprobes);
    }
    if let Some(range) = real_mode(kernel, recovered) {
        let (start, end) = (direct_map + range.start, direct_map + range.end);
        add(page_of(start), page_after(end), Kind::RealMode);
    }
    if let Some(page) = hypercalls(kernel, recovered) {
        add(page, page.saturating_add(PAGE_SIZE), Kind::Hypercalls);
    }
    add(VSYSCALL, VSYSCALL + PAGE_SIZE, Kind::Vsyscall);
    disjoint(regions)
}

/// Sorts the regions, and cuts what overlaps from the later one.
fn disjoint(mut regions: Vec<Region>) -> Vec<Region> {
    regions.sort_by_key(|region| (region.range.start, region.range.end));
    let mut end = 0;
    for region in &mut regions {
        region.range.start = region.range.start.max(end);
        end = end.max(region.range.end);
    }
    regions.retain(|region| region.range.start < region.range.end);
    regions
}

/// The parts of `range` that no region covers, each with the first region behind it.
pub(super) fn uncovered(
    range: Range<u64>,
    regions: &[Region],
) -> Vec<(Range<u64>, Option<&Region>)> {
    let mut parts = Vec::new();
    let mut at = range.start;
    let first = regions.partition_point(|region| region.range.end <= range.start);
    for region in regions.iter().skip(first) {
        if region.range.start >= range.end {
            break;
        }
        if region.range.start > at {
            parts.push((at..region.range.start, Some(region)));
        }
        at = region.range.end;
    }
    if at < range.end {
        let behind = regions.iter().find(|region| region.range.start >= range.end);
        parts.push((at..range.end, behind));
    }
    parts
}

pub(super) fn page_of(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

pub(super) fn page_after(address: u64) -> u64 {
    page_of(address.saturating_add(PAGE_SIZE - 1))
}

/// Physical addresses of the code that `set_real_mode_permissions` makes executable.
fn real_mode(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Option<Range<u64>> {
    let header = recovered.data_symbol(kernel, "real_mode_header").ok()?;
    let header = kernel.object("real_mode_header", kernel.u64_at(header.address).ok()?).ok()?;
    let range = header.u64("text_start").ok()?..header.u64("ro_end").ok()?;
    // Where processors begin that cannot address more (`reserve_real_mode`, arch/x86/realmode/init.c).
    (range.end <= 1 << 20).then_some(range)
}

/// `X86_HYPER_MS_HYPERV` (arch/x86/include/asm/hypervisor.h).
const HYPER_V: u32 = 2;

/// The page of calls to Hyper-V. Under any other hypervisor the kernel makes none (`hyperv_init`,
/// arch/x86/hyperv/hv_init.c), and whatever the pointer leads to is somebody else's. Which hypervisor it
/// is lies in read-only data, which another check compares.
fn hypercalls(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Option<u64> {
    let hypervisor = recovered.data_symbol(kernel, "x86_hyper_type");
    if hypervisor.is_ok_and(|at| kernel.u32_at(at.address) != Ok(HYPER_V)) {
        return None;
    }
    let pointer = recovered.data_symbol(kernel, "hv_hypercall_pg").ok()?;
    kernel.u64_at(pointer.address).ok().filter(|page| *page != 0)
}

#[cfg(test)]
mod tests {
    use kernel_image::Symbols;
    use kernel_image::btf::{Btf, Builder};
    use kernel_memory::FakeMemory;

    use super::*;

    #[test]
    fn the_page_of_hypercalls_is_believed_under_hyper_v_alone() {
        const TYPE: u64 = 0xffff_ffff_8200_0000;
        const POINTER: u64 = 0xffff_ffff_8200_1000;
        const PAGE: u64 = 0xffff_ffff_c000_0000;
        let types = Btf::parse(&Builder::new().finish()).unwrap();
        let symbols = [(TYPE, "x86_hyper_type"), (POINTER, "hv_hypercall_pg")];
        let symbols = Symbols::from_iter(symbols.map(|(at, name)| (at, b'd', name)));
        for (hypervisor, expected) in [(0, None), (4, None), (HYPER_V, Some(PAGE))] {
            let mut memory = FakeMemory::new();
            memory.write_u64(TYPE, hypervisor.into());
            memory.write_u64(POINTER, PAGE);
            let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
            assert_eq!(hypercalls(&kernel, &mut Recovered::default()), expected, "{hypervisor}");
        }
    }

    fn region(range: Range<u64>) -> Region {
        Region { range, kind: Kind::Bpf }
    }

    #[test]
    fn what_no_region_covers_is_found_between_before_and_behind() {
        let regions = [region(10..20), region(30..40)];
        let parts: Vec<Range<u64>> =
            uncovered(0..50, &regions).into_iter().map(|(range, _)| range).collect();
        assert_eq!(parts, [0..10, 20..30, 40..50]);
        assert_eq!(uncovered(12..18, &regions), []);
        assert_eq!(uncovered(15..35, &regions), [(20..30, Some(&regions[1]))]);
        assert_eq!(uncovered(41..50, &regions), [(41..50, None)]);
    }

    #[test]
    fn a_forged_range_that_overlaps_takes_nothing_from_its_neighbour() {
        assert_eq!(
            disjoint(vec![region(0..30), region(10..20), region(25..40)]),
            [region(0..30), region(30..40)]
        );
    }
}
