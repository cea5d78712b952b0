// SPDX-License-Identifier: Apache-2.0
//! The session speaks the interface that the daemon publishes, `api/ringfence.varlink`.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sdk::abi::EventType;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Without its comments, which have brackets of their own.
fn interface() -> String {
    let text = std::fs::read_to_string(root().join("api/ringfence.varlink")).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Names that follow a keyword at the start of a line.
fn names<'a>(text: &'a str, keyword: &'a str) -> BTreeSet<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix(keyword)?.split(['(', ' ', '{']).next())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Names of the fields of an error, a type or a call: from its name to the end of its brackets.
fn fields<'a>(text: &'a str, begin: &str) -> BTreeSet<&'a str> {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
    let (inside, _) = rest.split_once(')').unwrap();
    inside
        .lines()
        .flat_map(|line| line.split(','))
        .filter_map(|field| Some(field.split_once(':')?.0.trim()))
        .collect()
}

#[test]
fn every_error_of_the_interface_has_its_variant_with_its_fields() {
    let text = interface();
    let source = std::fs::read_to_string(root().join("crates/sdk/src/session/refusal.rs")).unwrap();
    let (_, refusals) = source.split_once("pub enum Refusal {").unwrap();
    let (refusals, _) = refusals.split_once("\n}\n").unwrap();
    let errors = names(&text, "error ");
    assert!(errors.len() > 10, "{errors:?}");
    for error in errors {
        let (_, variant) = refusals
            .split_once(&format!("\n    {error} {{"))
            .unwrap_or_else(|| panic!("no variant for the error {error}"));
        let (variant, _) = variant.split_once('}').unwrap();
        let ours: BTreeSet<_> = variant
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .filter_map(|line| Some(line.split_once(':')?.0.trim()))
            .collect();
        assert_eq!(ours, fields(&text, &format!("error {error} (")), "{error}");
    }
}

#[test]
fn every_method_that_is_called_is_one_of_the_interface() {
    let methods_there = interface();
    let there = names(&methods_there, "method ");
    let source = |file: &str| {
        std::fs::read_to_string(root().join("crates/sdk/src/session").join(file)).unwrap()
    };
    let source = source("mod.rs") + &source("rules.rs");
    let called: BTreeSet<_> = source
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| {
            text.starts_with(char::is_uppercase) && text.chars().all(char::is_alphanumeric)
        })
        .collect();
    assert!(called.len() > 12, "{called:?}");
    assert!(called.is_subset(&there), "{:?}", called.difference(&there));
}

#[test]
fn types_of_events_have_the_same_names() {
    let text = interface();
    let (_, events) = text.split_once("type Event (").unwrap();
    let (events, _) = events.split_once(')').unwrap();
    let there: BTreeSet<_> = events.split(',').map(str::trim).collect();
    let ours: BTreeSet<_> = EventType::ALL.iter().map(|event| event.name()).collect();
    assert_eq!(ours, there);
}

#[test]
fn what_is_read_and_sent_has_the_fields_of_the_interface() {
    let text = interface();
    for (type_name, ours) in [
        ("type Counts (", &["written", "lost"][..]),
        ("type Limits (", &["ring_bytes", "message_bytes", "mutes"]),
        ("type Deadline (", &["event", "nanoseconds"]),
        ("type Version (", &["major", "minor"]),
        ("type EventClasses (", &["event", "classes"]),
        ("type Subscription (", &["event", "classes", "deadline"]),
        ("type MuteTarget (", &["process", "executable", "path_prefix", "cgroup"]),
        ("type Availability (", &["state", "mechanism", "reason"]),
        ("type RuleProblem (", &["line", "column", "path", "message"]),
        ("type ClientRules (", &["client", "connected", "rules", "collections"]),
        ("type CollectionState (", &["name", "digests"]),
        ("type RuleState (", &["id", "events", "action", "error", "dry_run", "matches", "denies"]),
        ("method InstallRules(", &["rules", "continues", "dry_run"]),
        ("method ReplaceCollection(", &["name", "algorithm", "digests", "continues"]),
        ("method DropCollection(", &["name"]),
        ("method OpenSession(", &["client", "versions", "ring_bytes", "resume"]),
        ("method Subscribe(", &["subscriptions"]),
        ("method Unsubscribe(", &["subscriptions"]),
        ("method InvertMutes(", &["inverted"]),
        ("method ResolveCgroup(", &["cgroup"]),
        ("method MeasureFile(", &["path", "file"]),
        ("method GetMemoryMap(", &["pid", "start", "from"]),
        ("method ReadMemory(", &["pid", "start", "address", "length"]),
        (
            "type Mapping (",
            &[
                "start", "end", "read", "write", "execute", "shared", "offset", "file", "name",
                "exact",
            ],
        ),
    ] {
        assert_eq!(fields(&text, type_name), ours.iter().copied().collect(), "{type_name}");
    }
}
