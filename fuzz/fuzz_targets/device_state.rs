// SPDX-License-Identifier: Apache-2.0
//! The state of a guest's devices, as QEMU writes it.
#![no_main]

use qmp::device_state::system_calls;
use qmp::registers::Processor;

/// What the monitor tells of the processor that is looked for: as zeroes in the stream bear out.
const TOLD: Processor = Processor {
    number: 0,
    cr0: None,
    cr3: None,
    cr4: None,
    efer: Some(0),
    gdt: Some((0, 0)),
    idt: Some((0, 0)),
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if system_calls(data, &TOLD).is_some() {
        // The head of the stream and of a section, and CSTAR as the last register that is read.
        assert!(data.len() >= 8 + 12 + 848);
    }
});
