// SPDX-License-Identifier: Apache-2.0
//! The head of /proc/kcore: the ELF header and the program headers behind it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(header) = probes::CoreHeader::parse(data) else { return };
    let at = usize::try_from(header.offset).unwrap_or(usize::MAX);
    let Ok(segments) = header.segments(data.get(at..).unwrap_or_default()) else { return };
    for pair in segments.windows(2) {
        assert!(pair[0].address + pair[0].length <= pair[1].address);
    }
});
