// SPDX-License-Identifier: Apache-2.0
//! Static calls of the kernel that lead to a module (`__static_call_update`,
//! kernel/static_call_inline.c).
//!
//! Most lead to functions of the kernel, those of tracepoints to whoever is attached there, which
//! that part tells. A few of them are made for modules, such as KVM's; any other that leads to one
//! was pointed there by somebody. Those that lead to nobody are for the check of static calls.

use super::{Gathered, Look};
use crate::check::Missing;
use crate::confirm::all_keys;
use crate::finding::Hook;
use crate::keys::Keys;
use crate::owners::Owner;

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    if look.static_calls.is_none() {
        let function = kernel.offset_of("static_call_key", "func")?;
        let keys = all_keys(look.system.baseline.sites(&kernel));
        *look.static_calls = Some(Keys::of(keys, function));
    }
    let Some(keys) = look.static_calls.as_mut() else { return Ok(()) };
    keys.read(kernel.memory)?;
    for (_, key, function) in keys.iter() {
        let function = u64::from_le_bytes(function);
        if function == 0 || look.owners.text.contains(&function) {
            continue;
        }
        let Some(Owner::Module(module)) = look.owners.of(&kernel, function) else { continue };
        let target = match kernel.symbols.containing(key) {
            Some((symbol, 0)) => symbol.name.trim_start_matches("__SCK__").to_owned(),
            _ => format!("the static call with its key at {key:#x}"),
        };
        if target.starts_with("tp_func_") {
            continue;
        }
        gathered.hooks.push(Hook {
            mechanism: "static call",
            target,
            handler: look.owners.describe(&kernel, function),
            owner: format!("module {module}"),
        });
    }
    Ok(())
}
