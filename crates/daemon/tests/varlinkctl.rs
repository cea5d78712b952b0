// SPDX-License-Identifier: Apache-2.0
//! The control interface by varlinkctl of systemd, which knows nothing of it but what it serves.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use daemon::control::INTERFACE;
use rustix::fs::{major, minor};
use serde_json::{Value, json};
use support::idl::Interface;
use support::{CLIENT, Daemon, grant};

/// What `make programs` fetched.
const VARLINKCTL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/programs/bin/varlinkctl");

/// Methods that act on the session of the connection that they are called on: varlinkctl takes a connection
/// for each call and keeps none.
const OF_A_SESSION: [&str; 12] = [
    "CloseSession",
    "Subscribe",
    "Unsubscribe",
    "ListSubscriptions",
    "Mute",
    "Unmute",
    "ListMutes",
    "InvertMutes",
    "GetStatistics",
    "InstallRules",
    "ReplaceCollection",
    "DropCollection",
];

fn varlinkctl<A: AsRef<OsStr>>(arguments: &[A]) -> Output {
    let output = Command::new(VARLINKCTL).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{VARLINKCTL}: {error}; `make programs` fetches it"))
}

/// What it prints; it says nothing else.
fn printed(arguments: &[&OsStr]) -> String {
    let output = varlinkctl(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn call(socket: &Path, method: &str, parameters: &Value) -> Output {
    let method = format!("{}.{method}", INTERFACE.name);
    let parameters = parameters.to_string();
    varlinkctl(&[OsStr::new("call"), socket.as_os_str(), method.as_ref(), parameters.as_ref()])
}

#[test]
#[ignore = "programs: fetched by make programs"]
fn varlinkctl_shows_the_whole_interface_with_its_comments() {
    let daemon = Daemon::start(&[]);
    let socket = daemon.socket.as_os_str();
    let info = printed(&["info".as_ref(), socket]);
    assert!(info.contains(INTERFACE.name) && info.contains("ringfenced"), "{info}");

    let shown = printed(&["introspect".as_ref(), socket, INTERFACE.name.as_ref()]);
    let (seen, written) = (Interface::parse(&shown), Interface::parse(INTERFACE.description));
    assert_eq!(seen.methods, written.methods);
    assert_eq!(seen.types, written.types);
    assert_eq!(seen.errors, written.errors);
    // It parses the text and prints what it understood, types of values before types with fields.
    let comments = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix('#'));
        lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    let (shown, written) = (comments(&shown), comments(INTERFACE.description));
    assert_eq!(shown.symmetric_difference(&written).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
#[ignore = "programs: fetched by make programs"]
fn varlinkctl_calls_each_method_that_needs_no_session() {
    let ruling = grant(CLIENT, 1000).replace("\"notify\", \"ask\"", "\"notify\", \"rule\"");
    let daemon = Daemon::start_on_fake(&ruling);
    let interface = Interface::parse(INTERFACE.description);
    // A client that has something to be asked about.
    let mut client = daemon.session();
    let rule = "[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"notify\"\n";
    client.ok("InstallRules", json!({ "rules": rule }));
    let executable = fs::canonicalize("/bin/true").unwrap();
    let metadata = fs::metadata(&executable).unwrap();
    let device = metadata.dev();
    let file = json!({
        "device": (u64::from(major(device)) << 20) | u64::from(minor(device)),
        "inode": metadata.ino(),
    });
    let pid = std::process::id();
    let process = client.ok("QueryProcess", json!({ "pid": pid }));
    let start = &process["process"]["key"]["start"];
    let address = INTERFACE.description.as_ptr() as u64;
    let cgroup = fs::metadata("/sys/fs/cgroup").map_or(1, |root| root.ino());
    let calls = [
        ("GetVersion", json!({})),
        ("GetCoverage", json!({})),
        ("GetClients", json!({})),
        ("GetStatus", json!({})),
        ("GetRules", json!({})),
        ("GetRuleText", json!({ "client": CLIENT })),
        ("QueryProcess", json!({ "pid": std::process::id() })),
        ("ResolveCgroup", json!({ "cgroup": cgroup })),
        ("MeasureFile", json!({ "path": executable, "file": file })),
        ("GetMemoryMap", json!({ "pid": pid, "start": start })),
        ("ReadMemory", json!({ "pid": pid, "start": start, "address": address, "length": 8 })),
    ];
    for (method, parameters) in &calls {
        let output = call(&daemon.socket, method, parameters);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{method}: {errors}");
        let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
        interface.check(&reply, &interface.methods[*method].1, method);
    }
    for method in OF_A_SESSION {
        let output = call(&daemon.socket, method, &json!({}));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("NoSession"), "{method}: {errors}");
    }
    // All but the one whose reply brings descriptors.
    assert_eq!(calls.len() + OF_A_SESSION.len() + 1, interface.methods.len());
}

#[test]
#[ignore = "programs: fetched by make programs"]
fn errors_reach_varlinkctl_with_their_names_and_parameters() {
    let daemon = Daemon::start(&[]);
    for (method, parameters, error, text) in [
        ("QueryProcess", json!({ "pid": 0 }), "ProcessNotFound", "pid"),
        ("GetVersion", json!({ "more": 1 }), "InvalidParameter", "more"),
        ("OpenSession", json!({ "client": "nobody", "versions": [] }), "NoGrant", "nobody"),
        ("Nothing", json!({}), "MethodNotFound", "Nothing"),
    ] {
        let output = call(&daemon.socket, method, &parameters);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(error), "{method}: {errors}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(text), "{method}: {said}");
    }
}
