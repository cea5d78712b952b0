// SPDX-License-Identifier: Apache-2.0
//! Records of perf, out of a ring that a rootkit's hook may have written into.
#![no_main]

use probes::Record;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match probes::parse_record(data) {
        Ok(Record::TextPoke { old, new, .. }) => assert!(old.len() + new.len() < data.len()),
        // What is not UTF-8 becomes three bytes of replacement at most.
        Ok(Record::Symbol { name, .. }) => assert!(name.len() <= 3 * data.len()),
        _ => {}
    }
});
