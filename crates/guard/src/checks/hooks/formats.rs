// SPDX-License-Identifier: Apache-2.0
//! Formats of executables: `formats` (fs/exec.c), whose handlers are asked at each exec.

use super::{Gathered, Look};
use crate::check::Missing;
use crate::finding::Hook;

/// The handlers of `struct linux_binfmt` (include/linux/binfmts.h); each may be null. `load_shlib`
/// was removed in 6.15.
const HANDLERS: [&str; 3] = ["load_binary", "load_shlib", "core_dump"];

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    let head = look.recovered.data_symbol(&kernel, "formats")?.address;
    for format in kernel.list(head, "linux_binfmt", "lh") {
        let format = format?;
        for member in HANDLERS {
            if !format.has(member) {
                continue;
            }
            let field = format.field(member)?;
            let handler = field.u64("")?;
            if handler == 0 {
                continue;
            }
            let target = format!("format of executables, {member}");
            let owner = look.owner_of(gathered, "binfmt", &target, field.address(), handler);
            gathered.hooks.push(Hook {
                mechanism: "binfmt",
                target,
                handler: look.function_at(handler),
                owner,
            });
        }
    }
    Ok(())
}
