// SPDX-License-Identifier: Apache-2.0
//! How events look: one of each type, against what is kept beside this file. RINGFENCE_OVERWRITE=1
//! writes it anew.

use std::path::Path;

use abi::{Class, EventType, Record, RecordBuffer};
use sdk::EventClasses;

use super::{all, json, line, told};
use crate::clock::{Clock, Moment};
use crate::screen::Style;

#[path = "../../../abi/tests/support/mod.rs"]
mod records;

fn each(show: impl Fn(&Record<'_>) -> String) -> String {
    let mut all: Vec<RecordBuffer> =
        records::sample_of_each().into_iter().map(|(_, buffer)| buffer).collect();
    let mut unknown = records::exec(b"/bin/true", &[]);
    records::put(unknown.as_mut_bytes(), std::mem::offset_of!(abi::Header, r#type), &[60, 0]);
    all.push(unknown);
    all.iter().map(|buffer| show(&buffer.record().unwrap()) + "\n").collect()
}

fn clock() -> Clock {
    Clock::since(Moment::from_unix(1_795_521_693))
}

fn kept(name: &str, seen: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/events").join(name);
    if std::env::var_os("RINGFENCE_OVERWRITE").is_some() {
        std::fs::write(&file, seen).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    for (seen, expected) in seen.lines().zip(expected.lines()) {
        assert_eq!(seen, expected);
    }
    assert_eq!(seen.lines().count(), expected.lines().count());
}

fn lines_of_json() -> String {
    each(|record| serde_json::to_string(&json::Line::of(record, 3, 0, clock())).unwrap())
}

#[test]
fn each_event_is_one_line_for_people() {
    kept("lines.golden", &each(|record| line::line(record, clock(), Style::plain())));
}

#[test]
fn each_event_is_one_json_object() {
    kept("json.golden", &lines_of_json());
}

#[test]
fn what_was_lost_is_a_line_of_its_own() {
    assert_eq!(line::gap(1, Style::plain()), "(1 record was lost here)");
    assert_eq!(line::gap(3, Style::plain()), "(3 records were lost here)");
}

#[test]
fn every_field_of_the_json_is_described_and_every_described_field_is_there() {
    fn names(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    // Their fields are names of events, fields, or what the guard's report has.
                    if !["by_type", "inexact", "finding"].contains(&name.as_str()) {
                        names(value, found);
                    }
                    found.insert(name.clone());
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }
    let mut written = std::collections::BTreeSet::new();
    for line in lines_of_json().lines() {
        names(&serde_json::from_str(line).unwrap(), &mut written);
    }
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/events.md");
    let text = std::fs::read_to_string(documents).unwrap();
    // What the tables of fields have in their first column.
    let described: std::collections::BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|cell| {
            cell.split('`').filter(|part| !part.contains([' ', ',']) && !part.is_empty())
        })
        .map(str::to_owned)
        .collect();
    let events: Vec<_> = EventType::ALL.iter().map(|event| event.name()).collect();
    let fields: std::collections::BTreeSet<String> = described
        .into_iter()
        .filter(|name| !events.contains(&name.as_str()) && name != "unknown")
        .collect();
    // The last one with `--record` only.
    written.extend(["hex", "truncated", "unreachable", "record"].map(String::from));
    assert_eq!(written, fields);
}

#[test]
fn without_types_all_is_wanted_that_is_granted_and_there_and_what_is_not_is_named() {
    let grant = [
        EventClasses::new(EventType::ProcessExec, [Class::Notify, Class::Ask]),
        EventClasses::new(EventType::ImageMap, [Class::Ask]),
        EventClasses::new(EventType::ModuleLoad, [Class::Notify]),
        EventClasses::new(EventType::BpfLoad, [Class::Notify]),
    ];
    let covered = |event: EventType, state: &str| {
        let class = serde_json::json!({ "state": state });
        let coverage = serde_json::json!({
            "event": event.name(), "number": event.number(), "area": "x", "stage": "stable",
            "since": "1.0", "notify": class, "rule": class, "ask": class
        });
        serde_json::from_value(coverage).unwrap()
    };
    let coverage = [
        covered(EventType::ProcessExec, "available"),
        covered(EventType::BpfLoad, "reduced"),
        covered(EventType::ModuleLoad, "unavailable"),
    ];
    let (subscriptions, missing) = all(&grant, &coverage);
    assert_eq!(subscriptions, [told(EventType::ProcessExec), told(EventType::BpfLoad)]);
    assert_eq!(missing, ["module_load"]);
}
