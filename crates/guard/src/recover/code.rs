// SPDX-License-Identifier: Apache-2.0
//! Which data a function refers to.
//!
//! The operands are taken as they are encoded: compilers differ in registers, order and addressing
//! mode, but a static variable is reached either relative to the instruction pointer or by a
//! 32-bit sign-extended address (`-mcmodel=kernel`), as memory operand or as immediate.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use kernel_memory::Kernel;

/// No function that names a variable we look for is longer; it bounds what a hole in the symbol
/// table can make us read.
const LONGEST_FUNCTION: u64 = 16 * 1024;

/// The window of the kernel image on x86-64 (Documentation/arch/x86/x86_64/mm.rst): 1 GiB with
/// KASLR, from which modules begin.
const IMAGE_WINDOW: std::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;

/// How an instruction uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It loads or stores that many bytes there.
    Access(usize),
    /// It takes the address itself.
    Address,
}

/// One reference from code to data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The data address.
    pub address: u64,
    /// How it is used.
    pub usage: Use,
    /// The instruction that refers to it.
    pub instruction: u64,
}

/// References to data in the body of `function`, in order of code; empty where the kernel has no
/// such function or its code cannot be read.
pub(super) fn references(kernel: &Kernel<'_>, function: &str) -> Vec<Reference> {
    let text_end = kernel.symbols.address_of("_etext").unwrap_or(IMAGE_WINDOW.start);
    let mut found = Vec::new();
    for symbol in kernel.symbols.all_named(function) {
        let Some(bytes) = body(kernel, symbol.address) else { continue };
        found.extend(
            references_in(&bytes, symbol.address)
                .into_iter()
                .filter(|reference| (text_end..IMAGE_WINDOW.end).contains(&reference.address)),
        );
    }
    found
}

/// The bytes from `start` to the next symbol.
fn body(kernel: &Kernel<'_>, start: u64) -> Option<Vec<u8>> {
    let length = kernel.symbols.next_address(start)?.checked_sub(start)?.min(LONGEST_FUNCTION);
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    kernel.memory.read(start, &mut bytes).ok()?;
    Some(bytes)
}

/// All absolute addresses that the instructions in `bytes`, which stand at `start`, refer to.
///
/// References through `gs` are offsets into the per-CPU area, not addresses, and are left out.
pub fn references_in(bytes: &[u8], start: u64) -> Vec<Reference> {
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut found = Vec::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.code() == Code::INVALID {
            continue;
        }
        let at = instruction.ip();
        let mut note = |address, usage| found.push(Reference { address, usage, instruction: at });
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Memory if instruction.segment_prefix() != Register::GS => {
                    if let Some(address) = memory_address(&instruction) {
                        note(address, usage_of(&instruction));
                    }
                }
                OpKind::Immediate32to64 | OpKind::Immediate64 => {
                    note(instruction.immediate(operand), Use::Address);
                }
                _ => {}
            }
        }
    }
    found
}

/// The part of a memory operand's address that is fixed, if it can be the address of a variable.
fn memory_address(instruction: &Instruction) -> Option<u64> {
    let displacement = instruction.memory_displacement64();
    let relative = instruction.is_ip_rel_memory_operand();
    // An 8-bit displacement is an offset into an object, never a kernel address.
    let absolute = instruction.memory_displ_size() >= 4 && displacement >> 31 == 0x1_ffff_ffff;
    (relative || absolute).then_some(displacement)
}

fn usage_of(instruction: &Instruction) -> Use {
    match instruction.code() {
        Code::Lea_r64_m | Code::Lea_r32_m => Use::Address,
        _ => Use::Access(instruction.memory_size().size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0xffff_ffff_8100_0000;

    fn addresses(bytes: &[u8]) -> Vec<(u64, Use)> {
        references_in(bytes, START).into_iter().map(|r| (r.address, r.usage)).collect()
    }

    #[test]
    fn a_variable_is_seen_in_every_addressing_mode() {
        // mov rdi, imm32 sign-extended
        assert_eq!(
            addresses(&[0x48, 0xc7, 0xc7, 0xb0, 0x75, 0x11, 0x83]),
            [(0xffff_ffff_8311_75b0, Use::Address)]
        );
        // lea rdi, [rip+0x1000]
        assert_eq!(
            addresses(&[0x48, 0x8d, 0x3d, 0x00, 0x10, 0x00, 0x00]),
            [(START + 7 + 0x1000, Use::Address)]
        );
        // mov rbx, [rip+0x2700821]
        assert_eq!(
            addresses(&[0x48, 0x8b, 0x1d, 0x21, 0x08, 0x70, 0x02]),
            [(START + 7 + 0x270_0821, Use::Access(8))]
        );
        // mov rcx, [rcx*8-0x7c477500]
        assert_eq!(
            addresses(&[0x48, 0x8b, 0x0c, 0xcd, 0x00, 0x8b, 0xb8, 0x83]),
            [(0xffff_ffff_83b8_8b00, Use::Access(8))]
        );
        // cmp dword [rip+0x2186d00], edi
        assert_eq!(
            addresses(&[0x39, 0x3d, 0x00, 0x6d, 0x18, 0x02]),
            [(START + 6 + 0x218_6d00, Use::Access(4))]
        );
        // movabs rax, imm64
        assert_eq!(
            addresses(&[0x48, 0xb8, 0x40, 0x20, 0x01, 0x83, 0xff, 0xff, 0xff, 0xff]),
            [(0xffff_ffff_8301_2040, Use::Address)]
        );
    }

    #[test]
    fn offsets_into_objects_and_per_cpu_offsets_are_not_variables() {
        // mov rdx, [rax-0x10]; mov r12, gs:[rip+0x268b0c5]; call rel32
        assert!(addresses(&[0x48, 0x8b, 0x50, 0xf0]).is_empty());
        assert!(addresses(&[0x65, 0x4c, 0x8b, 0x25, 0xc5, 0xb0, 0x68, 0x02]).is_empty());
        assert!(addresses(&[0xe8, 0x0a, 0x2f, 0xd2, 0x00]).is_empty());
    }
}
