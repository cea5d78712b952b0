// SPDX-License-Identifier: Apache-2.0
//! What the kernel made of a module's code when it loaded it.

use std::ops::Range;

use kernel_image::module::Linked;
use kernel_image::patching::{self, CallDepth, Code, Machine, Pieces};
use kernel_memory::Kernel;

use super::subject::Subject;
use crate::baseline::{Baseline, its, machine};
use crate::check::{Missing, System};
use crate::checks::modules::loaded::Loaded;
use crate::sites::target_of;

/// What the boot code saw. The kernel patches a module by the same as itself.
///
/// With call depth tracking the functions of modules are counted too (`is_coretext`,
/// arch/x86/kernel/callthunks.c, 6.12).
pub(super) fn machine(kernel: &Kernel<'_>, modules: &[Loaded]) -> Result<Machine, Missing> {
    let find = |name: &str| kernel.symbols.address_of(name);
    let mut machine = machine::observe(kernel, &find, machine::dialect_of(kernel))?;
    if let Some(depth) = &mut machine.call_depth {
        // One that went meanwhile is called by nobody.
        let subjects = modules.iter().flat_map(|one| Subject::read(kernel, one.address));
        depth.text.extend(subjects.map(|subject| subject.text));
    }
    Ok(machine)
}

/// A module's code, and what its calls lead to: the kernel's, and the padding before functions of
/// other modules.
pub(super) struct WithOthers<'m, 'f> {
    pub(super) module: &'m mut Linked<'f>,
    pub(super) kernel: &'m Baseline,
    pub(super) paddings: Pieces,
}

impl Code for WithOthers<'_, '_> {
    fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        let others = || self.paddings.read(address, length);
        let kernel = || self.kernel.bytes_at(address, length).or_else(others);
        self.module.read(address, length).or_else(kernel)
    }

    /// Padding of the kernel and of other modules is filled too when a module is the first to call a
    /// function (`patch_dest`, arch/x86/kernel/callthunks.c, 6.12). What it may hold is judged there.
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.module.write(address, bytes) || self.read(address, bytes.len()).is_some()
    }
}

/// The padding before the functions of other modules that a module calls, as it is now.
fn called_paddings(
    system: &System<'_>,
    linked: &Linked<'_>,
    own: &Range<u64>,
    calls: &[u64],
    depth: &CallDepth,
) -> Pieces {
    let called = calls.iter().filter_map(|at| target_of(*at, linked.read(*at, 5)?, &[0xe8]));
    let outside = |at: &u64| !own.contains(at) && system.baseline.bytes_at(*at, 1).is_none();
    let functions = called.filter(|at| outside(at) && depth.counts(*at));
    let length = depth.template.len() as u32;
    let mut places: Vec<_> = functions.map(|at| (at.wrapping_sub(depth.size()), length)).collect();
    places.sort_unstable();
    places.dedup();
    let mut paddings = Pieces::new();
    for ((start, _), bytes) in places.iter().zip(system.kernel.memory.read_many(&places)) {
        // One that cannot be read is not filled, and the call not redirected: it shows as a change.
        if let Ok(bytes) = bytes {
            paddings.add(*start, bytes);
        }
    }
    paddings
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
    let entries = linked.entries();
    let paddings = match &machine.call_depth {
        Some(depth) => called_paddings(system, linked, text, &entries.calls, depth),
        None => Pieces::new(),
    };
    let plan = patching::its::plan(linked, entries.retpolines.iter().copied(), &machine);
    let mut pages = its::learn(kernel, linked, plan);
    let mut code = WithOthers { module: linked, kernel: system.baseline, paddings };
    // What is skipped is not patched, and so differs from memory if the kernel did patch it.
    let _ = patching::apply(&mut code, &entries, &machine, &mut pages, text.clone());
    its::compare(kernel, &pages)
}
