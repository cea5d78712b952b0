// SPDX-License-Identifier: Apache-2.0
//! Rules of a client without any privilege, through the daemon, on this host's kernel.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use daemon::kernel::LiveKernel;
use serde_json::json;
use support::million::replace_a_collection;
use support::nobody::{as_nobody, grant_for_nobody, open_for_all, session_of_part};
use support::{CLIENT, Daemon, grant};

fn execute() -> std::io::Result<u32> {
    let mut child = Command::new("/bin/true").spawn()?;
    child.wait()?;
    Ok(child.id())
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_client_is_told_by_its_rules_denies_what_this_host_can_deny_and_leaves_them_behind() {
    let text = grant_for_nobody().replace("\"ask\"", "\"rule\"");
    let daemon = Daemon::start_on(LiveKernel::load(&[], None).unwrap(), &text);
    open_for_all(daemon.socket.parent().unwrap());
    let said = as_nobody("part_of_a_client_that_has_rules", &daemon.socket);
    print!("{said}");
    // They stay when it goes, and root sees them.
    let matches = || {
        let rules = daemon.connect().ok("GetRules", json!({}));
        assert_eq!(rules["clients"][0]["client"], CLIENT);
        rules["clients"][0]["rules"][0]["matches"].as_u64().unwrap()
    };
    let before = matches();
    execute().unwrap();
    assert!(matches() > before);
}

#[test]
#[ignore = "root: a part of another test, run by it as nobody"]
fn part_of_a_client_that_has_rules() {
    let Some((mut client, mut ring)) = session_of_part() else { return };
    let rule = |action: &str, conditions: &str| {
        let rule = format!("[[rule]]\nid = 12\nevent = \"process_exec\"\n{action}\n{conditions}");
        json!({ "rules": rule })
    };
    let notify = rule("action = \"notify\"", "file.path = \"/\"");
    let deny = rule("action = \"deny\"\nerror = \"EBUSY\"", "actor.euid = 65534");
    let coverage = client.ok("GetCoverage", json!({}));
    let here = &coverage["coverage"][0]["rule"];
    if here["state"] == "available" {
        assert!(execute().is_ok());
        client.ok("InstallRules", deny);
        assert_eq!(execute().unwrap_err().raw_os_error(), Some(16));
        let rules = client.ok("GetRules", json!({}));
        assert_eq!(rules["clients"][0]["rules"][0]["denies"], 1, "{rules}");
        println!("denied with EBUSY");
    } else {
        let (error, parameters) = client.fails("InstallRules", deny);
        assert_eq!(error, "EventUnavailable");
        assert!(parameters["reason"].as_str().unwrap().contains("rule 12"), "{parameters}");
        assert!(here["reason"].as_str().unwrap().contains("not deny"), "{here}");
        println!("not looked for: {parameters}");
    }
    client.ok("InstallRules", notify);
    let pid = execute().unwrap();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was told");
        ring.wait(Some(Duration::from_millis(100)), None).unwrap();
        let Some(received) = ring.next().unwrap() else { continue };
        let header = received.record.header();
        assert_eq!((header.r#type, header.classes, header.rule), (1, 2, 12));
        if received.record.actor().is_some_and(|actor| actor.process.pid == pid) {
            break;
        }
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_million_digests_come_into_the_kernel_while_others_are_answered() {
    let limit = "\n[limits]\nmax_digests = 1000000\n";
    let grant = grant(CLIENT, 1000).replace("\"notify\", \"ask\"", "\"notify\", \"rule\"") + limit;
    let daemon = Daemon::start_on(LiveKernel::load(&[], None).unwrap(), &grant);
    let answered = replace_a_collection(&daemon);
    assert!(answered > 5, "{answered}");
}
