// SPDX-License-Identifier: Apache-2.0
//! Functions of security modules: `static_calls_table` (security/security.c, 6.12 and later), one
//! row of slots for each hook. A slot with a module's function has `hl`.

use std::collections::{BTreeMap, HashMap};

use kernel_memory::Kernel;

use super::{Gathered, Look};
use crate::check::Missing;
use crate::fields::Fields;
use crate::finding::Hook;

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    if kernel.object("lsm_static_calls_table", 0).is_err() {
        return Err(Missing(
            "hooks of security modules: this kernel has no lsm_static_calls_table (before 6.12)"
                .to_owned(),
        ));
    }
    let table = look.recovered.data_symbol(&kernel, "static_calls_table")?.address;
    let size = kernel.size_of("lsm_static_calls_table")?;
    let slot_size = kernel.size_of("lsm_static_call")?;
    let of_slot = Fields::of(&kernel, "lsm_static_call", &["trampoline", "hl"])?;
    let slots: Vec<u64> = (0..size / slot_size).map(|index| table + index * slot_size).collect();
    let slots = of_slot.read_dense(&kernel, &slots, size);
    let taken: Vec<(u64, u64)> = slots
        .iter()
        .flatten()
        .filter(|slot| slot.value(1) != 0)
        .map(|slot| (slot.value(0), slot.value(1)))
        .collect();
    let of_hook = Fields::of(&kernel, "security_hook_list", &["hook", "lsmid"])?;
    let hooks: Vec<u64> = taken.iter().map(|(_, hook)| *hook).collect();
    let mut names = HashMap::new();
    // What each security module of the kernel's own has.
    let mut own: BTreeMap<String, usize> = BTreeMap::new();
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for ((trampoline, _), hook) in taken.iter().zip(of_hook.read(&kernel, &hooks)) {
        let Some(hook) = hook else { continue };
        let (handler, id) = (hook.value(0), hook.value(1));
        if look.is_kernels_own(handler) {
            *counts.entry(id).or_default() += 1;
            continue;
        }
        let module = names.entry(id).or_insert_with(|| name_of(&kernel, id));
        let target = target(&look.function_at(*trampoline));
        let owner = look.owner_of(gathered, "lsm", &target, hook.address, handler);
        gathered.hooks.push(Hook {
            mechanism: "lsm",
            target,
            handler: look.function_at(handler),
            owner: format!("{owner}, security module {module}"),
        });
    }
    for (id, count) in counts {
        *own.entry(name_of(&kernel, id)).or_default() += count;
    }
    for (module, count) in own {
        gathered.hooks.push(Hook {
            mechanism: "lsm",
            target: format!("{count} security hooks"),
            handler: format!("functions of security module {module}"),
            owner: "kernel".to_owned(),
        });
    }
    Ok(())
}

/// The name of a security module.
fn name_of(kernel: &Kernel<'_>, id: u64) -> String {
    let name = kernel.object("lsm_id", id).and_then(|module| module.string("name"));
    name.unwrap_or_else(|_| "unknown".to_owned())
}

/// The name of a hook from that of the trampoline of one of its slots,
/// `__SCT__lsm_static_call_file_open_0`.
fn target(trampoline: &str) -> String {
    let name = trampoline.strip_prefix("__SCT__lsm_static_call_").unwrap_or(trampoline);
    match name.rsplit_once('_') {
        Some((hook, slot)) if slot.bytes().all(|byte| byte.is_ascii_digit()) => hook.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_named_by_the_trampoline_of_its_slot() {
        assert_eq!(target("__SCT__lsm_static_call_file_open_0"), "file_open");
        assert_eq!(target("__SCT__lsm_static_call_bpf_10"), "bpf");
        assert_eq!(target("something_else"), "something_else");
    }
}
