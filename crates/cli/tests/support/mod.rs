// SPDX-License-Identifier: Apache-2.0
//! Runs the command as a user would.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../src/schema.rs"]
pub(crate) mod schema;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command that was just built.
pub(crate) fn ringfence() -> Command {
    // Elsewhere than where it was built (the lab), somebody says where the command is.
    let command = std::env::var_os("RINGFENCE_COMMAND");
    Command::new(command.unwrap_or_else(|| env!("CARGO_BIN_EXE_ringfence").into()))
}

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the command to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    let output = ringfence().args(arguments).output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `ringfence watch --json` with a state directory of its own.
pub(crate) struct Watch {
    child: Child,
    lines: Receiver<Value>,
    events: Vec<Value>,
    _state: TempDir,
}

impl Watch {
    /// Starts it with further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut child = ringfence()
            .args(["watch", "--json", "--state-dir"])
            .arg(state.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines() {
                let event = serde_json::from_str(&line.unwrap()).unwrap();
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, events: Vec::new(), _state: state }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event that `is` what is wanted.
    pub(crate) fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    let found = is(&event);
                    self.events.push(event);
                    if found {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain for {what}"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("watch ended before {what}: {:?}", self.child.wait())
                }
            }
        }
    }

    /// Asks it to end with SIGINT, as Ctrl-C does, and gives its status and all its events.
    pub(crate) fn stop(mut self) -> (ExitStatus, Vec<Value>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = self.child.wait().unwrap();
        self.events.extend(self.lines.iter());
        (status, std::mem::take(&mut self.events))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A test that fails leaves nothing running; one that ended well has waited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this kernel announces changes of its text, and if not why not, as `doctor` says.
pub(crate) fn announces_text_pokes() -> Result<(), String> {
    let doctor: Value = serde_json::from_str(&run(&["doctor", "--json"]).out).unwrap();
    let features = doctor["features"].as_array().unwrap();
    let journal = features.iter().find(|feature| feature["name"] == "text poke journal").unwrap();
    match journal["state"].as_str() {
        Some("available") => Ok(()),
        _ => Err(journal["reason"].as_str().unwrap_or_default().to_owned()),
    }
}

/// The number by which perf knows a tracepoint, from a tracefs that only this thread sees.
pub(crate) fn tracepoint_id(name: &str) -> u64 {
    let name = name.to_owned();
    let found = std::thread::spawn(move || {
        let place = tempfile::tempdir().unwrap();
        let path = std::ffi::CString::new(place.path().to_str().unwrap()).unwrap();
        // SAFETY: unshare takes no pointers; it changes this thread alone, which ends soon.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        assert_eq!(unshared, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the strings outlive the call and the other pointers may be null for this change.
        let private = unsafe {
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null())
        };
        assert_eq!(private, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the strings outlive the call; tracefs takes no data.
        let mounted = unsafe {
            let kind = c"tracefs".as_ptr();
            libc::mount(kind, path.as_ptr(), kind, 0, std::ptr::null())
        };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        let groups = fs::read_dir(place.path().join("events")).unwrap();
        let ids = groups
            .filter_map(|group| fs::read_to_string(group.ok()?.path().join(&name).join("id")).ok());
        let ids: Vec<u64> = ids.filter_map(|id| id.trim().parse().ok()).collect();
        // SAFETY: the string outlives the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        ids.first().copied()
    });
    found.join().unwrap().expect("the kernel has no such tracepoint")
}
