// SPDX-License-Identifier: Apache-2.0
//! A line that the guard printed, or somebody in its place.
#![no_main]

use daemon::guard::line::{Event, parse};

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    match parse(line) {
        // It goes to clients as it came.
        Ok(Event::Finding(finding) | Event::Cleared(finding)) => {
            assert!(serde_json::from_str::<serde_json::Value>(&finding.json).is_ok());
            assert!(str::from_utf8(line).expect("JSON is UTF-8").contains(&finding.json));
        }
        Ok(_) => {}
        Err(error) => assert!(!error.is_empty()),
    }
});
