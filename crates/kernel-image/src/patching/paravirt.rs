// SPDX-License-Identifier: Apache-2.0
//! Calls through `pv_ops` (`apply_paravirt`, up to 6.7; later kernels have alternatives for them).

use super::Skipped;
use super::code::Code;
use super::instruction::branch;
use super::machine::{Machine, NopStyle};
use super::nops;
use crate::tables::ParavirtSite;

/// Makes the calls direct.
pub fn apply(code: &mut impl Code, sites: &[ParavirtSite], machine: &Machine) -> Skipped {
    let mut skipped = Skipped::default();
    for site in sites {
        skipped.note(one(code, site, machine).is_some());
    }
    skipped
}

fn one(code: &mut impl Code, site: &ParavirtSite, machine: &Machine) -> Option<()> {
    let slot = machine.pv_ops.wrapping_add(8 * u64::from(site.operation));
    let target = match machine.pointers.get(&slot)? {
        0 => machine.bug_function,
        target => *target,
    };
    let mut bytes = vec![0; usize::from(site.length)];
    let mut rest = bytes.as_mut_slice();
    if target != machine.nop_function {
        let (call, after) = rest.split_at_mut_checked(5)?;
        call.copy_from_slice(&branch(0xe8, site.address, target));
        rest = after;
    }
    nops::fill(rest, NopStyle::Short);
    code.write(site.address, &bytes).then_some(())
}
