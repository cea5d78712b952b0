// SPDX-License-Identifier: Apache-2.0
//! Instructions as far as the patchers look at them, in place of the kernel's own decoder
//! (arch/x86/lib/insn.c).

use iced_x86::{Code, Decoder, DecoderOptions};

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Its length in bytes.
    pub(super) length: usize,
    /// The relative branch that it is: offset and width of its displacement.
    pub(super) branch: Option<(usize, usize)>,
    /// `jmp rel32`.
    pub(super) is_long_jump: bool,
    /// The displacement of an operand relative to the instruction pointer.
    pub(super) relative_operand: Option<usize>,
}

/// Decodes the instruction at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Option<Instruction> {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        // `udb`, one byte, which decoders know as an instruction of 32-bit mode.
        return bytes.starts_with(&[0xd6]).then_some(Instruction {
            length: 1,
            branch: None,
            is_long_jump: false,
            relative_operand: None,
        });
    }
    let length = instruction.len();
    let is_branch = instruction.is_jcc_short_or_near()
        || instruction.is_jmp_short_or_near()
        || instruction.is_call_near();
    let short = instruction.is_jcc_short() || instruction.is_jmp_short();
    let width = if short { 1 } else { 4 };
    let relative_operand = instruction
        .is_ip_rel_memory_operand()
        .then(|| decoder.get_constant_offsets(&instruction).displacement_offset());
    Some(Instruction {
        length,
        branch: is_branch.then(|| (length.saturating_sub(width), width)),
        is_long_jump: instruction.code() == Code::Jmp_rel32_64,
        relative_operand,
    })
}

/// Without prefixes, the instruction; and the prefixes, REX among them.
pub(super) fn without_prefixes(bytes: &[u8]) -> (&[u8], &[u8]) {
    let is_prefix = |byte: &u8| {
        matches!(byte, 0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3)
    };
    let legacy = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    let rex = bytes.get(legacy).is_some_and(|byte| (0x40..=0x4f).contains(byte));
    let (prefixes, rest) =
        bytes.split_at_checked(legacy + usize::from(rex)).unwrap_or((bytes, &[]));
    (rest, prefixes)
}

/// The displacement of `width` bytes at an offset.
pub(super) fn displacement(bytes: &[u8], (offset, width): (usize, usize)) -> Option<i32> {
    let field = bytes.get(offset..offset.checked_add(width)?)?;
    match field {
        [byte] => Some(i32::from(byte.cast_signed())),
        field => Some(i32::from_le_bytes(field.try_into().ok()?)),
    }
}

/// `opcode` and the distance from behind it at `address` to `target`.
pub(super) fn branch(opcode: u8, address: u64, target: u64) -> [u8; 5] {
    let distance = target.wrapping_sub(address.wrapping_add(5)) as u32;
    let [a, b, c, d] = distance.to_le_bytes();
    [opcode, a, b, c, d]
}

/// Where a branch of five bytes at `address` with one of these opcodes leads.
pub(super) fn target(address: u64, bytes: &[u8], opcode: u8) -> Option<u64> {
    let [first, distance @ ..] = bytes else { return None };
    let distance = i32::from_le_bytes(distance.try_into().ok()?);
    (*first == opcode).then(|| address.wrapping_add(5).wrapping_add_signed(i64::from(distance)))
}
