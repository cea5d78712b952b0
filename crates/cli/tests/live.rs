// SPDX-License-Identifier: Apache-2.0
//! The command on the kernel that it runs on.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use support::{Watch, ringfence, run, schema};

fn check(arguments: &[&str]) -> (support::Ran, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().to_str().unwrap().to_owned();
    let mut all = vec!["check", "--state-dir", &directory];
    all.extend(arguments);
    (run(&all), state)
}

#[test]
#[ignore = "root"]
fn a_check_of_this_kernel_is_clean_and_follows_the_schema() {
    let (ran, _state) = check(&["--json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    schema::assert_follows(&schema::report(), &report);
    assert_eq!(report["findings"], Value::Array(vec![]), "{}", ran.out);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let text = &report["text"];
    assert!(text["bytes"].as_u64() > Some(1 << 20));
    let sum = text["pinned"].as_u64().unwrap() + text["mutable"].as_u64().unwrap();
    assert_eq!(Some(sum), text["bytes"].as_u64());
    assert_eq!(text["unexplained"], 0);
}

#[test]
#[ignore = "root"]
fn the_second_check_uses_the_baseline_of_the_first() {
    let (first, state) = check(&["--json"]);
    let directory = state.path().to_str().unwrap();
    let again = run(&["check", "--json", "--state-dir", directory]);
    let notices = |ran: &support::Ran| {
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        report["notices"].to_string()
    };
    assert!(notices(&first).contains("taken as the baseline"), "{first:?}");
    assert!(!notices(&again).contains("taken as the baseline"), "{again:?}");
    let anew = run(&["check", "--json", "--state-dir", directory, "--new-baseline"]);
    assert!(notices(&anew).contains("replaced the baseline taken at"), "{anew:?}");
    assert_eq!(anew.code, Some(0));
}

#[test]
#[ignore = "root"]
fn a_damaged_baseline_is_refused_and_left_alone() {
    let (_, state) = check(&["--only", "text"]);
    let file = fs::read_dir(state.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let refused = run(&["check", "--state-dir", state.path().to_str().unwrap()]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("--new-baseline"), "{}", refused.err);
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
#[ignore = "root"]
fn the_report_for_people_names_the_kernel_and_each_check() {
    let (ran, _state) = check(&[]);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(ran.out.contains(release.trim()), "{}", ran.out);
    assert!(ran.out.contains("No findings."), "{}", ran.out);
    assert!(!ran.out.contains('\x1b'), "colours without a terminal");
}

#[test]
#[ignore = "root"]
fn a_check_whose_reader_goes_away_ends_quietly_with_its_own_status() {
    let state = tempfile::tempdir().unwrap();
    let mut child = ringfence()
        .args(["check", "--state-dir"])
        .arg(state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
#[ignore = "root"]
fn a_watch_passes_each_period_follows_the_schema_and_ends_on_interrupt() {
    let mut watch = Watch::start(&["--period", "0.2"]);
    watch.until("the third pass", |event| event["number"] == 3);
    let (status, events) = watch.stop();
    assert_eq!(status.code(), Some(0));
    let schema = schema::watch_event();
    for event in &events {
        schema::assert_follows(&schema, event);
    }
    assert_eq!(events[0]["event"], "start");
}

#[test]
#[ignore = "root"]
fn a_watch_sees_its_own_event_arrive() {
    let mut watch = Watch::start(&["--period", "0.2", "--only", "self"]);
    watch.until("a pass of `self`", |event| event["number"] == 2);
    let (_, events) = watch.stop();
    let pass = events.iter().rfind(|event| event["event"] == "pass").unwrap();
    assert_eq!(pass["checks"][0]["status"], "ok", "{pass:#}");
}
