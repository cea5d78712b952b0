// SPDX-License-Identifier: Apache-2.0
//! `endbr64` of functions that nobody calls indirectly (`apply_ibt_endbr` of 6.1,
//! `apply_seal_endbr`). It is done whether the CPU has IBT or not.

use super::Skipped;
use super::code::{Code, array};
use super::machine::Machine;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Seals the sites.
pub fn apply(
    code: &mut impl Code,
    sites: impl IntoIterator<Item = u64>,
    machine: &Machine,
) -> Skipped {
    let mut skipped = Skipped::default();
    for address in sites {
        let sealed = array::<4>(code, address) == Some(ENDBR64)
            && code.write(address, &machine.dialect.seal);
        skipped.note(sealed);
    }
    skipped
}
