// SPDX-License-Identifier: Apache-2.0
//! Rule files and collections of clients, which nobody has to trust.
#![no_main]

use std::collections::BTreeMap;

use rules::model::Condition;
use rules::{Algorithm, Bindings, Collection, Context, Record, RuleSet};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(collection) = Collection::from_text(Algorithm::Sha256, text) {
        assert!(collection.count() <= text.lines().count());
    }
    let read = if text.starts_with('{') { RuleSet::from_json } else { RuleSet::from_toml };
    let set = match read(text) {
        Ok(set) => set,
        Err(refused) => {
            assert!(!refused.problems.is_empty() && !refused.to_string().is_empty());
            return;
        }
    };
    // Whatever is accepted compiles, or is refused for what it would cost.
    let Ok(compiled) = rules::compile(&set, &bindings(&set)) else { return };
    assert_eq!(compiled.ids.len(), set.rules.len());
    // The text itself as a record: whatever it is, nobody is led out of it.
    if let Some(record) = Record::new(data) {
        let _ = rules::explain(&set, &record, &Context::default()).to_string();
    }
});

/// A number for everything that a set names, as far as there are numbers.
fn bindings(set: &RuleSet) -> Bindings {
    let (mut collections, mut roots) = (BTreeMap::new(), BTreeMap::new());
    for condition in set.rules.iter().flat_map(|rule| &rule.conditions) {
        match condition {
            Condition::DigestIn(_, names) => {
                for name in names {
                    let number = collections.len() as u32;
                    collections.entry(name.clone()).or_insert(number);
                }
            }
            Condition::DescendantOf(keys) => {
                for key in keys {
                    let number = roots.len() as u32;
                    roots.entry(*key).or_insert(number);
                }
            }
            _ => {}
        }
    }
    Bindings { collections, roots, seed: 1, salt: 2, shards: 2 }
}
