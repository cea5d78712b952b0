// SPDX-License-Identifier: Apache-2.0
//! `ringfenced` as it is installed, with the real guard, on this host's kernel; and its client, which
//! is the user nobody.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use abi::{Event, FINDING_NEW};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use support::Client;
use support::nobody::{as_nobody, grant_for_nobody, open_for_all, session_of_part};
use tempfile::TempDir;

/// A first pass may have to take the kernel's image apart.
const PATIENCE: Duration = Duration::from_secs(240);

/// The program as it is installed, with a socket and a grant of its own.
struct Installed {
    daemon: Child,
    directory: TempDir,
}

impl Installed {
    fn start(guard: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        open_for_all(directory.path());
        let grants = directory.path().join("grants.d");
        std::fs::create_dir(&grants).unwrap();
        let text = grant_for_nobody() + "[events.kernel_finding]\nclasses = [\"notify\"]\n";
        std::fs::write(grants.join("test.toml"), text).unwrap();
        let daemon = Command::new(env!("CARGO_BIN_EXE_ringfenced"))
            .arg("--grants")
            .arg(grants)
            .arg("--socket")
            .arg(directory.path().join("control"))
            .arg("--guard")
            .arg(guard)
            .arg("--forget")
            .spawn()
            .unwrap();
        let installed = Self { daemon, directory };
        until("the socket", || installed.socket().exists().then_some(()));
        installed
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// What it says of its guard.
    fn status(&self) -> Value {
        Client::connect(&self.socket()).ok("GetStatus", json!({}))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let _ = self.daemon.wait();
    }
}

fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The pid of the guard, once it has ended so many passes.
fn passes(installed: &Installed, count: u64) -> Pid {
    let status = until("a pass of the guard", || {
        let status = installed.status();
        assert_ne!(status["guard"]["state"], "ended", "{status}");
        status["guard"]["passes"].as_u64().filter(|passes| *passes >= count).map(|_| status)
    });
    assert_eq!(status["guard"]["state"], "watching");
    Pid::from_raw(i32::try_from(status["guard"]["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

#[test]
#[ignore = "root: loads BPF programs"]
fn the_real_guard_passes_and_reports_nothing_that_is_not_so() {
    let ringfence = Path::new(env!("CARGO_BIN_EXE_ringfenced")).with_file_name("ringfence");
    assert!(ringfence.is_file(), "{}: cargo build -p ringfence-cli", ringfence.display());
    let mut installed = Installed::start(&ringfence);
    let pid = passes(&installed, 3);
    let status = installed.status();
    assert_eq!(status["guard"]["standing"], 0, "{status}");
    assert_eq!(status["guard"]["bad_lines"], 0, "{status}");
    assert_eq!(status["guard"]["starts"], 1, "{status}");
    let problems = status["problems"].as_array().unwrap();
    assert!(problems.iter().all(|problem| problem["area"] != "guard"), "{status}");

    // Also when nothing of the daemon is left to end it.
    kill_process(Pid::from_child(&installed.daemon), Signal::KILL).unwrap();
    installed.daemon.wait().unwrap();
    until("the end of the guard", || test_kill_process(pid).is_err().then_some(()));
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_finding_reaches_an_unprivileged_client_in_its_ring() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("guard");
    let mut lines: Vec<_> = include_str!("guard-lines.jsonl").lines().collect();
    lines.retain(|line| !line.contains("\"cleared\""));
    // It says all that at once, and then nothing more.
    let text = format!("#!/bin/sh\ncat <<'end'\n{}\nend\nexec sleep 600\n", lines.join("\n"));
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let installed = Installed::start(&program);
    as_nobody("part_of_a_client_that_waits_for_a_finding", &installed.socket());
}

#[test]
#[ignore = "root: a part of another test, run by it as nobody"]
fn part_of_a_client_that_waits_for_a_finding() {
    let Some((mut client, mut ring)) = session_of_part() else { return };
    let wanted = json!([{ "event": "kernel_finding", "classes": ["notify"] }]);
    client.ok("Subscribe", json!({ "subscriptions": wanted }));
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "no finding");
        ring.wait(Some(Duration::from_millis(100)), None).unwrap();
        while let Some(received) = ring.next().unwrap() {
            let Event::KernelFinding(finding) = received.record.event() else { continue };
            assert_eq!(
                (finding.check(), finding.technique()),
                (&b"text"[..], &b"early return"[..])
            );
            let json: Value = serde_json::from_slice(finding.finding()).unwrap();
            assert_eq!(json["symbol"], "f");
            assert!(finding.part().state >= FINDING_NEW && finding.part().found > 0);
            assert_eq!(received.missed, 0);
            return;
        }
    }
}
