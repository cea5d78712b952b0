// SPDX-License-Identifier: Apache-2.0
//! What the kernel's text hands to a function as its first argument, where that is an address known
//! when the kernel was linked.
//!
//! So static objects are found that nobody names: whoever works on one calls the same few functions
//! with its address in RDI. The calls are looked for in the expected text, which nobody who writes to
//! memory can change.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};
use kernel_image::Symbols;

use crate::baseline::Region;

/// No function that makes such a call is longer; it bounds what a hole in the symbol table costs.
const LONGEST_FUNCTION: u64 = 64 * 1024;

/// A call with a first argument that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The first argument.
    pub argument: u64,
    /// The function that is called.
    pub callee: u64,
    /// Where the calling function begins.
    pub caller: u64,
}

/// The calls and tail calls of `callees` in `text` whose first argument is loaded as a constant in
/// the calling function.
pub fn first_arguments(
    text: &Region<'_>,
    symbols: &Symbols,
    callees: &BTreeSet<u64>,
) -> BTreeSet<Call> {
    let mut sites: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (offset, window) in text.bytes.windows(5).enumerate() {
        let &[0xe8 | 0xe9, a, b, c, d] = window else { continue };
        let at = text.start + offset as u64;
        let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
        if callees.contains(&(at + 5).wrapping_add_signed(distance))
            && let Some((symbol, _)) = symbols.containing(at)
        {
            sites.entry(symbol.address).or_default().insert(at);
        }
    }
    let mut calls = BTreeSet::new();
    for (caller, sites) in sites {
        let Some(end) = sites.last().map(|last| last + 5) else { continue };
        let (Some(from), Some(to)) = (caller.checked_sub(text.start), end.checked_sub(text.start))
        else {
            continue;
        };
        if end - caller > LONGEST_FUNCTION {
            continue;
        }
        let body = text.bytes.get(from as usize..to as usize).unwrap_or_default();
        for (site, argument) in arguments_in(body, caller) {
            // What only looks like a call is within another instruction, and is not decoded as one.
            if sites.contains(&site.0) && callees.contains(&site.1) {
                calls.insert(Call { argument, callee: site.1, caller });
            }
        }
    }
    calls
}

/// Each direct call or jump out of `body`, as its place and target, with the constant that RDI holds
/// there. The code is read in the order in which it lies: compilers load an argument right before
/// the call that takes it.
fn arguments_in(body: &[u8], start: u64) -> Vec<((u64, u64), u64)> {
    let mut found = Vec::new();
    let mut first: Option<u64> = None;
    let mut instruction = Instruction::default();
    let mut decoder = Decoder::with_ip(64, body, start, DecoderOptions::NONE);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        match instruction.flow_control() {
            FlowControl::Call | FlowControl::UnconditionalBranch => {
                if let Some(argument) = first {
                    let target = instruction.near_branch_target();
                    found.push(((instruction.ip(), target), argument));
                }
                // A call may change the register; behind a jump other code begins.
                first = None;
            }
            FlowControl::Return | FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                first = None;
            }
            _ if writes_first(&instruction) => first = constant(&instruction),
            _ => {}
        }
    }
    found
}

/// Whether the instruction's first operand is RDI or a part of it. Comparing counts too, after which
/// nothing is known; no compiler compares an argument between loading and passing it.
fn writes_first(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().full_register() == Register::RDI
}

fn constant(instruction: &Instruction) -> Option<u64> {
    use iced_x86::Code;
    match instruction.code() {
        Code::Mov_rm64_imm32 | Code::Mov_r64_imm64 => Some(instruction.immediate(1)),
        Code::Lea_r64_m if instruction.is_ip_rel_memory_operand() => {
            Some(instruction.memory_displacement64())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::RegionKind;

    const TEXT: u64 = 0xffff_ffff_8100_0000;
    const CALLEE: u64 = TEXT + 0x100;

    fn calls(code: &[u8]) -> Vec<Call> {
        let mut bytes = code.to_vec();
        bytes.resize(0x200, 0xcc);
        let text = Region { kind: RegionKind::Text, start: TEXT, bytes: &bytes };
        let symbols = [(TEXT, b't', "caller"), (CALLEE, b't', "callee")];
        let symbols = Symbols::from_iter(symbols);
        first_arguments(&text, &symbols, &BTreeSet::from([CALLEE])).into_iter().collect()
    }

    fn call_at(offset: u32, opcode: u8) -> Vec<u8> {
        let mut bytes = vec![opcode];
        bytes.extend((0x100_u32 - offset - 5).to_le_bytes());
        bytes
    }

    #[test]
    fn a_call_and_a_tail_call_are_seen_with_what_they_hand_over() {
        // mov rdi, 0xffffffff82001000
        let load = [0x48, 0xc7, 0xc7, 0x00, 0x10, 0x00, 0x82];
        for opcode in [0xe8, 0xe9] {
            let code = [&load[..], &[0x31, 0xd2], &call_at(9, opcode)].concat();
            let expected = Call { argument: 0xffff_ffff_8200_1000, callee: CALLEE, caller: TEXT };
            assert_eq!(calls(&code), [expected]);
        }
        // lea rdi, [rip+0x1000]
        let load = [0x48, 0x8d, 0x3d, 0x00, 0x10, 0x00, 0x00];
        let code = [&load[..], &call_at(7, 0xe8)].concat();
        assert_eq!(calls(&code).first().map(|call| call.argument), Some(TEXT + 7 + 0x1000));
    }

    #[test]
    fn an_argument_that_is_not_known_is_not_guessed() {
        let load = [0x48, 0xc7, 0xc7, 0x00, 0x10, 0x00, 0x82];
        // mov rdi, rbx comes after it; or another call does.
        let other = [&load[..], &[0x48, 0x89, 0xdf], &call_at(10, 0xe8)].concat();
        assert!(calls(&other).is_empty());
        let lost = [&load[..], &[0xe8, 0, 0, 0, 0], &call_at(12, 0xe8)].concat();
        assert!(calls(&lost).is_empty());
        // mov eax, imm32 whose bytes look like the call
        let inner = [&load[..], &[0xb8], &call_at(8, 0xe8)[..4], &[0x90]].concat();
        assert!(calls(&inner).is_empty());
    }
}
