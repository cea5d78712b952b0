// SPDX-License-Identifier: Apache-2.0
//! What each entry of a global descriptor table may be (arch/x86/include/asm/segment.h and
//! desc_defs.h, arch/x86/kernel/cpu/common.c, 6.1 to 7.3; Intel SDM volume 3, 3.4.5 and 5.8.3).

use crate::processor::{ENTRY_AREA_SIZE, READ_ONLY_IDT};

/// Entries of a table (`GDT_ENTRIES`).
pub(super) const ENTRIES: usize = 16;

/// Segments of kernel and user mode that do not change (`gdt_page`).
const FIXED: [(usize, u64); 6] = [
    (1, 0x00cf_9b00_0000_ffff),
    (2, 0x00af_9b00_0000_ffff),
    (3, 0x00cf_9300_0000_ffff),
    (4, 0x00cf_fb00_0000_ffff),
    (5, 0x00cf_f300_0000_ffff),
    (6, 0x00af_fb00_0000_ffff),
];

/// Two entries each: of the task state segment, and of a local descriptor table.
const TASK_STATE: usize = 8;
const LOCAL_TABLE: usize = 10;

/// Segments that a thread asked for by set_thread_area(2).
const THREAD_LOCAL: std::ops::RangeInclusive<usize> = 12..=14;

/// The number of the processor, as the limit of a segment that user mode can read.
const PROCESSOR_NUMBER: usize = 15;

/// The kernel's half of the address space.
const KERNEL: u64 = 0xff00_0000_0000_0000;

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// It is a gate. The kernel has none in this table.
    Gate,
    /// It is something else than it must be.
    Other,
}

fn base(low: u64, high: u64) -> u64 {
    (low >> 16 & 0xff_ffff) | (low >> 56 & 0xff) << 24 | high << 32
}

/// Type, S, DPL and P of a descriptor.
fn access(descriptor: u64) -> u64 {
    descriptor >> 40 & 0xff
}

fn is_gate(descriptor: u64) -> bool {
    // Without S: 4 to 7 and 12 to 15 are gates.
    access(descriptor) & 0x94 == 0x84
}

/// The entries that are not as they must be.
pub(super) fn judge(entries: &[u64]) -> Vec<(usize, Fault)> {
    let second = |index: usize| entries.get(index + 1).copied().unwrap_or(0);
    let mut faults = Vec::new();
    for (index, entry) in entries.iter().copied().enumerate() {
        let fixed = FIXED.iter().find(|(at, _)| *at == index);
        let is_second = index == TASK_STATE + 1 || index == LOCAL_TABLE + 1;
        let sound = match (fixed, index) {
            // The processor marks a segment as used, which the kernel has done beforehand.
            (Some((_, expected)), _) => entry == *expected,
            _ if is_second => entry >> 32 == 0,
            (_, TASK_STATE) => {
                let area = READ_ONLY_IDT..READ_ONLY_IDT + ENTRY_AREA_SIZE;
                // Available or busy, present, ring 0.
                [0x89, 0x8b].contains(&access(entry)) && area.contains(&base(entry, second(index)))
            }
            (_, LOCAL_TABLE) => {
                entry == 0 || (access(entry) == 0x82 && base(entry, second(index)) >= KERNEL)
            }
            (_, PROCESSOR_NUMBER) => {
                // Read-only data that expands down, ring 3, of 32 bits; base 0.
                access(entry) == 0xf5 && base(entry, 0) == 0 && entry >> 53 & 1 == 0
            }
            (_, index) if THREAD_LOCAL.contains(&index) => {
                // Of user mode, or empty; 64-bit code is refused (tls_desc_okay).
                entry == 0 || (access(entry) & 0x70 == 0x70 && entry >> 53 & 1 == 0)
            }
            _ => entry == 0,
        };
        match () {
            () if sound => {}
            () if is_gate(entry) && !is_second => faults.push((index, Fault::Gate)),
            () => faults.push((index, Fault::Other)),
        }
    }
    faults
}

/// What an entry must be, in words.
pub(super) fn words(index: usize) -> &'static str {
    match index {
        1 => "0x00cf9b000000ffff: 32-bit code of the kernel",
        2 => "0x00af9b000000ffff: 64-bit code of the kernel",
        3 => "0x00cf93000000ffff: data of the kernel",
        4 => "0x00cffb000000ffff: 32-bit code of user mode",
        5 => "0x00cff3000000ffff: data of user mode",
        6 => "0x00affb000000ffff: 64-bit code of user mode",
        8 | 9 => "the task state segment in the cpu entry area",
        10 | 11 => "a local descriptor table, or nothing",
        12..=14 => "a segment of user mode, or nothing",
        15 => "the number of the processor",
        _ => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a 6.12 guest has it on its second processor.
    const SOUND: [u64; ENTRIES] = [
        0,
        0x00cf_9b00_0000_ffff,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
        0x0000_8b00_3000_4087,
        0xffff_fe00,
        0,
        0,
        0x00cf_f300_0000_ffff,
        0,
        0,
        0x0040_f500_0000_0001,
    ];

    fn with(index: usize, entry: u64) -> Vec<(usize, Fault)> {
        let mut entries = SOUND;
        entries[index] = entry;
        judge(&entries)
    }

    #[test]
    fn what_the_kernel_makes_is_as_it_must_be() {
        assert_eq!(judge(&SOUND), []);
    }

    #[test]
    fn a_call_gate_is_found_wherever_it_is() {
        // To 0x10:0xffffffffc0200000 from ring 3.
        for index in [7, 12, 15] {
            assert_eq!(with(index, 0xc020_ec00_0010_0000), [(index, Fault::Gate)]);
        }
    }

    #[test]
    fn a_segment_with_more_rights_is_found() {
        // Code of the kernel for ring 3; a thread's segment of ring 0, and one of 64-bit code.
        assert_eq!(with(2, 0x00af_fb00_0000_ffff), [(2, Fault::Other)]);
        assert_eq!(with(12, 0x00cf_9b00_0000_ffff), [(12, Fault::Other)]);
        assert_eq!(with(13, 0x00af_fb00_0000_ffff), [(13, Fault::Other)]);
    }

    #[test]
    fn a_task_state_segment_elsewhere_is_found() {
        assert_eq!(with(9, 0xffff_8880), [(8, Fault::Other)]);
        assert_eq!(with(8, 0), [(8, Fault::Other)]);
        // A local descriptor table in user memory.
        assert_eq!(with(10, 0x0000_8200_1000_ffff), [(10, Fault::Other)]);
    }
}
