// SPDX-License-Identifier: Apache-2.0
//! A gate of the IDT (`struct gate_struct`, arch/x86/include/asm/desc_defs.h; Intel SDM volume 3,
//! 6.14.1).

/// Bytes of a gate.
pub(super) const SIZE: usize = 16;

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gate {
    /// Where the vector leads.
    pub(super) handler: u64,
    /// The code segment.
    pub(super) segment: u16,
    /// The interrupt stack that is taken, from 1 on; 0 for none.
    pub(super) stack: u8,
    /// 14 for an interrupt gate.
    pub(super) kind: u8,
    /// From which ring on it can be raised by an instruction.
    pub(super) ring: u8,
    /// Whether it is there at all.
    pub(super) present: bool,
}

impl Gate {
    pub(super) fn decode(bytes: [u8; SIZE]) -> Self {
        let raw = u128::from_le_bytes(bytes);
        let bits = (raw >> 32) as u16;
        Self {
            handler: (raw as u64 & 0xffff) | (((raw >> 48) as u64 & 0xffff_ffff_ffff) << 16),
            segment: (raw >> 16) as u16,
            stack: (bits & 7) as u8,
            kind: (bits >> 8 & 31) as u8,
            ring: (bits >> 13 & 3) as u8,
            present: bits >> 15 == 1,
        }
    }
}
