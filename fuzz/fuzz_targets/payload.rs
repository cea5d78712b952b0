// SPDX-License-Identifier: Apache-2.0
//! The boot header and the decompressors: a file as an attacker may put it in /boot.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(payload) = kernel_image::payload::unpack(data) {
        assert!(payload.elf.len() as u64 <= kernel_image::payload::LARGEST_KERNEL);
    }
    let _ = kernel_image::payload::boot_version(data);
});
