// SPDX-License-Identifier: Apache-2.0
//! What a BPF program can do, by the kernel functions that its machine code calls.
//!
//! The machine code is what runs: the instructions that the kernel shows for a program are a copy
//! that an attacker may have changed since.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use kernel_memory::Kernel;

/// Helpers that change more than the program's own maps and packets
/// (kernel/trace/bpf_trace.c, kernel/bpf/syscall.c), and what they do.
const REACHING_OUT: &[(&str, &str)] = &[
    ("bpf_probe_write_user", "writes memory of processes"),
    ("bpf_override_return", "overrides results of kernel functions"),
    ("bpf_send_signal", "sends signals"),
    ("bpf_send_signal_thread", "sends signals"),
    ("bpf_sys_bpf", "loads further BPF programs"),
    ("bpf_sys_close", "closes descriptors"),
];

/// Code of one program that is read; longer code is cut. The verifier allows a million
/// instructions, which is more than any program has.
const MOST_CODE: u32 = 1 << 20;

/// The helpers of [`REACHING_OUT`] that code in `ranges` calls, and what they do.
pub(super) fn reaching_out(
    kernel: &Kernel<'_>,
    ranges: &[(u64, u32)],
) -> Vec<(&'static str, &'static str)> {
    let helpers: Vec<(u64, usize)> = REACHING_OUT
        .iter()
        .enumerate()
        .filter_map(|(index, (name, _))| Some((kernel.symbols.address_of(name)?, index)))
        .collect();
    let ranges: Vec<(u64, u32)> =
        ranges.iter().map(|(start, length)| (*start, (*length).min(MOST_CODE))).collect();
    let mut called: Vec<usize> = Vec::new();
    for ((start, _), bytes) in ranges.iter().zip(kernel.memory.read_many(&ranges)) {
        let Ok(bytes) = bytes else { continue };
        for target in call_targets(&bytes, *start) {
            called.extend(helpers.iter().filter(|(at, _)| *at == target).map(|(_, index)| *index));
        }
    }
    called.sort_unstable();
    called.dedup();
    called.into_iter().filter_map(|index| REACHING_OUT.get(index).copied()).collect()
}

/// Where the direct calls and jumps in `bytes`, which stand at `start`, lead.
fn call_targets(bytes: &[u8], start: u64) -> Vec<u64> {
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut targets = Vec::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::UnconditionalBranch
        ) {
            targets.push(instruction.near_branch_target());
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_calls_and_tail_jumps_are_targets() {
        // push rbp; call +0x10; jmp +0x20; ret
        let code = [0x55, 0xe8, 0x10, 0, 0, 0, 0xe9, 0x20, 0, 0, 0, 0xc3];
        assert_eq!(call_targets(&code, 0x1000), [0x1006 + 0x10, 0x100b + 0x20]);
    }
}
