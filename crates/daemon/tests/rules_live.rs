// SPDX-License-Identifier: Apache-2.0
//! Rules of a client without any privilege, through the daemon, on this host's kernel.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use daemon::kernel::LiveKernel;
use serde_json::json;
use support::{CLIENT, Client, Daemon, grant};

/// Where the unprivileged part of the test finds the daemon.
const SOCKET: &str = "RINGFENCE_TEST_SOCKET";
/// nobody
const NOBODY: u32 = 65_534;

fn execute() -> std::io::Result<u32> {
    let mut child = Command::new("/bin/true").spawn()?;
    child.wait()?;
    Ok(child.id())
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_client_is_told_by_its_rules_denies_what_this_host_can_deny_and_leaves_them_behind() {
    let own = rustix::process::geteuid().as_raw();
    let text = grant(CLIENT, 1000)
        .replace(&format!("uid = {own}"), &format!("uid = {NOBODY}"))
        .replace("\"ask\"", "\"rule\"");
    let daemon = Daemon::start_on(LiveKernel::load(&[]).unwrap(), &text);
    let directory = daemon.socket.parent().unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "part_of_a_client_that_has_rules", "--ignored", "--nocapture"])
        .env(SOCKET, &daemon.socket)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
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
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let mut client = Client::connect(Path::new(&socket));
    let reply = client.open(CLIENT);
    assert!(reply.get("error").is_none(), "{reply}");
    let mut ring = sdk::Ring::new(client.descriptors.remove(0)).unwrap();
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
