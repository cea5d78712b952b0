// SPDX-License-Identifier: Apache-2.0
//! BPF programs found by what they look like.
//!
//! `struct bpf_prog` begins a vmalloc area of its own (`bpf_prog_alloc_no_stats`,
//! kernel/bpf/core.c), so the first bytes of each area in the page tables are all that must be
//! looked at. A program is told by its `aux`, which points back at it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kernel_memory::Kernel;
use kernel_memory::page_tables::{Only, PageTables};

use crate::checks::bpf::objects::{self, Program};
use crate::recover::Recovered;
use crate::views::BpfKind;

/// What one entry of the top table with 4 levels covers. The kernel fills the vmalloc area from its
/// start, so all programs of a system lie in few such parts of it.
const PART: u64 = 1 << 39;

/// Areas that are looked at.
const MOST_AREAS: usize = 1 << 20;

/// Whether a program is one that a socket or seccomp made of classic BPF: such have no id.
pub(super) fn is_filter(program: &Program) -> bool {
    program.consistent && program.id == 0 && program.code != 0
}

/// Where the structures of classic filters are, by where their code starts.
///
/// Programs that have an id tell which part of the address space to look through, and where there are
/// none, the kernel's own variable does.
pub(super) fn filters(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    tables: &PageTables<'_>,
) -> BTreeMap<u64, u64> {
    let Ok(known) = objects::entries(kernel, recovered, BpfKind::Program) else {
        return BTreeMap::new();
    };
    let mut addresses: Vec<u64> = known.iter().map(|entry| entry.address).collect();
    if addresses.is_empty() {
        // `vmalloc_base`, arch/x86/kernel/head64.c (6.1 to 7.3).
        let base = kernel.symbol("vmalloc_base").and_then(|at| kernel.u64_at(at));
        addresses.extend(base);
    }
    let (Some(lowest), Some(highest)) = (addresses.iter().min(), addresses.iter().max()) else {
        return BTreeMap::new();
    };
    let (lowest, highest) = (*lowest, *highest);
    let (lowest, highest) = (lowest & !(PART - 1), highest | (PART - 1));
    let mut areas: Vec<u64> = Vec::new();
    let mut end = 0;
    // What cannot be walked is not found, and then not explained either.
    let _ = tables.leaves(Only::Present, &mut |page| {
        // A guard page stands before each area.
        let begins_area = page.start != end;
        end = page.end();
        if page.start > highest || areas.len() >= MOST_AREAS {
            return ControlFlow::Break(());
        }
        if begins_area && page.start >= lowest {
            areas.push(page.start);
        }
        ControlFlow::Continue(())
    });
    let programs = objects::programs(kernel, &areas).unwrap_or_default();
    let filters = programs.iter().filter(|program| is_filter(program));
    filters.map(|program| (program.code, program.address)).collect()
}
