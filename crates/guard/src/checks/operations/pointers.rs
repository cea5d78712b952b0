// SPDX-License-Identifier: Apache-2.0
//! Pointers to code in the kernel's writable data: protocols, drivers, sysctls, timers, notifiers…
//!
//! The image says which words these are and where each leads. The kernel sets some of them anew while
//! it boots and runs, to others of its functions; a few are places at which modules register.

use std::collections::BTreeSet;

use kernel_memory::Kernel;

use super::places::{Place, Places};
use super::{Found, Wrong};
use crate::baseline::pointers::{FACT, Pointer, from_words};
use crate::batch::Places as Batch;
use crate::check::{Missing, System};
use crate::confirm::all_keys;
use crate::finding::Hook;

/// Pointers at which modules register by an interface, with their symbols. What they lead to is told
/// as a hook.
const REGISTERED: [&str; 2] = [
    // kernel/trace/ftrace.c: the function of the one user of ftrace that there is.
    "ftrace_trace_function",
    // kernel/panic.c: what blinks after a panic; drivers/input/serio/i8042.c sets it.
    "panic_blink",
];

/// The pointers that are looked at, in order of address, and how they are read.
#[derive(Debug)]
pub(super) struct Expected {
    pointers: Vec<Pointer>,
    batch: Batch,
}

impl Expected {
    pub(super) fn of(pointers: Vec<Pointer>) -> Self {
        let batch = Batch::of(pointers.iter().map(|pointer| (pointer.address, 8)));
        Self { pointers, batch }
    }
}

/// The pointers that are looked at.
pub(super) fn expected(system: &System<'_>) -> Result<Expected, Missing> {
    let System { kernel, baseline, .. } = system;
    let words = baseline.fact(FACT).ok_or_else(|| {
        Missing::because(
            "pointers to code in the kernel's data: the baseline is not from the kernel's image, \
             which says where they are",
        )
    })?;
    let text = kernel.symbol("_stext")?;
    let mut pointers =
        from_words(words, text).filter(|pointers| !pointers.is_empty()).ok_or_else(|| {
            Missing::because("pointers to code in the kernel's data: the image lists none")
        })?;
    // What static calls lead to is for the check of these.
    let keys: BTreeSet<u64> = all_keys(baseline.sites(kernel)).collect();
    pointers.retain(|pointer| !keys.contains(&pointer.address));
    Ok(Expected::of(pointers))
}

/// Those that lead elsewhere than by the image.
fn changed(kernel: &Kernel<'_>, expected: &Expected) -> Result<Vec<(Pointer, u64)>, Missing> {
    let mut changed = Vec::new();
    expected.batch.visit(kernel.memory, &mut |index, bytes| {
        let seen = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if let Some(pointer) = expected.pointers.get(index)
            && seen != pointer.target
            // A null pointer leads nowhere: it is how the kernel switches an operation off.
            && seen != 0
        {
            changed.push((*pointer, seen));
        }
    })?;
    Ok(changed)
}

/// What is wrong with those that changed.
pub(super) fn look(
    kernel: &Kernel<'_>,
    places: &Places,
    expected: &Expected,
    found: &mut Found,
) -> Result<(), Missing> {
    for (pointer, seen) in changed(kernel, expected)? {
        let name = name(kernel, pointer.address);
        let handler = places.owners.describe(kernel, seen);
        let hook = |owner: &str| Hook {
            mechanism: "operation",
            target: name.clone(),
            handler: handler.clone(),
            owner: owner.to_owned(),
        };
        let Some(objection) = places.objection(kernel, &Place::Image, seen) else {
            found.hooks.push(hook("kernel"));
            continue;
        };
        let owner = places.owners.of(kernel, seen).map(|owner| owner.to_string());
        if REGISTERED.contains(&name.as_str())
            && let Some(owner) = &owner
        {
            found.hooks.push(hook(owner));
            continue;
        }
        let expected = places.owners.describe(kernel, pointer.target);
        found.wrong.entry(pointer.address).or_insert(Wrong {
            target: seen,
            what: name,
            expected: format!("it leads to {expected}, as the image says"),
            seen: format!("it leads to {handler}, {objection}"),
            technique: "operation replaced",
            owner,
        });
    }
    Ok(())
}

fn name(kernel: &Kernel<'_>, address: u64) -> String {
    match kernel.symbols.containing(address) {
        Some((symbol, 0)) => symbol.name.to_owned(),
        Some((symbol, offset)) => format!("{}+{offset:#x}", symbol.name),
        None => format!("{address:#x}"),
    }
}
