// SPDX-License-Identifier: Apache-2.0
//! Records as the programs of this kernel make them, read through the SDK.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use probes::events::Hooks;
use sdk::abi::{Event, EventType, FLAG_MANDATORY};
use sdk::{Ring, Waited};

#[test]
#[ignore = "root: loads BPF programs"]
fn a_program_that_runs_here_is_told_of_with_its_path_its_arguments_and_its_end() {
    let mut hooks = Hooks::load().unwrap();
    let made = hooks.create_ring(1 << 20).unwrap();
    hooks.admit(0, &made).unwrap();
    let types = EventType::ProcessExec.bit() | EventType::ProcessExit.bit();
    hooks.subscribe(0, types).unwrap();
    let mut ring = Ring::new(made.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(ring.size(), u64::from(made.bytes()));

    let marker = format!("marker-{}", std::process::id());
    let mut child = Command::new("/bin/true").arg(&marker).spawn().unwrap();
    let pid = child.id();
    assert!(child.wait().unwrap().success());

    let until = Instant::now() + Duration::from_secs(20);
    let (mut executed, mut ended) = (false, false);
    let mut expected = 0;
    while !(executed && ended) {
        let left = until.saturating_duration_since(Instant::now());
        assert_eq!(ring.wait(Some(left), None).unwrap(), Waited::Ready);
        // Whatever else runs here meanwhile must be readable too.
        let received = ring.next().unwrap().unwrap();
        assert_eq!(received.sequence, expected + received.missed);
        expected = received.sequence + 1;
        let Some(actor) = received.record.actor() else { continue };
        if actor.process.pid != pid {
            continue;
        }
        assert_eq!(received.record.header().flags & FLAG_MANDATORY, FLAG_MANDATORY);
        assert_eq!(actor.parent.pid, std::process::id());
        match received.record.event() {
            // Before it runs another program, the child runs this one.
            Event::ProcessExec(exec) => {
                let arguments: Vec<_> = exec.arguments().collect();
                assert_eq!(arguments, [b"/bin/true", marker.as_bytes()]);
                assert!(exec.path().ends_with(b"/true"), "{:?}", exec.path().escape_ascii());
                assert_eq!(received.record.executable_path(), exec.path());
                executed = true;
            }
            Event::ProcessExit(exit) => {
                assert_eq!((exit.code, exit.signal), (0, 0));
                ended = true;
            }
            other => panic!("{other:?}"),
        }
    }
}
