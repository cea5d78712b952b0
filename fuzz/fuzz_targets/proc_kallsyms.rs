// SPDX-License-Identifier: Apache-2.0
//! The text of /proc/kallsyms, which a rootkit may have written.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(symbols) = kernel_image::parse_proc_kallsyms(text) {
        for symbol in symbols.iter().take(64) {
            assert!(symbols.all_named(symbol.name).any(|found| found.address == symbol.address));
        }
    }
});
