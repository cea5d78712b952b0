// SPDX-License-Identifier: Apache-2.0
//! A whole uncompressed kernel: headers, relocation lists, notes, and all that follows from them.
#![no_main]

use kernel_image::KernelImage;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(image) = KernelImage::parse(data) else { return };
    let summary = image.summary();
    assert!(summary.run_time_bytes <= summary.patched_bytes);
    for section in image.sections() {
        let _ = image.relocated(section.address, 256, 0x1234_5000);
    }
    let _ = (image.build_id(), image.release(), image.btf_bytes());
});
