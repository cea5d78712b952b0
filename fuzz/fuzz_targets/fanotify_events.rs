// SPDX-License-Identifier: Apache-2.0
//! Events of fanotify, as a read of a group gives them.
#![no_main]

use probes::FanotifyEvents;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let events: Vec<_> = FanotifyEvents::new(data).collect();
    // Each has its metadata, and nothing follows an error.
    assert!(events.iter().filter(|event| event.is_ok()).count() * 24 <= data.len());
    assert!(events.iter().rev().skip(1).all(Result::is_ok));
});
