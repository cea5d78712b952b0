// SPDX-License-Identifier: Apache-2.0
//! What QEMU's monitor says of registers and memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(qmp::registers::parse(text).len() <= text.len());
    if let Some(low) = qmp::memory::low_bytes(text, 3 << 30) {
        assert!(low > 0 && low <= 3 << 30);
    }
});
