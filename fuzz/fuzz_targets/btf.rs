// SPDX-License-Identifier: Apache-2.0
//! Kernel types.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = kernel_image::btf::Btf::parse(data);
});
