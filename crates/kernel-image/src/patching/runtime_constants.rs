// SPDX-License-Identifier: Apache-2.0
//! Values that are written into instructions once they are known (`runtime_const_init`,
//! arch/x86/include/asm/runtime-const.h, from 6.11).

use super::Skipped;
use super::code::Code;
use crate::tables::RuntimeConstantKind;

/// Writes `value` at the sites of a constant.
pub fn apply(
    code: &mut impl Code,
    sites: &[u64],
    kind: RuntimeConstantKind,
    value: u64,
) -> Skipped {
    let bytes = value.to_le_bytes();
    let bytes = bytes.get(..usize::from(kind.length())).unwrap_or_default();
    let mut skipped = Skipped::default();
    for site in sites {
        skipped.note(code.write(*site, bytes));
    }
    skipped
}
