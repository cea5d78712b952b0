// SPDX-License-Identifier: Apache-2.0
//! `lock` prefixes on a machine with one CPU (`alternatives_smp_unlock`).

use super::Skipped;
use super::code::{Code, array};
use super::machine::Machine;

const LOCK: u8 = 0xf0;
/// The `ds` segment prefix, without effect in 64-bit mode.
const DS: u8 = 0x3e;

/// Takes the prefixes out if the machine has one CPU.
pub fn apply(
    code: &mut impl Code,
    sites: impl IntoIterator<Item = u64>,
    machine: &Machine,
) -> Skipped {
    let mut skipped = Skipped::default();
    if !machine.one_cpu {
        return skipped;
    }
    for address in sites {
        let done = array::<1>(code, address) == Some([LOCK]) && code.write(address, &[DS]);
        skipped.note(done);
    }
    skipped
}
