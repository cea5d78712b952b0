// SPDX-License-Identifier: Apache-2.0
//! The self-patching tables: two bytes of length, that much text as of /proc/kallsyms, an ELF.
#![no_main]

use kernel_image::{Tables, parse_proc_kallsyms};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (text, elf) = rest.split_at(length);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(symbols) = parse_proc_kallsyms(text) else { return };
    if let Ok(tables) = Tables::of_elf(elf, &symbols) {
        assert!(tables.sites().all(|site| site.length > 0));
    }
});
