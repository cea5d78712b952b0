// SPDX-License-Identifier: Apache-2.0
//! The compiled form of a set says what its rules say one by one.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/generate.rs"]
mod generate;
#[path = "support/interpret.rs"]
mod interpret;

use generate::Random;
use interpret::Kernel;
use proptest::prelude::*;
use rules::events::EVENTS;
use rules::model::{Action, Condition, File, FileIdentity, Number, Prefix, Rule};
use rules::{Bindings, Record, RuleSet, compile, evaluate};

/// One random set, against some random records: how many of them a rule decided, and told of.
fn agree(seed: u64, rules: usize) -> (usize, usize) {
    let random = &mut Random(seed);
    let set = generate::rule_set(random, rules);
    let bindings = generate::bindings(random);
    let compiled = compile(&set, &bindings).unwrap();
    let (mut decided, mut told) = (0, 0);
    for _ in 0..20 {
        let bytes = generate::record(random);
        let context = generate::context(random);
        let Some(record) = Record::new(&bytes) else { continue };
        let collections = context.collections.iter();
        let kernel = Kernel {
            cells: &compiled.cells,
            seed: bindings.seed,
            lineage: generate::lineage(&context, &bindings),
            collections: collections
                .map(|(name, made)| (bindings.collections[name], made.compile(seed).unwrap()))
                .collect(),
        };
        let expected = evaluate(&set, &record, &context);
        let said = kernel.decide(&record);
        assert_eq!(said.decided, expected.decided, "seed {seed}, {}", record.event().name);
        assert_eq!(said.told, expected.told, "seed {seed}, {}", record.event().name);
        decided += usize::from(expected.decided.is_some());
        told += usize::from(!expected.told.is_empty());
    }
    (decided, told)
}

proptest! {
    #[test]
    fn a_compiled_set_decides_as_its_rules_do_one_by_one(seed in any::<u64>(), rules in 0usize..60) {
        agree(seed, rules);
    }
}

#[test]
fn the_random_rules_often_decide_and_often_do_not() {
    // Otherwise the test above would say little.
    let (mut decided, mut told) = (0, 0);
    for seed in 0..100 {
        let (deciding, telling) = agree(seed, 12);
        decided += deciding;
        told += telling;
    }
    assert!((200..1800).contains(&decided), "{decided} of 2000");
    assert!((200..1800).contains(&told), "{told} of 2000");
}

fn rule(id: u32, conditions: Vec<Condition>) -> Rule {
    Rule { id, events: 1 << 1, action: Action::Deny(1), dry_run: false, conditions }
}

#[test]
fn of_ten_thousand_rules_an_event_looks_at_a_few() {
    let rules = (0..10_000u32).map(|at| {
        let path = Prefix::new(format!("/opt/{}/{at}", at % 100).as_bytes()).unwrap();
        let identity = FileIdentity { device: 1, inode: at.into(), version: None };
        let other = match at % 3 {
            0 => Condition::Path(File::Subject, vec![path]),
            1 => Condition::File(File::Subject, vec![identity]),
            _ => Condition::Path(File::Executable, vec![path]),
        };
        rule(at + 1, vec![Condition::Number(Number::Uid, vec![0, 1, 2, 3]), other])
    });
    let set = RuleSet { rules: rules.collect() };
    let bindings = Bindings { seed: 1, salt: 2, shards: 4, ..Bindings::default() };
    let compiled = compile(&set, &bindings).unwrap();
    assert_eq!(compiled.ids.len(), 10_000);
    let random = &mut Random(3);
    for _ in 0..100 {
        let bytes = generate::record_of(random, &EVENTS[0]);
        let Some(record) = Record::new(&bytes) else { continue };
        let kernel = Kernel {
            cells: &compiled.cells,
            seed: 1,
            lineage: 0,
            collections: std::collections::BTreeMap::new(),
        };
        let said = kernel.decide(&record);
        assert!(said.looked_at <= 3, "{} rules looked at", said.looked_at);
    }
}

#[test]
fn a_set_that_would_be_gone_through_rule_by_rule_is_refused() {
    let alike = |count| RuleSet {
        rules: (1..=count)
            .map(|id| rule(id, vec![Condition::Number(Number::Uid, vec![0])]))
            .collect(),
    };
    let bindings = Bindings { shards: 1, ..Bindings::default() };
    assert!(compile(&alike(4096), &bindings).is_ok());
    let refused = compile(&alike(4097), &bindings).unwrap_err().to_string();
    assert!(refused.starts_with("one process_exec could have to look at 4097 rules"), "{refused}");
}

#[test]
fn prefixes_one_below_the_other_are_counted_together() {
    let path = |depth: usize| Prefix::new("/a".repeat(depth).as_bytes()).unwrap();
    let set = RuleSet {
        rules: (0..5000u32)
            .map(|at| {
                rule(at + 1, vec![Condition::Path(File::Subject, vec![path(at as usize % 50 + 1)])])
            })
            .collect(),
    };
    let refused = compile(&set, &Bindings::default()).unwrap_err().to_string();
    assert!(refused.contains("5000 rules"), "{refused}");
}

#[test]
fn what_a_set_names_must_be_there() {
    let in_collection = Condition::DigestIn(File::Subject, vec!["bad".to_owned()]);
    let set = RuleSet { rules: vec![rule(1, vec![in_collection])] };
    let refused = compile(&set, &Bindings::default()).unwrap_err().to_string();
    assert_eq!(refused, "the collection \"bad\" is not there");
}
