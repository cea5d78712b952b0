// SPDX-License-Identifier: Apache-2.0
//! Kprobes (`kprobe_table`, kernel/kprobes.c) and livepatches (`klp_patches`, kernel/livepatch).

use kernel_memory::Object;

use super::{Gathered, Look};
use crate::check::Missing;
use crate::finding::Hook;
use crate::recover::KPROBE_BUCKETS;

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    let table = look.recovered.data_symbol(&kernel, "kprobe_table")?.address;
    for bucket in 0..KPROBE_BUCKETS {
        for probe in kernel.hlist(table.wrapping_add(8 * bucket), "kprobe", "hlist") {
            report(look, gathered, &probe?);
        }
    }
    Ok(())
}

fn report(look: &Look<'_, '_>, gathered: &mut Gathered, probe: &Object<'_>) {
    let target = look.function_at(probe.u64("addr").unwrap_or(0));
    for field in ["pre_handler", "post_handler"] {
        let Ok(mut handler) = probe.u64(field) else { continue };
        if handler == 0 {
            continue;
        }
        let mut place = probe.address();
        // A probe of returns has its handler around it (struct kretprobe).
        if look.function_at(handler) == "pre_handler_kretprobe"
            && let Ok(kretprobe) = probe.container_of("kretprobe", "kp")
            && let Ok(on_return) = kretprobe.u64("handler")
            && on_return != 0
        {
            (handler, place) = (on_return, kretprobe.address());
        }
        let owner = look.owner_of(gathered, "kprobe", &target, place, handler);
        gathered.hooks.push(Hook {
            mechanism: "kprobe",
            target: target.clone(),
            handler: look.function_at(handler),
            owner,
        });
    }
}

pub(super) fn livepatches(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    let head = look.recovered.data_symbol(&kernel, "klp_patches")?.address;
    for patch in kernel.list(head, "klp_patch", "list") {
        let patch = patch?;
        let module = patch.string("mod->name").unwrap_or_else(|_| "unknown".to_owned());
        for object in kernel.list(patch.field("obj_list")?.address(), "klp_object", "node") {
            let functions = object?.field("func_list")?.address();
            for function in kernel.list(functions, "klp_func", "node") {
                let function = function?;
                let (new, place) = (function.u64("new_func")?, function.address());
                let target = function.string("old_name")?;
                let owner = look.owner_of(gathered, "livepatch", &target, place, new);
                gathered.hooks.push(Hook {
                    mechanism: "livepatch",
                    target,
                    handler: look.function_at(new),
                    owner: format!("{owner} (patch {module})"),
                });
            }
        }
    }
    Ok(())
}
