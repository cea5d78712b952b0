// SPDX-License-Identifier: Apache-2.0
//! What an earlier ringfenced kept of a client's rules and collections, as somebody left it there.
#![no_main]

use daemon::kept::{collection_of, rules_of};
use rules::Algorithm;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((text, set)) = rules_of(bytes) {
        // A dry run changes nothing else of what the text says.
        let same = rules::RuleSet::from_toml(&text).expect("it was read before");
        assert_eq!(same.rules.len(), set.rules.len());
    }
    if let Ok(collection) = collection_of(Algorithm::Sha256, bytes) {
        assert_eq!(collection.digests().as_flattened().len() % 32, 0);
        assert!(collection.digests().len() * 32 <= bytes.len());
    }
});
