// SPDX-License-Identifier: Apache-2.0
//! Grants as an administrator writes them: what is wrong is said with place and remedy.
//!
//! tests/grants/NAME.toml is read, and what is said of it is held against NAME.error beside it.
//! RINGFENCE_UPDATE_SNAPSHOTS=1 writes those instead; look at what changed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::event::{Class, EventType};
use broker::grant::{
    Absent, Contract, Fallback, Gone, Grant, Grants, Scope, User,
    limits::{self, Bounds},
};

const DOCUMENT: &str = include_str!("../../../docs/grants.md");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grants")
}

fn event(name: &str) -> EventType {
    EventType::from_name(name).expect("a type of event")
}

/// A grant with this id and altitude.
fn text(client: &str, altitude: &str) -> String {
    format!(
        "client = \"{client}\"\naltitude = \"{altitude}\"\n[identity]\nexecutable = \"/x\"\n\
         [events.process_exec]\nclasses = [\"notify\"]\n"
    )
}

fn file(name: &str, text: String) -> (String, String) {
    (name.to_owned(), text)
}

#[test]
fn whatever_is_wrong_in_a_grant_is_said_with_its_place_and_what_to_do() {
    let update = std::env::var_os("RINGFENCE_UPDATE_SNAPSHOTS").is_some();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder of grants") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a grant");
        let mut said = String::new();
        if let Err(errors) = Grant::parse(&name, &text) {
            for error in errors {
                assert_eq!(error.place.file, name);
                assert!(error.place.line <= text.lines().count() + 1, "{error}");
                writeln!(said, "{error}").expect("a line");
            }
        }
        assert_eq!(said.is_empty(), name.starts_with("good-"), "{name}: {said}");
        let snapshot = path.with_extension("error");
        if update && !said.is_empty() {
            std::fs::write(&snapshot, &said).expect("a snapshot");
        }
        let expected = std::fs::read_to_string(&snapshot).unwrap_or_default();
        assert_eq!(said, expected, "{name}");
        seen += 1;
    }
    assert!(seen > 40, "{seen} grants");
}

#[test]
fn a_grant_of_the_smallest_size_has_the_documented_defaults() {
    let text = std::fs::read_to_string(folder().join("good-smallest.toml")).expect("a grant");
    let grant = Grant::parse("x", &text).expect("a good grant");
    assert!(!grant.draft);
    assert_eq!(grant.scope, Scope::Host);
    assert_eq!(grant.limits.ring_bytes, 1 << 20);
    assert_eq!(grant.demotion.misses, 5);
    let exec = &grant.events[&event("process_exec")];
    assert_eq!(exec.deadline, Duration::from_secs(1));
    assert_eq!(exec.failure, Contract::default());
    assert_eq!(exec.failure.deadline_missed, Fallback::Allow);
    assert_eq!(exec.failure.queue_full, Fallback::Allow);
    assert_eq!(exec.failure.client_died, Fallback::Allow);
    assert_eq!(exec.failure.not_connected, Absent::LastRules);
    assert_eq!(exec.failure.ringfenced_gone, Gone::AsNotConnected);
}

/// The TOML in the document.
fn example() -> &'static str {
    let (_, after) = DOCUMENT.split_once("```toml\n").expect("an example");
    after.split_once("```").expect("its end").0
}

#[test]
fn the_example_of_the_document_is_a_grant() {
    let grant = Grant::parse("docs/grants.md", example()).expect("a good grant");
    assert_eq!(grant.client.as_str(), "com.example.sensor");
    assert_eq!(grant.altitude.to_string(), "320500.25");
    assert_eq!(grant.identity.user, Some(User::Name("sensor".to_owned())));
    assert_eq!(grant.scope, Scope::Cgroup("/ci.slice".to_owned()));
    assert!(grant.allows(event("process_exec"), Class::Ask));
    assert!(!grant.allows(event("process_signal"), Class::Ask));
    let failure = grant.events[&event("process_exec")].failure;
    assert_eq!(failure.deadline_missed, Fallback::Deny);
    assert_eq!(failure.when_absent(), Fallback::Deny);
    assert_eq!(failure.when_gone(), Fallback::Deny);
}

#[test]
fn the_document_has_each_key_with_its_bounds_and_default() {
    let row = |key: &str| {
        let start = format!("| `{key}` |");
        let found = DOCUMENT.lines().find(|line| line.starts_with(&start));
        found.unwrap_or_else(|| panic!("docs/grants.md has no row for {key}"))
    };
    // The example has every key.
    let mut keys = BTreeSet::new();
    for line in example().lines() {
        if let Some((key, _)) = line.split_once(" = ") {
            keys.insert(key.trim_start_matches("# "));
        }
    }
    assert!(keys.len() >= 21, "{keys:?}");
    keys.into_iter().for_each(|key| assert!(row(key).len() > key.len() + 10));
    for (key, Bounds { least, most, default }) in [
        ("ring_bytes", limits::RING_BYTES),
        ("max_rules", limits::MAX_RULES),
        ("max_digests", limits::MAX_DIGESTS),
        ("max_muted", limits::MAX_MUTED),
        ("max_pending", limits::MAX_PENDING),
        ("max_cached", limits::MAX_CACHED),
        ("deadline_ms", limits::DEADLINE_MS),
        ("misses", limits::DEMOTION_MISSES),
        ("seconds", limits::DEMOTION_SECONDS),
    ] {
        let row = row(key);
        let bounds = format!("| {least} to {most} | {default} |");
        assert!(row.contains(&bounds), "{row} should have {bounds}");
    }
    for granted in EventType::all() {
        let classes: Vec<_> =
            granted.classes().iter().map(|class| class.name().to_owned()).collect();
        let line = format!("| `{granted}` | {} |", classes.join(", "));
        assert!(DOCUMENT.contains(&line), "docs/grants.md should have {line}");
    }
}

#[test]
fn one_bad_file_takes_nothing_from_the_others() {
    let (grants, errors) = Grants::load(vec![
        file("a.toml", text("com.example.a", "1")),
        file("b.toml", "nonsense".to_owned()),
        file("c.toml", text("com.example.c", "3")),
    ]);
    let clients: Vec<_> = grants.by_altitude().iter().map(|g| g.client.to_string()).collect();
    assert_eq!(clients, ["com.example.c", "com.example.a"]);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].place.file, "b.toml");
}

#[test]
fn a_file_that_became_bad_goes_on_granting_what_it_did() {
    let a = file("a.toml", text("com.example.a", "1"));
    let (before, errors) = Grants::load(vec![a, file("b.toml", text("com.example.b", "2"))]);
    assert_eq!(errors, []);
    let broken =
        vec![file("a.toml", "altitude = ".to_owned()), file("b.toml", text("com.example.b", "9"))];
    let (after, errors) = before.reload(broken);
    assert_eq!(errors.len(), 1);
    let altitudes: Vec<_> = after.by_altitude().iter().map(|g| g.altitude.to_string()).collect();
    assert_eq!(altitudes, ["9", "1"]);
    // Only a file that is gone takes its grant with it.
    let (after, errors) = after.reload(vec![file("b.toml", text("com.example.b", "9"))]);
    assert_eq!((after.len(), errors.len()), (1, 0));
}

#[test]
fn of_two_with_one_id_the_first_is_granted_and_the_second_told_of_it() {
    let (grants, errors) = Grants::load(vec![
        file("b.toml", text("com.example.a", "2")),
        file("a.toml", text("com.example.a", "1")),
    ]);
    assert_eq!(grants.by_altitude()[0].altitude.to_string(), "1");
    assert_eq!(
        errors[0].to_string(),
        "b.toml:1:10: com.example.a has a grant already, at a.toml:1:10\n  help: a client has one \
         grant: put both into one file, or choose another id"
    );
}

#[test]
fn of_two_with_one_altitude_the_first_is_granted_and_the_second_told_of_it() {
    let (grants, errors) = Grants::load(vec![
        file("a.toml", text("com.example.a", "10.5")),
        file("b.toml", text("com.example.b", "010.50")),
    ]);
    assert_eq!(grants.len(), 1);
    assert_eq!(
        errors[0].to_string(),
        "b.toml:2:12: altitude 10.5 is that of com.example.a already, at a.toml:2:12\n  help: \
         choose another; there is room: \"10.55\" is just above it"
    );
}

#[test]
fn a_new_or_changed_file_does_not_take_what_another_has() {
    let b = || file("b.toml", text("com.example.b", "2"));
    let (before, _) = Grants::load(vec![b(), file("c.toml", text("com.example.c", "3"))]);
    // "a.toml" comes first by name, and last by right; "c.toml" wants what "b.toml" has.
    let (after, errors) = before.reload(vec![
        file("a.toml", text("com.example.b", "1")),
        b(),
        file("c.toml", text("com.example.c", "2")),
    ]);
    assert_eq!(after, before);
    let places: Vec<_> = errors.iter().map(|error| error.place.to_string()).collect();
    assert_eq!(places, ["a.toml:1:10", "c.toml:2:12"]);
}

#[test]
fn two_can_change_places() {
    let both = |one: &str, two: &str| {
        vec![file("a.toml", text("com.example.a", one)), file("b.toml", text("com.example.b", two))]
    };
    let (before, _) = Grants::load(both("1", "2"));
    let (after, errors) = before.reload(both("2", "1"));
    assert_eq!(errors, []);
    assert_eq!(after.by_altitude()[0].client.as_str(), "com.example.a");
    // Three in a circle, one of which breaks: it keeps its altitude, and so do the others.
    let (again, errors) = after.reload(vec![
        file("a.toml", "broken".to_owned()),
        file("b.toml", text("com.example.b", "2")),
    ]);
    assert_eq!(again, after);
    assert_eq!(errors.len(), 2);
}

#[test]
fn a_file_that_is_no_grant_is_not_read_to_its_end() {
    let errors = Grant::parse("x", &"a".repeat(65 << 10)).expect_err("too long");
    assert_eq!(errors[0].message, "has 66560 bytes, and a grant at most 65536");
}
