// SPDX-License-Identifier: Apache-2.0
//! Findings of a guard, which the test is, reach the clients that subscribe to them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use abi::{Event, FINDING_GONE, FINDING_NEW, FINDING_STANDING, RecordBuffer};
use serde_json::{Value, json};
use support::{CLIENT, Client, Daemon, grant};
use tempfile::TempDir;

/// Another client than [`CLIENT`].
const OTHER: &str = "org.example.other";
const PATIENCE: Duration = Duration::from_secs(30);

/// A guard that says what the test writes.
struct Script {
    directory: TempDir,
    pipe: Option<File>,
}

impl Script {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let script = Self { directory, pipe: None };
        let text = format!(
            "#!/bin/sh\n[ \"$*\" = 'watch --json --quiet-journal' ] || exit 9\n\
             echo $$ >>{0}/pids\nexec cat {0}/fifo\n",
            script.directory.path().display()
        );
        std::fs::write(script.program(), text).unwrap();
        std::fs::set_permissions(script.program(), PermissionsExt::from_mode(0o755)).unwrap();
        script
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("guard")
    }

    /// Waits until the next process of it runs.
    fn runs(&mut self) {
        self.pipe =
            Some(File::options().write(true).open(self.directory.path().join("fifo")).unwrap());
    }

    /// A line that is no event.
    fn raw(&mut self, line: &[u8]) {
        self.pipe.as_mut().unwrap().write_all(line).unwrap();
    }

    fn say(&mut self, event: &Value) {
        self.raw(format!("{event}\n").as_bytes());
    }

    fn start(&mut self) {
        self.say(&sample("start"));
    }

    fn pass(&mut self, number: u64) {
        let mut pass = sample("pass");
        pass["number"] = number.into();
        self.say(&pass);
    }

    fn finding(&mut self, event: &str, symbol: &str) {
        let mut told = sample(event);
        told["finding"] = finding(symbol);
        self.say(&told);
    }

    /// The process ends by itself.
    fn end(&mut self) {
        self.pipe = None;
    }

    fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.directory.path().join("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// A line as the real one says it; a test of `ringfence` holds each to the published schema.
fn sample(event: &str) -> Value {
    let lines = include_str!("guard-lines.jsonl").lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.find(|line| line["event"] == event).unwrap()
}

fn finding(symbol: &str) -> Value {
    let mut finding = sample("finding")["finding"].take();
    finding["symbol"] = symbol.into();
    finding
}

fn with_findings(client: &str, altitude: u32) -> String {
    grant(client, altitude) + "[events.kernel_finding]\nclasses = [\"notify\"]\n"
}

fn daemon(script: &Script) -> Daemon {
    let grants = [("a.toml", with_findings(CLIENT, 1000)), ("b.toml", with_findings(OTHER, 2000))];
    Daemon::start_guarded(script.program(), &grants)
}

fn session(daemon: &Daemon, client: &str) -> Client {
    let mut connected = daemon.connect();
    let reply = connected.open(client);
    assert!(reply.get("error").is_none(), "{reply}");
    connected
}

fn subscribe(client: &mut Client) {
    let wanted = json!([{ "event": "kernel_finding", "classes": ["notify"] }]);
    client.ok("Subscribe", json!({ "subscriptions": wanted }));
}

/// Which findings each slot was told of, with their states.
fn told(daemon: &Daemon) -> Vec<Vec<(u32, String)>> {
    let kernel = daemon.kernel.get();
    let of = |records: &Vec<Vec<u8>>| {
        let each = records.iter().filter_map(|bytes| {
            let record = RecordBuffer::copy_of(bytes);
            let record = record.record().unwrap();
            let Event::KernelFinding(view) = record.event() else { return None };
            assert_eq!((view.check(), view.technique()), (&b"text"[..], &b"early return"[..]));
            let json: Value = serde_json::from_slice(view.finding()).unwrap();
            let symbol = json["symbol"].as_str().unwrap().to_owned();
            assert_eq!(json, finding(&symbol));
            assert!(view.part().found <= record.header().time && view.part().found > 0);
            Some((view.part().state, symbol))
        });
        each.collect()
    };
    kernel.slots.values().map(|slot| of(&slot.records)).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn guard(client: &mut Client) -> Value {
    client.ok("GetStatus", json!({}))["guard"].take()
}

fn notify(client: &mut Client) -> Value {
    let coverage = client.ok("GetCoverage", json!({}));
    let rows = coverage["coverage"].as_array().unwrap();
    rows.iter().find(|row| row["event"] == "kernel_finding").unwrap()["notify"].clone()
}

fn new(symbol: &str) -> (u32, String) {
    (FINDING_NEW, symbol.to_owned())
}

#[test]
fn a_finding_reaches_who_subscribes_and_nobody_else() {
    let mut script = Script::new();
    let daemon = daemon(&script);
    script.runs();
    script.start();
    script.pass(1);
    let (mut one, mut other) = (session(&daemon, CLIENT), session(&daemon, OTHER));
    subscribe(&mut one);
    until("the first pass", || guard(&mut one)["state"] == "watching");
    assert_eq!(notify(&mut one)["state"], "available");
    script.finding("finding", "f");
    until("a finding", || told(&daemon).concat() == [new("f")]);
    // Who comes later is told of what stands, once.
    subscribe(&mut other);
    subscribe(&mut other);
    let standing = (FINDING_STANDING, "f".to_owned());
    until("what stands", || told(&daemon).concat().len() == 2);
    assert!(told(&daemon).contains(&vec![standing.clone()]));
    script.finding("cleared", "f");
    let gone = (FINDING_GONE, "f".to_owned());
    until("the end", || told(&daemon).concat().len() == 4);
    assert!(told(&daemon).contains(&vec![new("f"), gone.clone()]));
    assert!(told(&daemon).contains(&vec![standing, gone]));
    let health = guard(&mut one);
    assert_eq!((&health["found"], &health["standing"]), (&json!(1), &json!(0)), "{health}");
}

#[test]
fn lines_that_are_none_are_told_of_and_do_no_harm() {
    let mut script = Script::new();
    let daemon = daemon(&script);
    let mut client = session(&daemon, CLIENT);
    subscribe(&mut client);
    script.runs();
    script.raw(b"Segmentation fault\n\xff\xfe\n{\"event\":\"finding\",\"finding\":7}\n[]\n");
    script.raw(&vec![b'x'; 1 << 20]);
    script.raw(b"\n");
    script.pass(1);
    script.finding("finding", "f");
    until("a finding", || told(&daemon).concat() == [new("f")]);
    let status = client.ok("GetStatus", json!({}));
    assert_eq!(status["guard"]["bad_lines"], 5, "{status}");
    let problems = status["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["area"] == "guard").unwrap();
    assert!(problem["reason"].as_str().unwrap().contains("could not be read"), "{problem}");
}

#[test]
fn a_guard_that_ends_is_said_to_and_started_again_and_nothing_is_told_twice() {
    let mut script = Script::new();
    let daemon = daemon(&script);
    let mut client = session(&daemon, CLIENT);
    subscribe(&mut client);
    script.runs();
    script.start();
    for symbol in ["stays", "goes"] {
        script.finding("finding", symbol);
    }
    script.pass(1);
    script.pass(2);
    until("passes", || guard(&mut client)["passes"] == 2);
    let pid = guard(&mut client)["pid"].clone();
    script.end();
    until("the end", || guard(&mut client)["state"] == "ended");
    let lacking = notify(&mut client);
    assert_eq!(lacking["state"], "unavailable");
    assert!(lacking["reason"].as_str().unwrap().contains("exit status: 0"), "{lacking}");
    // A client that wants findings now is told why it gets none.
    let mut other = session(&daemon, OTHER);
    let wanted = json!([{ "event": "kernel_finding", "classes": ["notify"] }]);
    let (error, _) = other.fails("Subscribe", json!({ "subscriptions": wanted }));
    assert_eq!(error, "EventUnavailable");

    script.runs();
    script.start();
    for symbol in ["stays", "comes"] {
        script.finding("finding", symbol);
    }
    script.pass(1);
    script.pass(2);
    until("passes", || guard(&mut client)["passes"] == 2 && guard(&mut client)["pid"] != pid);
    assert_eq!(guard(&mut client)["starts"], 2);
    let gone = (FINDING_GONE, "goes".to_owned());
    until("what is gone", || told(&daemon).concat().len() == 4);
    let all = [new("stays"), new("goes"), new("comes"), gone];
    assert!(told(&daemon).contains(&all.to_vec()), "{:?}", told(&daemon));
    // It was told that it had no guard for a while, and that it has one again.
    let kernel = daemon.kernel.get();
    let stages = kernel.slots.values().flat_map(|slot| &slot.records).filter_map(|bytes| {
        let record = RecordBuffer::copy_of(bytes);
        match record.record().unwrap().event() {
            Event::StageChanged(view) => Some((view.part().event_type, view.part().after)),
            _ => None,
        }
    });
    assert_eq!(
        stages.collect::<Vec<_>>(),
        [(52, abi::STAGE_UNAVAILABLE), (52, abi::STAGE_OBSERVED)]
    );
}

#[test]
fn the_guard_ends_with_the_daemon() {
    let mut script = Script::new();
    let mut daemon = daemon(&script);
    script.runs();
    let pid = rustix::process::Pid::from_raw(script.pids()[0]).unwrap();
    rustix::process::test_kill_process(pid).unwrap();
    daemon.stop();
    until("its end", || rustix::process::test_kill_process(pid).is_err());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let daemon =
        Daemon::start_guarded("/nowhere/ringfence".into(), &[("a.toml", with_findings(CLIENT, 1))]);
    let mut client = session(&daemon, CLIENT);
    until("the end", || guard(&mut client)["state"] == "ended");
    let lacking = notify(&mut client);
    assert!(lacking["reason"].as_str().unwrap().contains("/nowhere/ringfence cannot be run"));
}

#[test]
fn without_a_guard_there_are_no_findings_and_it_is_said_why() {
    let daemon = Daemon::start_on_fake(&with_findings(CLIENT, 1));
    let mut client = session(&daemon, CLIENT);
    assert_eq!(guard(&mut client)["state"], "off");
    let wanted = json!([{ "event": "kernel_finding", "classes": ["notify"] }]);
    let (error, why) = client.fails("Subscribe", json!({ "subscriptions": wanted }));
    assert_eq!(error, "EventUnavailable");
    assert!(why["reason"].as_str().unwrap().contains("--no-guard"), "{why}");
}
