// SPDX-License-Identifier: Apache-2.0
//! The core of a machine, which somebody may have sent.
#![no_main]

use kernel_memory::PhysicalMemory;
use kernel_memory::physical::{Stretches, elf_core, qemu_processors};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(core) = elf_core::parse(data) else { return };
    let _ = qemu_processors(&core.notes);
    for extent in core.extents.iter() {
        assert!(extent.start < extent.end);
        assert!(extent.offset + (extent.end - extent.start) <= data.len() as u64);
    }
    let memory = Stretches::new("core", data, core.extents);
    let mut last = 0;
    for range in memory.ranges() {
        assert!(range.start >= last);
        last = range.end;
        // All of it is there, and it ends where it ends.
        let mut bytes = [0; 16];
        let length = (range.end - range.start).min(16) as usize;
        assert!(memory.read(range.start, &mut bytes[..length]));
    }
});
