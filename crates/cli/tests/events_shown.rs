// SPDX-License-Identifier: Apache-2.0
//! `ringfence events` with a daemon that the test is.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../sdk/tests/support/mod.rs"]
mod daemon;
#[path = "../../abi/tests/support/mod.rs"]
mod records;

use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use abi::{EventType, RecordBuffer};
use daemon::FakeDaemon;
use serde_json::{Value, json};

/// Runs the command with these arguments against a daemon that writes these records and then ends,
/// and gives the subscriptions too.
fn events(arguments: &[&str], records: &[RecordBuffer]) -> (Output, Value) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let listener = UnixListener::bind(&socket).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["events", "--socket"])
        .arg(&socket)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut daemon = FakeDaemon::over(listener.accept().unwrap().0);
    let opened = daemon.accept();
    assert_eq!(opened["parameters"]["client"], "io.ringfence.events");
    let mut call = daemon.call();
    if call["method"] == "io.ringfence.Control.GetCoverage" {
        let class = json!({ "state": "available", "mechanism": "a tracepoint", "reason": null });
        daemon.reply(&json!({ "coverage": [{
            "event": "process_exec", "number": 1, "area": "process", "stage": "stable",
            "since": "1.0", "notify": class, "rule": class, "ask": class
        }]}));
        call = daemon.call();
    }
    daemon.reply(&json!({}));
    for record in records {
        assert!(daemon.ring.write(record.as_bytes()));
    }
    drop(daemon);
    (child.wait_with_output().unwrap(), call["parameters"]["subscriptions"].clone())
}

fn of(event: EventType) -> RecordBuffer {
    records::sample_of_each().into_iter().find(|(sample, _)| *sample == event).unwrap().1
}

#[test]
fn events_are_shown_until_the_daemon_was_stopped() {
    let mut spoilt = of(EventType::ProcessExec);
    records::put(spoilt.as_mut_bytes(), 4, &[9, 0]);
    let records =
        [of(EventType::ProcessExec), spoilt, of(EventType::Loss), of(EventType::ShuttingDown)];
    let (output, subscriptions) = events(&[], &records);
    assert_eq!(subscriptions, json!([{ "event": "process_exec", "classes": ["notify"] }]));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].ends_with("bash[100] uid 1000: /usr/bin/env \"-i\""), "{text}");
    assert_eq!(lines[1], "(5 records were lost here)");
    assert!(lines[2].contains("5 records lost, ring_full"), "{text}");
    assert!(lines[3].contains("shutting_down"), "{text}");
    let errors = String::from_utf8(output.stderr).unwrap();
    let expected = "ringfence: record 1 cannot be decoded: the record is of version 9 of the ABI; \
                    this program knows version 1\n";
    assert_eq!(errors, expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn json_lines_stop_at_the_count_and_types_are_asked_for() {
    let records = [of(EventType::ProcessFork), of(EventType::ProcessExit), of(EventType::Loss)];
    let (output, subscriptions) = events(
        &["--json", "--count", "2", "--type", "process_fork", "--type", "process_exit"],
        &records,
    );
    assert_eq!(
        subscriptions,
        json!([
            { "event": "process_fork", "classes": ["notify"] },
            { "event": "process_exit", "classes": ["notify"] }
        ])
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["type"], "process_exit");
    assert_eq!(lines[1]["sequence"], 1);
    assert_eq!(lines[1]["event"]["signal"], 11);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_daemon_that_ends_without_a_word_is_an_error() {
    let (output, _) = events(&[], &[of(EventType::ProcessExec)]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "ringfence: Ringfence has ended the session\n"
    );
    assert_eq!(output.status.code(), Some(2));
}
