// SPDX-License-Identifier: Apache-2.0
//! The symbol table inside the image: found by structure, so any bytes at all are searched.
#![no_main]

use kernel_image::kallsyms::{Region, decode};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = 0xffff_ffff_8100_0000..0xffff_ffff_8200_0000;
    let region = Region { bytes: data, offset: 0, address: 0xffff_ffff_8200_0000, text };
    if let Ok(symbols) = decode(&region) {
        assert!(symbols.iter().map(|symbol| symbol.address).is_sorted());
    }
});
