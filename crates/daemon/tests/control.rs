// SPDX-License-Identifier: Apache-2.0
//! The control interface over a real socket: who gets what, and what the interface's text promises.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::BTreeSet;

use broker::event::{Class, EventType};
use broker::slot::Slot;
use daemon::control::{Control, INTERFACE};
use daemon::kernel::{Counts, FakeKernel, MuteTarget};
use serde_json::{Value, json};
use sha2::Digest;
use support::idl::{Interface, Type};
use support::{CLIENT, Daemon, Shared, grant};

fn slot() -> Slot {
    Slot::new(0).unwrap()
}

/// What the last client whose ring was taken away was told before, by the one record in it.
fn why_shut(kernel: &FakeKernel) -> u32 {
    let Some([record]) = kernel.removed.as_ref().map(|slot| &slot.records[..]) else {
        panic!("one record")
    };
    let record = abi::RecordBuffer::copy_of(record);
    let record = record.record().unwrap();
    let abi::Event::ShuttingDown(view) = record.event() else { panic!("another record") };
    view.part().why
}

fn subscription(event: &str, classes: &[&str]) -> Value {
    json!({ "event": event, "classes": classes })
}

#[test]
fn every_declared_method_is_dispatched_and_every_dispatched_method_is_declared() {
    let interface = Interface::parse(INTERFACE.description);
    assert_eq!(interface.name, INTERFACE.name);
    let declared: BTreeSet<&str> = interface.methods.keys().map(String::as_str).collect();
    let dispatched: BTreeSet<&str> =
        Control::<FakeKernel>::methods().into_iter().map(|(name, _)| name).collect();
    assert_eq!(declared, dispatched);
}

#[test]
fn the_interface_and_the_lifecycle_have_the_same_events() {
    let interface = Interface::parse(INTERFACE.description);
    let Type::Enumeration(events) = &interface.types["Event"] else { panic!("no enumeration") };
    let lifecycle = daemon::lifecycle::Lifecycle::built_in().unwrap();
    let known: Vec<_> = lifecycle.entries().iter().map(|entry| entry.event.name()).collect();
    assert_eq!(*events, known);
}

#[test]
fn the_interface_is_served_word_for_word() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    client.send(&json!({ "method": "org.varlink.service.GetInfo" }));
    let info = client.receive().unwrap();
    let interfaces = json!(["org.varlink.service", "io.ringfence.Control"]);
    assert_eq!(info["parameters"]["interfaces"], interfaces);
    let describe = |name: &str| {
        json!({
            "method": "org.varlink.service.GetInterfaceDescription",
            "parameters": { "interface": name },
        })
    };
    client.send(&describe("io.ringfence.Control"));
    let text = client.receive().unwrap();
    let file = include_str!("../../../api/ringfence.varlink");
    assert!(text["parameters"]["description"] == file, "the text is another");
    client.send(&describe("org.varlink.service"));
    let text = client.receive().unwrap();
    let service = Interface::parse(text["parameters"]["description"].as_str().unwrap());
    assert_eq!(service.methods.len(), 2);
    client.send(&describe("io.example"));
    let error = client.receive().unwrap();
    assert_eq!(error["error"], "org.varlink.service.InterfaceNotFound");
}

#[test]
fn what_is_no_method_is_named() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    for (method, error) in [
        ("io.ringfence.Control.Nothing", "org.varlink.service.MethodNotFound"),
        ("io.example.GetVersion", "org.varlink.service.InterfaceNotFound"),
        ("nothing", "org.varlink.service.InterfaceNotFound"),
        ("org.varlink.service.Nothing", "org.varlink.service.MethodNotFound"),
    ] {
        client.send(&json!({ "method": method }));
        assert_eq!(client.receive().unwrap()["error"], error, "{method}");
    }
}

#[test]
fn everybody_is_told_version_coverage_and_status() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    let version = client.ok("GetVersion", json!({}));
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(version["boot_id"], boot_id.trim());
    let coverage = client.ok("GetCoverage", json!({}));
    let exec = &coverage["coverage"][0];
    assert_eq!((&exec["event"], &exec["number"]), (&json!("process_exec"), &json!(1)));
    assert_eq!(exec["ask"]["state"], "available");
    assert_eq!(coverage["coverage"][1]["ask"]["state"], "undefined");
    let status = client.ok("GetStatus", json!({}));
    assert_eq!((&status["grants"], &status["sessions"]), (&json!(1), &json!(0)));
    assert_eq!(status["connections"], 1);
}

#[test]
fn a_session_brings_a_ring_a_socket_for_verdicts_and_what_the_grant_gives() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    let versions = json!([{ "major": 1, "minor": 0 }, { "major": 9, "minor": 9 }]);
    let wanted = json!({ "client": CLIENT, "versions": versions, "ring_bytes": 200_000 });
    let reply = client.ok("OpenSession", wanted);
    assert_eq!(reply["version"], json!({ "major": 1, "minor": 0 }));
    assert_eq!((&reply["ring"], &reply["verdicts"]), (&json!(0), &json!(1)));
    assert_eq!(client.descriptors.len(), 2);
    assert_eq!(reply["limits"]["ring_bytes"], 262_144);
    assert_eq!(reply["resumed"], false);
    let exec = &reply["grant"][0];
    assert_eq!(exec["event"], "process_exec");
    let deadlines = json!([{ "event": "process_exec", "nanoseconds": 1_000_000_000_u64 }]);
    assert_eq!(reply["deadlines"], deadlines);
    assert_eq!(daemon.kernel.get().slots[&slot()].ring_bytes, 262_144);
    assert_eq!(
        client.fails("OpenSession", json!({ "client": CLIENT, "versions": [] })).0,
        "SessionOpen"
    );
    client.ok("CloseSession", json!({}));
    assert!(daemon.kernel.get().slots.is_empty());
    assert_eq!(client.fails("CloseSession", json!({})).0, "NoSession");
    // And once more on the same connection.
    assert!(client.open(CLIENT).get("error").is_none());
}

#[test]
fn a_deadline_beyond_the_longest_is_said_to_be_the_longest() {
    let text = grant("org.example.patient", 7)
        .replace(", \"ask\"]\n", ", \"ask\"]\ndeadline_ms = 60000\n");
    let daemon = Daemon::start(&[("patient.toml", &text)]);
    let mut client = daemon.connect();
    let reply = client.open("org.example.patient");
    let deadlines = json!([{ "event": "process_exec", "nanoseconds": 10_000_000_000_u64 }]);
    assert_eq!(reply["parameters"]["deadlines"], deadlines);
}

#[test]
fn without_ask_there_is_no_socket_for_verdicts() {
    let text = grant("org.example.quiet", 7).replace(", \"ask\"", "");
    let daemon = Daemon::start(&[("quiet.toml", &text)]);
    let mut client = daemon.connect();
    let reply = client.open("org.example.quiet");
    assert_eq!(reply["parameters"]["verdicts"], Value::Null);
    assert_eq!(client.descriptors.len(), 1);
}

#[test]
fn who_is_not_what_the_grant_says_gets_no_session() {
    let other_file = grant("org.example.file", 7).replace("executable = \"/", "executable = \"/x");
    let other_user = grant("org.example.user", 8).replace("uid = ", "uid = 1");
    let other_bytes = grant("org.example.bytes", 9)
        .replace("uid = ", &format!("sha256 = [\"{}\"]\nuid = ", "0".repeat(64)));
    let narrow = format!("{}[scope]\nsee = \"descendants\"\n", grant("org.example.narrow", 10));
    let daemon = Daemon::start(&[
        ("file.toml", &other_file),
        ("user.toml", &other_user),
        ("bytes.toml", &other_bytes),
        ("narrow.toml", &narrow),
    ]);
    let mut client = daemon.connect();
    let version = json!([{ "major": 1, "minor": 0 }]);
    let wants = |client: &str| json!({ "client": client, "versions": version });
    for (name, reason) in [
        ("org.example.file", "is for the executable"),
        ("org.example.user", "this process runs as uid"),
        ("org.example.bytes", "the grant does not list"),
    ] {
        let (error, parameters) = client.fails("OpenSession", wants(name));
        assert_eq!(error, "IdentityRefused", "{parameters}");
        assert!(parameters["reason"].as_str().unwrap().contains(reason), "{parameters}");
    }
    assert_eq!(client.fails("OpenSession", wants("org.example.narrow")).0, "ScopeUnavailable");
    let (error, parameters) = client.fails("OpenSession", wants("org.example.nobody"));
    assert_eq!(error, "NoGrant");
    assert_eq!(parameters["directory"], daemon.grants.display().to_string());
    let old = json!({ "client": CLIENT, "versions": [{ "major": 0, "minor": 1 }] });
    let (error, parameters) = client.fails("OpenSession", old);
    assert_eq!((error.as_str(), &parameters["supported"]), ("VersionUnsupported", &version));
    assert!(daemon.kernel.get().slots.is_empty());
    assert!(client.descriptors.is_empty());
}

#[test]
fn the_digest_of_the_grant_is_that_of_the_executable() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let digest: String =
        sha2::Sha256::digest(own).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = grant("org.example.bytes", 9)
        .replace("uid = ", &format!("sha256 = [\"{digest}\"]\nuid = "));
    let daemon = Daemon::start(&[("bytes.toml", &text)]);
    assert!(daemon.connect().open("org.example.bytes").get("error").is_none());
}

#[test]
fn a_client_has_one_session_and_another_client_one_of_its_own() {
    let daemon = Daemon::start(&[("other.toml", &grant("org.example.other", 7))]);
    let _first = daemon.session();
    let mut second = daemon.connect();
    let wanted = json!({ "client": CLIENT, "versions": [{ "major": 1, "minor": 0 }] });
    let (error, parameters) = second.fails("OpenSession", wanted);
    assert_eq!(error, "AlreadyConnected");
    assert_eq!(parameters["pid"], std::process::id());
    assert!(second.open("org.example.other").get("error").is_none());
    assert_eq!(daemon.kernel.get().slots.len(), 2);
}

#[test]
fn what_a_grant_watches_holds_for_who_is_told_of_files_and_for_who_is_asked() {
    const WATCHER: &str = "org.example.watcher";
    let grant = format!(
        "draft = true\nwatched = [\"/etc\"]\n{}[events.file_modify]\nclasses = [\"notify\"]\n",
        support::grant(WATCHER, 2000)
    );
    let grant = grant.replace(
        "[events.file_open]\nclasses = [\"notify\"]",
        "[events.file_open]\nclasses = [\"notify\", \"ask\"]",
    );
    let daemon = Daemon::start(&[("watcher.toml", &grant)]);
    let mut client = daemon.connect();
    let reply = client.open(WATCHER);
    assert!(reply.get("error").is_none(), "{reply}");
    let watched = || {
        let kernel = daemon.kernel.get();
        let watching = kernel.slots.values().find(|slot| !slot.watched.is_empty());
        watching.map(|slot| (slot.watched.clone(), slot.watches_to_decide))
    };
    let change = |client: &mut support::Client, method: &str, event: &str, class: &str| {
        client.ok(method, json!({ "subscriptions": [subscription(event, &[class])] }));
    };
    change(&mut client, "Subscribe", "process_exec", "notify");
    assert_eq!(watched(), None);
    let etc = || vec!["/etc".to_owned()];
    for event in ["file_modify", "file_open"] {
        change(&mut client, "Subscribe", event, "notify");
        assert_eq!(watched(), Some((etc(), false)), "{event}");
        change(&mut client, "Unsubscribe", event, "notify");
        assert_eq!(watched(), None, "{event}");
    }
    change(&mut client, "Subscribe", "file_open", "ask");
    assert_eq!(watched(), Some((etc(), true)));
}

#[test]
fn a_session_has_what_it_subscribes_to_and_nothing_without_a_grant() {
    let kernel = Shared::default();
    let fork = EventType::from_name("process_fork").unwrap();
    kernel.get().unavailable.insert((fork, Class::Notify), "no tracepoint".into());
    let daemon = Daemon::start_with(kernel, &[]);
    let mut client = daemon.session();
    let wants = |events: &[Value]| json!({ "subscriptions": events });
    let exec = subscription("process_exec", &["notify"]);
    client.ok("Subscribe", wants(std::slice::from_ref(&exec)));
    assert_eq!(daemon.kernel.get().slots[&slot()].masks.notify.0, 1 << 1);

    let (error, parameters) =
        client.fails("Subscribe", wants(&[exec.clone(), subscription("image_map", &["notify"])]));
    assert_eq!((error.as_str(), &parameters["event"]), ("NotGranted", &json!("image_map")));
    let (error, parameters) =
        client.fails("Subscribe", wants(&[subscription("process_fork", &["notify"])]));
    assert_eq!(
        (error.as_str(), &parameters["reason"]),
        ("EventUnavailable", &json!("no tracepoint"))
    );
    let draft = client.fails("Subscribe", wants(&[subscription("file_open", &["notify"])]));
    assert_eq!(draft.0, "NotGranted");
    assert!(draft.1["reason"].as_str().unwrap().contains("draft"), "{}", draft.1);
    for wrong in [
        subscription("nothing", &["notify"]),
        subscription("process_exec", &["nothing"]),
        subscription("shutting_down", &["notify"]),
        json!({ "event": "process_exec", "classes": ["ask"], "deadline": 1 }),
    ] {
        assert_eq!(client.fails("Subscribe", wants(&[wrong])).0, "InvalidArgument");
    }
    let list = client.ok("ListSubscriptions", json!({}));
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 1);
    client.ok("Subscribe", wants(&[subscription("process_exec", &["ask"])]));
    let masks = daemon.kernel.get().slots[&slot()].masks;
    assert_eq!((masks.notify.0, masks.ask.0), (1 << 1, 1 << 1));
    client.ok("Unsubscribe", wants(&[subscription("process_exec", &["ask"])]));
    let masks = daemon.kernel.get().slots[&slot()].masks;
    assert_eq!((masks.notify.0, masks.ask.0), (1 << 1, 0));
    let none = subscription("process_exit", &["notify"]);
    client.ok("Unsubscribe", wants(&[exec, none]));
    assert_eq!(daemon.kernel.get().slots[&slot()].masks.notify.0, 0);
    assert_eq!(client.ok("ListSubscriptions", json!({}))["subscriptions"], json!([]));
}

#[test]
fn without_a_session_nothing_of_one_can_be_called() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    for (method, parameters) in [
        ("Subscribe", json!({ "subscriptions": [] })),
        ("Unsubscribe", json!({ "events": [] })),
        ("ListSubscriptions", json!({})),
        ("Mute", json!({ "mutes": [] })),
        ("Unmute", json!({ "mutes": [] })),
        ("ListMutes", json!({})),
        ("InvertMutes", json!({ "inverted": true })),
        ("GetStatistics", json!({})),
        ("CloseSession", json!({})),
    ] {
        assert_eq!(client.fails(method, parameters).0, "NoSession", "{method}");
    }
}

#[test]
fn mutes_are_kept_within_the_limit_and_listed() {
    let text = format!("{}[limits]\nmax_muted = 3\n", grant("org.example.muter", 7));
    let daemon = Daemon::start(&[("muter.toml", &text)]);
    let mut client = daemon.connect();
    assert_eq!(client.open("org.example.muter")["parameters"]["limits"]["mutes"], 3);
    let all = json!({ "mutes": [
        { "process": { "pid": 7, "start": 9 } },
        { "executable": { "device": 1, "inode": 2 } },
        { "path_prefix": "/usr/lib/" },
    ]});
    client.ok("Mute", all.clone());
    client.ok("Mute", all.clone());
    let more = json!({ "mutes": [{ "cgroup": 5 }] });
    let (error, parameters) = client.fails("Mute", more.clone());
    assert_eq!((error.as_str(), &parameters["limit"]), ("LimitExceeded", &json!(3)));
    client.ok("Unmute", json!({ "mutes": [{ "path_prefix": "/usr/lib/" }, { "cgroup": 5 }] }));
    client.ok("Mute", more);
    client.ok("InvertMutes", json!({ "inverted": true }));
    let list = client.ok("ListMutes", json!({}));
    assert_eq!(list["inverted"], true);
    assert_eq!(list["mutes"].as_array().unwrap().len(), 3);
    let kernel = daemon.kernel.get();
    let held = &kernel.slots.values().next().unwrap();
    assert!(held.inverted && held.mutes.contains(&MuteTarget::Cgroup(5)));
    drop(kernel);
    for wrong in
        [json!({}), json!({ "cgroup": 1, "path_prefix": "/" }), json!({ "path_prefix": "usr" })]
    {
        assert_eq!(client.fails("Mute", json!({ "mutes": [wrong] })).0, "InvalidArgument");
    }
    let long = json!({ "mutes": [{ "path_prefix": "/".repeat(300) }] });
    assert_eq!(client.fails("Mute", long).0, "LimitExceeded");
    let unknown = client.fails("Mute", json!({ "mutes": [{ "inode": 1 }] }));
    assert_eq!(unknown, ("InvalidParameter".into(), json!({ "parameter": "inode" })));
}

#[test]
fn a_mute_that_the_kernel_refuses_leaves_nothing_behind() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    daemon.kernel.get().failing.insert("mute");
    let (error, _) = client.fails("Mute", json!({ "mutes": [{ "cgroup": 5 }, { "cgroup": 6 }] }));
    assert_eq!(error, "KernelRefused");
    assert_eq!(client.ok("ListMutes", json!({}))["mutes"], json!([]));
}

#[test]
fn a_ring_that_cannot_be_had_leaves_no_half_session() {
    let daemon = Daemon::start(&[]);
    daemon.kernel.get().failing.insert("admit");
    let mut client = daemon.connect();
    assert_eq!(client.open(CLIENT)["error"], "io.ringfence.Control.KernelRefused");
    daemon.kernel.get().failing.clear();
    assert!(client.open(CLIENT).get("error").is_none());
}

#[test]
fn a_broken_connection_is_taken_up_again_with_the_token() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    let token = client.open(CLIENT)["parameters"]["token"].clone();
    client.ok("Subscribe", json!({ "subscriptions": [subscription("process_exec", &["notify"])] }));
    client.ok("Mute", json!({ "mutes": [{ "cgroup": 5 }] }));
    drop(client);
    let mut client = daemon.connect();
    let wants = |token: &Value| json!({ "client": CLIENT, "versions": [{ "major": 1, "minor": 0 }], "resume": token });
    let wrong = json!("0".repeat(32));
    assert_eq!(client.fails("OpenSession", wants(&wrong)).0, "NothingToResume");
    assert_eq!(client.fails("OpenSession", wants(&json!("é".repeat(16)))).0, "InvalidArgument");
    let reply = client.ok("OpenSession", wants(&token));
    assert_eq!(reply["resumed"], true);
    assert_ne!(reply["token"], token);
    assert_eq!(client.descriptors.len(), 2);
    assert_eq!(client.ok("ListMutes", json!({}))["mutes"], json!([{ "cgroup": 5 }]));
    let list = client.ok("ListSubscriptions", json!({}));
    assert_eq!(list["subscriptions"][0]["event"], "process_exec");
}

#[test]
fn who_opens_anew_gets_a_new_ring_and_the_session_that_waited_ends() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    client.ok("Mute", json!({ "mutes": [{ "cgroup": 5 }] }));
    drop(client);
    let mut client = daemon.connect();
    let reply = loop {
        let reply = client.open(CLIENT);
        if reply.get("error").is_none() {
            break reply;
        }
        assert_eq!(reply["error"], "io.ringfence.Control.AlreadyConnected");
    };
    assert_eq!(reply["parameters"]["resumed"], false);
    assert_eq!(client.ok("ListMutes", json!({}))["mutes"], json!([]));
    assert!(daemon.kernel.get().slots[&slot()].mutes.is_empty());
}

#[test]
fn a_client_sees_its_own_counts_and_root_sees_all_clients() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    client.ok("Subscribe", json!({ "subscriptions": [subscription("process_exec", &["notify"])] }));
    let counts = Counts { written: 5, lost: 2 };
    daemon.kernel.get().slots.get_mut(&slot()).unwrap().counts = counts;
    let statistics = client.ok("GetStatistics", json!({}));
    assert_eq!(statistics["counts"], json!({ "written": 5, "lost": 2 }));
    if rustix::process::geteuid().is_root() {
        let clients = client.ok("GetClients", json!({}));
        let only = &clients["clients"][0];
        assert_eq!((&only["client"], &only["altitude"]), (&json!(CLIENT), &json!("1000")));
        assert_eq!(only["counts"]["lost"], 2);
        assert_eq!(only["connected"], true);
        let classes = json!([{ "event": "process_exec", "classes": ["notify"] }]);
        assert_eq!(only["subscriptions"], classes);
    } else {
        assert_eq!(client.fails("GetClients", json!({})).0, "NotAdministrator");
    }
}

#[test]
fn memory_is_given_of_the_process_of_a_key_to_who_is_granted_it_and_to_root() {
    const SCANNER: &str = "org.example.scanner";
    let granted = |uses: &str| format!("memory = [{uses}]\n{}", grant(SCANNER, 2000));
    let scanner = granted("\"read\"");
    let daemon = Daemon::start(&[("scanner.toml", &scanner)]);
    let there = b"what is in memory".to_vec();
    let (pid, address) = (std::process::id(), there.as_ptr() as u64);
    let read = |start: u64, address: u64, length: usize| json!({ "pid": pid, "start": start, "address": address, "length": length });
    let mut client = daemon.session();
    let process = client.ok("QueryProcess", json!({ "pid": pid }));
    let start = process["process"]["key"]["start"].as_u64().unwrap();
    let map = json!({ "pid": pid, "start": start });
    assert_eq!(client.fails("ReadMemory", read(start, address, 4)).0, "MemoryNotGranted");
    assert_eq!(client.fails("GetMemoryMap", map.clone()).1, json!({ "what": "map" }));

    let mut scanner = daemon.connect();
    assert!(scanner.open(SCANNER).get("error").is_none());
    let reply = scanner.ok("ReadMemory", read(start, address, there.len()));
    // "what is in memory", in base64.
    assert_eq!(reply, json!({ "data": "d2hhdCBpcyBpbiBtZW1vcnk=" }));
    assert_eq!(scanner.fails("GetMemoryMap", map.clone()).0, "MemoryNotGranted");
    let (error, about) = scanner.fails("ReadMemory", read(start, 16, 4));
    assert_eq!((error.as_str(), &about["address"]), ("MemoryUnavailable", &json!(16)));
    assert_eq!(scanner.fails("ReadMemory", read(start + 1, address, 4)).0, "ProcessNotFound");
    assert_eq!(scanner.fails("ReadMemory", read(start, address, 0)).0, "InvalidArgument");
    let (error, about) = scanner.fails("ReadMemory", read(start, address, (256 << 10) + 1));
    assert_eq!((error.as_str(), &about["limit"]), ("LimitExceeded", &json!(256 << 10)));

    // Whoever is root has it without a grant, and all of it.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut root = daemon.connect();
    let mut from = Value::Null;
    let mut mappings = Vec::new();
    loop {
        let part = root.ok("GetMemoryMap", json!({ "pid": pid, "start": start, "from": from }));
        mappings.extend(part["mappings"].as_array().unwrap().clone());
        from = part["next"].clone();
        if from.is_null() {
            break;
        }
    }
    let holds = |mapping: &&Value| {
        let number = |field: &str| mapping[field].as_u64().unwrap();
        (number("start")..number("end")).contains(&address)
    };
    let heap = mappings.iter().find(holds).unwrap();
    assert_eq!(
        (&heap["write"], &heap["execute"], &heap["file"]),
        (&true.into(), &false.into(), &Value::Null)
    );
    let own = std::env::current_exe().unwrap();
    assert!(mappings.iter().any(|mapping| mapping["name"] == own.to_str().unwrap()));
}

#[test]
fn who_loses_the_grant_loses_the_session_and_is_told() {
    let daemon = Daemon::start(&[("other.toml", &grant("org.example.other", 7))]);
    let mut other = daemon.connect();
    assert!(other.open("org.example.other").get("error").is_none());
    let mut client = daemon.session();
    std::fs::remove_file(daemon.grants.join("other.toml")).unwrap();
    daemon.signal(libc::SIGHUP);
    assert!(other.is_closed());
    assert_eq!(client.ok("GetStatus", json!({}))["grants"], 1);
    let kernel = daemon.kernel.get();
    assert_eq!(kernel.slots.len(), 1);
    assert_eq!(why_shut(&kernel), abi::SHUTDOWN_REVOKED);
}

#[test]
fn a_grant_with_an_error_is_a_problem_and_keeps_what_it_granted() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    std::fs::write(daemon.grants.join("test.toml"), "client = 5").unwrap();
    daemon.signal(libc::SIGHUP);
    let of_grants = |status: &Value| {
        let problems = status["problems"].as_array().into_iter().flatten();
        problems.filter(|problem| problem["area"] == "grants").count()
    };
    let status = loop {
        let status = client.ok("GetStatus", json!({}));
        if of_grants(&status) > 0 {
            break status;
        }
    };
    assert_eq!((&status["grants"], &status["sessions"]), (&json!(1), &json!(1)));
}

#[test]
fn who_is_connected_is_told_that_the_daemon_ends() {
    let mut daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    let kernel = daemon.kernel.clone();
    daemon.stop();
    assert!(client.is_closed());
    let kernel = kernel.get();
    assert!(kernel.slots.is_empty(), "rings are taken away");
    assert_eq!(why_shut(&kernel), abi::SHUTDOWN_STOPPED);
    assert!(
        !daemon.socket.exists() || std::os::unix::net::UnixStream::connect(&daemon.socket).is_err()
    );
}
