// SPDX-License-Identifier: Apache-2.0
//! The examples as they are run, with a daemon that the test is.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../crates/sdk/tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvFlags, recv};
use sdk::abi::{
    CLASS_ASK, CLASS_NOTIFY, DIGEST_SHA256, EventType, ProcessExec, RecordBuilder, Verdict,
};
use serde_json::{Value, json};
use support::FakeDaemon;
use zerocopy::FromBytes;

/// Starts an example and brings it to where it waits for events. Gives what it subscribed to as well.
fn started(program: &str, arguments: &[&str]) -> (Child, FakeDaemon, Value) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let listener = UnixListener::bind(&socket).unwrap();
    let child =
        Command::new(program).args(arguments).arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
    let mut daemon = FakeDaemon::over(listener.accept().unwrap().0);
    daemon.accept();
    let call = daemon.call();
    daemon.reply(&json!({}));
    (child, daemon, call["parameters"]["subscriptions"].clone())
}

fn exec(path: &[u8], fill: impl FnOnce(&mut RecordBuilder<ProcessExec>)) -> Vec<u8> {
    let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
    builder.part.file.path = builder.path(path);
    fill(&mut builder);
    builder.finish().as_bytes().to_vec()
}

/// All that it prints until the daemon ends.
fn output(mut child: Child, daemon: FakeDaemon) -> Vec<String> {
    let output = BufReader::new(child.stdout.take().unwrap());
    drop(daemon);
    let lines = output.lines().collect::<Result<_, _>>().unwrap();
    assert!(child.wait().unwrap().success());
    lines
}

#[test]
fn the_observer_prints_who_executes_what_and_what_was_lost() {
    let (child, mut daemon, subscriptions) = started(env!("CARGO_BIN_EXE_observer"), &[]);
    assert_eq!(subscriptions, json!([{ "event": "process_exec", "classes": ["notify"] }]));
    daemon.ring.write(&exec(b"/usr/bin/id", |b| {
        b.header.classes = CLASS_NOTIFY;
        b.actor.process.pid = 20;
        b.actor.parent.pid = 10;
    }));
    daemon.ring.write(&[0; 400]);
    daemon.ring.write(&exec(b"/opt/a\xff", |b| {
        b.header.lost = 3;
        b.actor.process.pid = 21;
        b.actor.uid = 4_000_000_000;
    }));
    assert_eq!(
        output(child, daemon),
        [
            "/usr/bin/id pid 20 parent 10 user root",
            "(3 records were lost here)",
            "/opt/a\\xff pid 21 parent 0 user 4000000000",
        ]
    );
}

#[test]
fn the_allow_list_denies_what_is_not_on_it_and_caches_only_what_it_knows_by_digest() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let digest = "ab".repeat(32);
    std::fs::write(list.path(), format!("# allowed\n/usr/bin/id\n\nverity:{digest}\n")).unwrap();
    let arguments = [list.path().to_str().unwrap()];
    let (child, mut daemon, subscriptions) = started(env!("CARGO_BIN_EXE_allow-list"), &arguments);
    assert_eq!(subscriptions, json!([{ "event": "process_exec", "classes": ["ask"] }]));
    let ask = |id| {
        move |b: &mut RecordBuilder<ProcessExec>| {
            b.header.classes = CLASS_ASK;
            b.header.event_id = id;
        }
    };
    daemon.ring.write(&exec(b"/usr/bin/id", ask(1)));
    daemon.ring.write(&exec(b"/tmp/unknown", ask(2)));
    daemon.ring.write(&exec(b"/tmp/known", |b| {
        ask(3)(b);
        b.part.file.digest_algorithm = DIGEST_SHA256;
        b.part.file.digest = [0xab; 32];
    }));
    // Told, not asked: nobody waits for an answer.
    daemon.ring.write(&exec(b"/tmp/told", |_| {}));
    let answers = [1, 2, 3].map(|id| {
        let mut message = [0; 64];
        let (length, _) = recv(&daemon.verdicts, &mut message[..], RecvFlags::empty()).unwrap();
        let verdict = Verdict::read_from_bytes(&message[..length]).unwrap();
        assert_eq!(verdict.event_id, id);
        (verdict.verdict, verdict.error, verdict.flags)
    });
    assert_eq!(answers, [(1, 0, 0), (2, 1, 0), (1, 0, 1)]);
    assert_eq!(output(child, daemon), ["denied /tmp/unknown"]);
}

#[test]
fn a_list_with_a_line_that_is_neither_is_refused_with_its_number() {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "/usr/bin/id\nsha256:00\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_allow-list")).arg(list.path()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(":2: neither a path nor a digest"), "{error}");
}
