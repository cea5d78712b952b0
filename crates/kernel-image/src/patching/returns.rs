// SPDX-License-Identifier: Apache-2.0
//! Jumps to the return thunk (`apply_returns`).

use super::Skipped;
use super::code::{Code, array};
use super::instruction::{branch, target};
use super::machine::{Machine, Return};
use super::nops::INT3;

/// Rewrites the sites.
pub fn apply(
    code: &mut impl Code,
    sites: impl IntoIterator<Item = u64>,
    machine: &Machine,
) -> Skipped {
    let mut skipped = Skipped::default();
    for address in sites {
        skipped.note(one(code, address, machine).is_some());
    }
    skipped
}

fn one(code: &mut impl Code, address: u64, machine: &Machine) -> Option<()> {
    let bytes = array::<5>(code, address)?;
    if target(address, &bytes, 0xe9)? != machine.return_thunk {
        return None;
    }
    code.write(address, &encode(machine, address)).then_some(())
}

/// What a return at an address becomes (`patch_return`). In the trampoline of a static call it is
/// `__static_call_transform` that writes, and it writes the same.
fn encode(machine: &Machine, address: u64) -> [u8; 5] {
    let plain = [0xc3, INT3, INT3, INT3, INT3];
    match machine.returns {
        Return::Plain => plain,
        Return::Thunk(thunk) => branch(0xe9, address, thunk),
        Return::LowerHalf(thunk) if address & 0x20 == 0 => branch(0xe9, address, thunk),
        Return::LowerHalf(_) => plain,
    }
}
