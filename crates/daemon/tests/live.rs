// SPDX-License-Identifier: Apache-2.0
//! The daemon on this host's kernel, and a client without any privilege.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use daemon::kernel::{Kernel, LiveKernel};
use serde_json::json;
use support::nobody::{NOBODY, as_nobody, grant_for_nobody, open_for_all, session_of_part};
use support::{CLIENT, Daemon};

/// A daemon on the kernel whose grant is for this executable as nobody.
fn daemon() -> Daemon {
    let text = grant_for_nobody().replace("[events.process_fork]", "[events.process_exit]");
    let daemon = Daemon::start_on(LiveKernel::load(&[], None).unwrap(), &text);
    open_for_all(daemon.socket.parent().unwrap());
    daemon
}

#[test]
#[ignore = "root: loads BPF programs"]
fn an_unprivileged_client_reads_its_own_execs_from_its_ring() {
    let daemon = daemon();
    as_nobody("part_of_a_client_that_reads_its_own_execs", &daemon.socket);
}

#[test]
#[ignore = "root: a part of another test, run by it as nobody"]
fn part_of_a_client_that_reads_its_own_execs() {
    let Some((mut client, mut ring)) = session_of_part() else { return };
    let exec = json!({ "event": "process_exec", "classes": ["notify"] });
    let exit = json!({ "event": "process_exit", "classes": ["notify"] });
    client.ok("Subscribe", json!({ "subscriptions": [exec, exit] }));
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    let known = client.call("QueryProcess", json!({ "pid": pid }));
    child.wait().unwrap();

    let began = Instant::now();
    let (mut executed, mut exited) = (None, false);
    while !exited {
        assert!(began.elapsed() < Duration::from_secs(20), "exec {executed:?}, exit {exited}");
        ring.wait(Some(Duration::from_millis(100)), None).unwrap();
        while let Some(received) = ring.next().unwrap() {
            let Some(actor) = received.record.actor() else { continue };
            if actor.process.pid != pid {
                continue;
            }
            match received.record.event() {
                abi::Event::ProcessExec(exec) => {
                    assert!(exec.path().ends_with(b"/true"), "{:?}", exec.path());
                    assert_eq!((actor.uid, actor.parent.pid), (NOBODY, std::process::id()));
                    executed = Some(actor.process.start);
                }
                abi::Event::ProcessExit(_) => exited = true,
                _ => {}
            }
        }
    }
    let start = executed.expect("exec comes before exit");
    // The key that the daemon gave is that of the records, unless the child was too quick for it.
    if let Some(key) = known["parameters"]["process"].get("key") {
        assert_eq!(key["start"], start);
    }
    let own = client.ok("QueryProcess", json!({ "pid": std::process::id() }));
    assert_eq!(own["process"]["uid"], NOBODY);
    let counts = client.ok("GetStatistics", json!({}));
    assert!(counts["counts"]["written"].as_u64().unwrap() >= 2, "{counts}");
    assert_eq!(client.fails("GetClients", json!({})).0, "NotAdministrator");
    let (error, _) = client.fails("ResolveCgroup", json!({ "cgroup": u32::MAX }));
    assert!(["CgroupNotFound", "KernelRefused"].contains(&error.as_str()), "{error}");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn who_runs_as_another_user_is_refused() {
    let daemon = daemon();
    let reply = daemon.connect().open(CLIENT);
    assert_eq!(reply["error"], "io.ringfence.Control.IdentityRefused", "{reply}");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn coverage_says_what_this_host_gives() {
    let daemon = daemon();
    let coverage = daemon.connect().ok("GetCoverage", json!({}));
    for row in coverage["coverage"].as_array().unwrap() {
        for class in ["notify", "rule", "ask"] {
            let availability = &row[class];
            let wanted = match availability["state"].as_str().unwrap() {
                "available" => "mechanism",
                "unavailable" | "reduced" => "reason",
                _ => continue,
            };
            assert!(availability[wanted].as_str().is_some_and(|text| !text.is_empty()), "{row}");
        }
    }
    let kernel = LiveKernel::load(&[], None).unwrap();
    let exec = broker::event::EventType::from_name("process_exec").unwrap();
    assert!(kernel.availability(exec, broker::event::Class::Notify).is_there());
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_client_that_is_gone_leaves_its_slot_to_the_next() {
    let daemon = daemon();
    for _ in 0..3 {
        as_nobody("part_of_a_client_that_opens_and_goes", &daemon.socket);
    }
}

#[test]
#[ignore = "root: a part of another test, run by it as nobody"]
fn part_of_a_client_that_opens_and_goes() {
    let Some((mut client, _)) = session_of_part() else { return };
    let exec = json!({ "event": "process_exec", "classes": ["notify"] });
    client.ok("Subscribe", json!({ "subscriptions": [exec] }));
    client.ok("Mute", json!({ "mutes": [{ "path_prefix": "/usr/" }, { "cgroup": 1 }] }));
    client.ok("InvertMutes", json!({ "inverted": true }));
}
