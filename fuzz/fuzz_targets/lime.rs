// SPDX-License-Identifier: Apache-2.0
//! A dump of LiME, which somebody may have sent.
#![no_main]

use kernel_memory::physical::lime;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(extents) = lime::parse(data) else { return };
    let mut last = 0;
    for extent in extents.iter() {
        assert!(extent.start >= last && extent.start < extent.end);
        assert!(extent.offset + (extent.end - extent.start) <= data.len() as u64);
        last = extent.end;
    }
});
