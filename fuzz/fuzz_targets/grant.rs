// SPDX-License-Identifier: Apache-2.0
//! A grant, as somebody wrote it.
#![no_main]

use std::time::Duration;

use broker::event::Class;
use broker::grant::{Grant, Grants, limits};

/// Excludes no other: nothing that a fuzzer writes has this id and altitude but by chance.
const OTHER: &str = "client = \"org.ringfence.other\"\naltitude = \"1.23456789012345678901234567\"\n\
    [identity]\nexecutable = \"/other\"\n[events.process_exec]\nclasses = [\"notify\"]\n";

libfuzzer_sys::fuzz_target!(|text: &str| {
    let parsed = Grant::parse("grant.toml", text);
    let files = |text: &str| {
        vec![
            ("grant.toml".to_owned(), text.to_owned()),
            ("other.toml".to_owned(), OTHER.to_owned()),
        ]
    };
    let (grants, errors) = Grants::load(files(text));
    match parsed {
        Ok(grant) => {
            promises(&grant);
            assert_eq!((grants.len(), errors.len()), (2, 0));
            // What is broken later loses nothing.
            let (after, errors) = grants.reload(files(&format!("{text}\n[")));
            assert_eq!(after, grants);
            assert_eq!(errors.len(), 1);
        }
        Err(found) => {
            assert!(!found.is_empty());
            assert_eq!((grants.len(), &errors), (1, &found));
            for error in found {
                assert!((1..=text.lines().count() + 1).contains(&error.place.line), "{error}");
                assert!(error.place.column >= 1 && !error.help.is_empty(), "{error}");
            }
        }
    }
});

/// What whoever reads a grant may rely on.
fn promises(grant: &Grant) {
    let within = |value, bounds: limits::Bounds| (bounds.least..=bounds.most).contains(&value);
    assert!(grant.limits.ring_bytes.is_power_of_two());
    assert!(within(grant.limits.ring_bytes, limits::RING_BYTES));
    assert!(within(grant.limits.max_rules, limits::MAX_RULES));
    assert!(within(grant.limits.max_muted, limits::MAX_MUTED));
    assert!(within(grant.limits.max_pending, limits::MAX_PENDING));
    assert!(within(grant.limits.max_cached, limits::MAX_CACHED));
    assert!(within(grant.demotion.misses, limits::DEMOTION_MISSES));
    assert!(grant.identity.executable.is_some() || !grant.identity.sha256.is_empty());
    assert!(!grant.events.is_empty());
    for (event, granted) in &grant.events {
        assert!(!granted.classes.is_empty());
        assert!(granted.classes.iter().all(|class| event.classes().contains(class)));
        let asked = granted.classes.contains(Class::Ask);
        assert_eq!(asked, granted.deadline > Duration::ZERO);
        assert!(granted.deadline <= Duration::from_millis(u64::from(limits::DEADLINE_MS.most)));
    }
}
