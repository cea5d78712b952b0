// SPDX-License-Identifier: Apache-2.0
//! What the kernel made of a module's code when it loaded it.

use std::collections::BTreeMap;
use std::ops::Range;

use kernel_image::module::Linked;
use kernel_image::patching::{self, Code, ItsPages, Machine, its};
use kernel_memory::Kernel;

use crate::baseline::{Baseline, machine};
use crate::check::{Missing, System};

/// What the boot code saw. The kernel patches a module by the same as itself.
pub(super) fn machine(kernel: &Kernel<'_>) -> Result<Machine, Missing> {
    let find = |name: &str| kernel.symbols.address_of(name);
    machine::observe(kernel, &find, machine::dialect_of(kernel))
}

/// A module's code, and the kernel's, which its calls lead to.
struct WithKernel<'m, 'f> {
    module: &'m mut Linked<'f>,
    kernel: &'m Baseline,
}

impl Code for WithKernel<'_, '_> {
    fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.module.read(address, length).or_else(|| self.kernel.bytes_at(address, length))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.module.write(address, bytes)
    }
}

/// Patches a module as the kernel did.
pub(super) fn apply(
    system: &System<'_>,
    linked: &mut Linked<'_>,
    text: &Range<u64>,
    machine: &Machine,
) -> Result<(), Missing> {
    let kernel = &system.kernel;
    let mut machine = machine.clone();
    machine::read_pointers(kernel, linked.pointer_slots(&machine), &mut machine)?;
    if let Some(depth) = &mut machine.call_depth {
        // Functions of the module have such padding too.
        depth.text.push(text.clone());
    }
    let entries = linked.entries();
    let mut pages = thunks(kernel, linked, &entries.retpolines, &machine);
    let mut code = WithKernel { module: linked, kernel: system.baseline };
    // What is skipped is not patched, and so differs from memory if the kernel did patch it.
    let _ = patching::apply(&mut code, &entries, &machine, &mut pages, text.clone());
    same_thunks(kernel, &pages)
}

/// The pages of thunks that the kernel made for this module. Which thunk a site uses follows from
/// the order of the sites; where the page is, most of its sites agree on.
fn thunks(kernel: &Kernel<'_>, linked: &Linked<'_>, sites: &[u64], machine: &Machine) -> ItsPages {
    let mut votes: BTreeMap<usize, BTreeMap<u64, usize>> = BTreeMap::new();
    for planned in its::plan(linked, sites.iter().copied(), machine) {
        let target = linked.bytes_at(planned.site, 1).and_then(|first| {
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

/// Whether these pages hold the thunks that they must: where they are was learned from the code
/// that is about to be judged.
fn same_thunks(kernel: &Kernel<'_>, pages: &ItsPages) -> Result<(), Missing> {
    for (address, expected) in pages.pages() {
        let seen = kernel.bytes_at(address, expected.len())?;
        if seen != expected {
            return Err(Missing(format!("its thunks at {address:#x} are not those that it needs")));
        }
    }
    Ok(())
}
