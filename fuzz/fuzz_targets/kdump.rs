// SPDX-License-Identifier: Apache-2.0
//! A dump of kdump, with the decompression of its pages.
#![no_main]

use kernel_memory::PhysicalMemory;
use kernel_memory::physical::kdump::Kdump;
use kernel_memory::physical::vmcoreinfo::VmCoreInfo;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(dump) = Kdump::open(data) else { return };
    let _ = VmCoreInfo::parse(dump.vmcoreinfo());
    let _ = dump.notes();
    for range in dump.ranges().into_iter().take(8) {
        let mut bytes = [0; 8192];
        let _ = dump.read(range.start, &mut bytes);
        let _ = dump.read(range.end - 1, &mut bytes[..2]);
    }
});
