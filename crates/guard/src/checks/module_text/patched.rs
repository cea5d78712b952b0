// SPDX-License-Identifier: Apache-2.0
//! What the kernel made of a module's code when it loaded it.

use std::ops::Range;

use kernel_image::module::Linked;
use kernel_image::patching::{self, Code, Machine};
use kernel_memory::Kernel;

use crate::baseline::{Baseline, its, machine};
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
    let plan = patching::its::plan(linked, entries.retpolines.iter().copied(), &machine);
    let mut pages = its::learn(kernel, linked, plan);
    let mut code = WithKernel { module: linked, kernel: system.baseline };
    // What is skipped is not patched, and so differs from memory if the kernel did patch it.
    let _ = patching::apply(&mut code, &entries, &machine, &mut pages, text.clone());
    its::compare(kernel, &pages)
}
