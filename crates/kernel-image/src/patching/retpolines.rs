// SPDX-License-Identifier: Apache-2.0
//! Calls and jumps through a thunk for a register (`apply_retpolines`).

use super::Skipped;
use super::code::Code;
use super::instruction::branch;
use super::its::ItsPages;
use super::machine::{Machine, Retpoline};
use super::nops::{self, INT3, NOP};

/// A call, jump or conditional jump to the thunk of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Through {
    /// The opcode: e8, e9, or 80 to 8f behind 0f.
    opcode: u8,
    /// The number of the register.
    register: u8,
    /// 5, or 6 with a prefix or as a conditional jump.
    length: usize,
}

impl Through {
    /// Decodes the instruction at a site.
    pub(super) fn at(code: &impl Code, address: u64, thunks: u64) -> Option<Self> {
        let bytes = code.read(address, 6).or_else(|| code.read(address, 5))?;
        let (opcode, prefix) = match bytes {
            [opcode @ (0xe8 | 0xe9), ..] => (*opcode, 0),
            [0x2e, opcode @ (0xe8 | 0xe9), ..] => (*opcode, 1),
            [0x0f, opcode @ 0x80..=0x8f, ..] => (*opcode, 1),
            _ => return None,
        };
        let distance = bytes.get(1 + prefix..5 + prefix)?;
        let distance = i64::from(i32::from_le_bytes(distance.try_into().ok()?));
        let length = 5 + prefix;
        let target = address.wrapping_add(length as u64).wrapping_add_signed(distance);
        // RETPOLINE_THUNK_SIZE.
        let into = target.checked_sub(thunks)?;
        let register = u8::try_from(into / 32).ok().filter(|_| into % 32 == 0)?;
        // %rsp is never called through.
        (register < 16 && register != 4).then_some(Self { opcode, register, length })
    }

    fn is_conditional(self) -> bool {
        (0x80..=0x8f).contains(&self.opcode)
    }

    /// The same, leading elsewhere (`__emit_trampoline`).
    fn to(self, address: u64, target: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_conditional() {
            bytes.push(0x0f);
        } else if self.length == 6 {
            bytes.push(0x2e);
        }
        let at = address.wrapping_add(bytes.len() as u64);
        bytes.extend(branch(self.opcode, at, target));
        bytes
    }

    /// What comes before the indirect instruction itself, and its opcode.
    fn prologue(self, lfence: bool) -> (Vec<u8>, u8) {
        let mut bytes = Vec::new();
        let mut opcode = self.opcode;
        if self.is_conditional() {
            // A jump over the rest on the inverse condition.
            bytes.extend([0x70 + (opcode & 0xf ^ 1), (self.length - 2) as u8]);
            opcode = 0xe9;
        }
        if lfence {
            bytes.extend([0x0f, 0xae, 0xe8]);
        }
        (bytes, opcode)
    }

    /// The register, if the indirect instruction would stand in the lower half of a cache line,
    /// where some processors need another thunk (`cpu_wants_indirect_its_thunk_at`).
    pub(super) fn lower_half(self, address: u64, lfence: bool) -> Option<u8> {
        let before = self.prologue(lfence).0.len() as u64;
        let last = address.wrapping_add(before + 1 + u64::from(self.register / 8));
        (last & 0x20 == 0).then_some(self.register)
    }

    /// `call *%reg` or `jmp *%reg`, filled up (`emit_indirect`).
    fn inline(self, machine: &Machine) -> Vec<u8> {
        let lfence = machine.retpoline == Retpoline::Lfence;
        let (mut bytes, opcode) = self.prologue(lfence);
        let left = self.length.saturating_sub(bytes.len());
        let excess = left.saturating_sub(2 + usize::from(self.register >= 8));
        let is_jump = opcode == 0xe9;
        if machine.dialect.prefixed_calls && !is_jump && excess <= 3 {
            bytes.extend(std::iter::repeat_n(0x2e, excess));
        }
        if self.register >= 8 {
            bytes.push(0x41);
        }
        let operation = if is_jump { 0xe0 } else { 0xd0 };
        bytes.extend([0xff, operation + self.register % 8]);
        if is_jump && machine.dialect.prefixed_calls {
            bytes.extend(std::iter::repeat_n(INT3, excess));
        } else if is_jump && bytes.len() < self.length {
            bytes.push(INT3);
        }
        bytes.resize(bytes.len().max(self.length), NOP);
        nops::optimize(&mut bytes, machine.dialect);
        bytes
    }
}

/// Rewrites the sites.
pub fn apply(
    code: &mut impl Code,
    sites: impl IntoIterator<Item = u64>,
    machine: &Machine,
    its: &mut ItsPages,
) -> Skipped {
    let mut skipped = Skipped::default();
    for address in sites {
        skipped.note(one(code, address, machine, its).is_some());
    }
    skipped
}

fn one(code: &mut impl Code, address: u64, machine: &Machine, its: &mut ItsPages) -> Option<()> {
    let through = Through::at(code, address, machine.indirect_thunks)?;
    let lfence = machine.retpoline == Retpoline::Lfence;
    let bytes = match (machine.retpoline, &machine.call_depth) {
        (Retpoline::Thunk, None) => return Some(()),
        (Retpoline::Thunk, Some(depth)) => {
            let thunks = if through.opcode == 0xe8 { depth.call_thunks } else { depth.jump_thunks };
            through.to(address, thunks + 32 * u64::from(through.register))
        }
        _ => match through.lower_half(address, lfence).filter(|_| machine.its) {
            Some(register) => through.to(address, its.allocate(register)?),
            None => through.inline(machine),
        },
    };
    // A sequence that does not fit is not written (`len == insn.length`).
    (bytes.len() == through.length && code.write(address, &bytes)).then_some(())
}
