// SPDX-License-Identifier: Apache-2.0
//! A session with a daemon that the test is.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use sdk::abi::{self, CLASS_ASK, Class, Event, EventType, ProcessExec, RecordBuilder};
use sdk::{
    EventClasses, FileKey, Mute, Refusal, RefusedBecause, Session, SessionError, SessionOptions,
    Subscription, Verdict,
};
use serde_json::{Value, json};
use support::FakeDaemon;
use zerocopy::{FromBytes, IntoBytes};

const SOON: Option<Duration> = Some(Duration::from_secs(20));

fn exec(path: &[u8], event_id: u64, lost: u64) -> Vec<u8> {
    let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
    builder.header.event_id = event_id;
    builder.header.classes = CLASS_ASK;
    builder.header.lost = lost;
    builder.part.file.path = builder.path(path);
    builder.finish().as_bytes().to_vec()
}

/// A session that is open, and the daemon's side of it.
fn open() -> (Session, FakeDaemon) {
    let (mut daemon, client) = FakeDaemon::new();
    let daemon = std::thread::spawn(move || {
        daemon.accept();
        daemon
    });
    let session = SessionOptions::new("product").open_over(client).unwrap();
    (session, daemon.join().unwrap())
}

/// Has the daemon answer one call; gives the call.
fn answering(
    mut daemon: FakeDaemon,
    answer: impl FnOnce(&FakeDaemon) + Send + 'static,
) -> JoinHandle<(Value, FakeDaemon)> {
    std::thread::spawn(move || {
        let call = daemon.call();
        answer(&daemon);
        (call, daemon)
    })
}

#[test]
fn a_session_brings_its_ring_its_limits_and_what_it_may_have() {
    let (mut daemon, client) = FakeDaemon::new();
    let daemon = std::thread::spawn(move || daemon.accept());
    let session = SessionOptions::new("product").open_over(client).unwrap();
    let opened = session.opened();
    assert_eq!(opened.limits.ring_bytes, 65_536);
    // What has no name here is left out.
    let both = [Class::Notify, Class::Ask];
    assert_eq!(opened.grant, [EventClasses::new(EventType::ProcessExec, both)]);
    assert_eq!(opened.deadlines[0].nanoseconds, 500_000_000);
    assert!(session.verdicts().is_some());
    let call = daemon.join().unwrap();
    assert_eq!(
        call["parameters"],
        json!({ "client": "product", "versions": [{ "major": 1, "minor": 0 }] })
    );
}

#[test]
fn an_event_is_asked_answered_and_a_late_answer_is_told_back() {
    let (mut session, mut daemon) = open();
    daemon.ring.write(&exec(b"/usr/bin/true", 77, 0));
    let mut events = session.events();
    let event = events.next(SOON).unwrap().unwrap();
    assert!(event.record.is_ask());
    let Event::ProcessExec(exec) = event.record.event() else { panic!("{event:?}") };
    assert_eq!(exec.path(), b"/usr/bin/true");
    event.answer(Verdict::deny(1).cacheable()).unwrap();

    let mut message = [0; 64];
    let (length, _) = recv(&daemon.verdicts, &mut message[..], RecvFlags::empty()).unwrap();
    let verdict = abi::Verdict::read_from_bytes(&message[..length]).unwrap();
    let expected = abi::Verdict {
        event_id: 77,
        verdict: abi::VERDICT_DENY,
        error: 1,
        flags: abi::VERDICT_FLAG_CACHEABLE,
        reserved: 0,
    };
    assert_eq!(verdict, expected);

    let verdicts = session.verdicts().unwrap();
    assert_eq!(verdicts.refused().unwrap(), None);
    let late = abi::VerdictRefused { event_id: 77, status: abi::REFUSED_TOO_LATE, reserved: 0 };
    send(&daemon.verdicts, late.as_bytes(), SendFlags::empty()).unwrap();
    let refused = verdicts.refused().unwrap().unwrap();
    assert_eq!((refused.event_id, refused.because), (77, RefusedBecause::TooLate));

    drop(daemon);
    assert!(matches!(session.verdict(78, Verdict::allow()), Err(SessionError::Ended)));
}

#[test]
fn calls_say_what_the_interface_says() {
    let (mut session, daemon) = open();
    let nothing = |daemon: &FakeDaemon| daemon.reply(&json!({}));

    let asked = answering(daemon, nothing);
    session
        .subscribe(&[
            Subscription::new(EventType::ProcessExec, [Class::Notify, Class::Ask]),
            Subscription {
                deadline: Some(Duration::from_millis(5)),
                ..Subscription::new(EventType::ImageMap, [Class::Ask])
            },
        ])
        .unwrap();
    let (call, daemon) = asked.join().unwrap();
    assert_eq!(
        call,
        json!({
            "method": "io.ringfence.Control.Subscribe",
            "parameters": {
                "subscriptions": [
                    { "event": "process_exec", "classes": ["notify", "ask"] },
                    { "event": "image_map", "classes": ["ask"], "deadline": 5_000_000 }
                ]
            }
        })
    );

    let asked = answering(daemon, nothing);
    let mutes = [
        Mute::PathPrefix("/usr/lib/".to_owned()),
        Mute::Executable(FileKey { device: 5, inode: 6 }),
        Mute::Cgroup(7),
    ];
    session.mute(&mutes).unwrap();
    let (call, daemon) = asked.join().unwrap();
    assert_eq!(
        call["parameters"],
        json!({ "mutes": [
            { "path_prefix": "/usr/lib/" },
            { "executable": { "device": 5, "inode": 6 } },
            { "cgroup": 7 }
        ]})
    );

    let asked = answering(daemon, nothing);
    session.invert_mutes(true).unwrap();
    let (call, daemon) = asked.join().unwrap();
    assert_eq!(call["parameters"], json!({ "inverted": true }));

    let asked = answering(daemon, |daemon| {
        daemon.reply(&json!({ "counts": { "written": 5, "lost": 2, "new": 1 } }));
    });
    let counts = session.statistics().unwrap();
    assert_eq!((counts.written, counts.lost), (5, 2));
    let (_, daemon) = asked.join().unwrap();

    let asked = answering(daemon, |daemon| {
        daemon.reply(&json!({ "process": {
            "key": { "pid": 7, "start": 70 }, "parent": { "pid": 1, "start": 1 }, "name": "sh",
            "executable": { "path": "/bin/sh", "exact": true, "file": { "device": 5, "inode": 6 } },
            "uid": 1, "euid": 2, "suid": 3, "fsuid": 4, "gid": 5, "egid": 6, "sgid": 7, "fsgid": 8,
            "threads": 1, "cgroup": "/a",
            "namespaces": { "user": 1, "pid": 2, "mount": 3, "net": 4, "cgroup": 5 }
        }}));
    });
    let process = session.query_process(7, Some(70)).unwrap();
    assert_eq!((process.parent.pid, process.euid), (1, 2));
    assert_eq!(process.executable.map(|file| file.path).as_deref(), Some("/bin/sh"));
    let (call, daemon) = asked.join().unwrap();
    assert_eq!(call["parameters"], json!({ "pid": 7, "start": 70 }));

    let asked = answering(daemon, nothing);
    session.close().unwrap();
    assert_eq!(asked.join().unwrap().0["method"], "io.ringfence.Control.CloseSession");
}

#[test]
fn what_the_daemon_refuses_is_an_error_to_match_on() {
    let (mut session, daemon) = open();
    let asked = answering(daemon, |daemon| {
        let parameters = json!({ "event": "image_map", "class": "ask", "reason": "not in it" });
        daemon.error("io.ringfence.Control.NotGranted", &parameters);
    });
    let wanted = [Subscription::new(EventType::ImageMap, [Class::Ask])];
    let error = session.subscribe(&wanted).unwrap_err();
    assert!(matches!(error, SessionError::Refused(Refusal::NotGranted { .. })));
    assert_eq!(error.to_string(), "the grant does not give image_map with class ask: not in it");
    asked.join().unwrap();
}

#[test]
fn a_daemon_that_ends_leaves_what_it_had_written() {
    let (mut session, mut daemon) = open();
    daemon.ring.write(&exec(b"/bin/a", 1, 0));
    daemon.ring.write(&exec(b"/bin/b", 2, 3));
    drop(daemon);
    let mut events = session.events();
    assert_eq!(events.next(None).unwrap().unwrap().sequence, 0);
    let second = events.next(None).unwrap().unwrap();
    assert_eq!((second.sequence, second.missed), (4, 3));
    assert!(matches!(events.next(None), Err(SessionError::Ended)));
    assert!(matches!(session.version(), Err(SessionError::Ended)));
}

#[test]
fn a_session_whose_connection_broke_goes_on_with_its_ring_and_its_numbers() {
    let (mut session, mut daemon) = open();
    daemon.ring.write(&exec(b"/bin/a", 1, 0));
    assert_eq!(session.events().next(None).unwrap().unwrap().sequence, 0);
    let control = daemon.control.try_clone().unwrap();
    control.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(session.events().next(None), Err(SessionError::Ended)));
    daemon.ring.write(&exec(b"/bin/b", 2, 4));

    let (mut again, client) = FakeDaemon::new();
    let resumed = std::thread::spawn(move || {
        let call = again.call();
        let bytes = opened_but(|opened| opened["resumed"] = json!(true));
        again.open(&bytes);
        (call, again)
    });
    session.reconnect_over(client).unwrap();
    let (call, again) = resumed.join().unwrap();
    assert_eq!(call["parameters"]["resume"], "00112233445566778899aabbccddeeff");
    let event = session.events().next(SOON).unwrap().map(|event| (event.sequence, event.missed));
    assert_eq!(event, Some((5, 4)));
    session.verdict(2, Verdict::allow()).unwrap();
    let mut message = [0; 64];
    let (length, _) = recv(&again.verdicts, &mut message[..], RecvFlags::empty()).unwrap();
    assert_eq!(length, 24);
}

#[test]
fn waiting_for_an_event_ends_in_time_and_is_not_ended_by_a_discarded_entry() {
    let (mut session, mut daemon) = open();
    let began = Instant::now();
    assert!(session.events().next(Some(Duration::from_millis(20))).unwrap().is_none());
    assert!(began.elapsed() >= Duration::from_millis(20));
    let reserved = daemon.ring.reserve(64).unwrap();
    daemon.ring.discard(reserved);
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        daemon.ring.write(&exec(b"/bin/a", 1, 0));
        daemon
    });
    assert!(session.events().next(None).unwrap().is_some());
    writer.join().unwrap();
}

#[test]
fn a_reply_in_single_bytes_is_put_together() {
    let (mut daemon, client) = FakeDaemon::new();
    let daemon = std::thread::spawn(move || {
        daemon.call();
        let mut bytes = serde_json::to_vec(&json!({ "parameters": FakeDaemon::opened() })).unwrap();
        bytes.push(0);
        daemon.open(&bytes[..1]);
        for byte in &bytes[1..] {
            daemon.send(&[*byte], &[]);
        }
        daemon
    });
    SessionOptions::new("product").open_over(client).unwrap();
    daemon.join().unwrap();
}

#[test]
fn nobody_there_is_said_with_the_place() {
    let missing = Path::new("/nonexistent/control");
    let error = SessionOptions::new("product").socket(missing).open().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot connect to Ringfence at /nonexistent/control: is ringfenced running?"
    );
}

/// Opens a session with a daemon whose reply is these bytes; true if the descriptors come too.
fn opened_with(reply: Vec<u8>, descriptors: bool) -> Result<Session, SessionError> {
    let (mut daemon, client): (_, OwnedFd) = FakeDaemon::new();
    let daemon = std::thread::spawn(move || {
        daemon.call();
        if descriptors {
            daemon.open(&reply);
        } else if !reply.is_empty() {
            daemon.send(&reply, &[]);
        }
    });
    let session = SessionOptions::new("product").open_over(client);
    daemon.join().unwrap();
    session
}

fn opened_but(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut parameters = FakeDaemon::opened();
    change(&mut parameters);
    let mut bytes = serde_json::to_vec(&json!({ "parameters": parameters })).unwrap();
    bytes.push(0);
    bytes
}

#[test]
fn replies_that_make_no_sense_are_errors_that_say_what_is_wrong() {
    let text = |reply, descriptors| opened_with(reply, descriptors).unwrap_err().to_string();
    assert_eq!(
        text(opened_but(|_| {}), false),
        "Ringfence's answer to OpenSession makes no sense: no descriptor 0 of 0 came with it"
    );
    let twice = text(opened_but(|opened| opened["verdicts"] = json!(0)), true);
    assert!(twice.ends_with("no descriptor 0 of 2 came with it"), "{twice}");
    let version = text(opened_but(|opened| opened["version"]["major"] = json!(7)), true);
    assert!(version.contains("it took version 7.0"), "{version}");
    // The verdicts' socket in place of the ring.
    let swapped = text(
        opened_but(|opened| (opened["ring"], opened["verdicts"]) = (json!(1), Value::Null)),
        true,
    );
    assert!(swapped.contains("not that of a ring"), "{swapped}");
    assert!(text(b"{}\0".to_vec(), false).contains("not as expected"));
    assert!(text(b"ringfence\0".to_vec(), false).contains("not what varlink has"));
    assert!(matches!(opened_with(Vec::new(), false), Err(SessionError::Ended)));
    assert!(matches!(opened_with(b"{\"param".to_vec(), true), Err(SessionError::Ended)));
}

#[test]
fn an_endless_reply_ends_the_session_instead_of_its_memory() {
    let (mut session, mut daemon) = open();
    let endless = std::thread::spawn(move || {
        daemon.call();
        use std::io::Write;
        while daemon.control.write_all(&[b' '; 64 << 10]).is_ok() {}
    });
    let error = session.version().unwrap_err();
    assert!(error.to_string().contains("longer than 16777216 bytes"), "{error}");
    endless.join().unwrap();
    assert!(matches!(session.version(), Err(SessionError::Ended)));
    assert!(matches!(session.events().next(None), Err(SessionError::Ended)));
}

proptest! {
    #[test]
    fn no_reply_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), descriptors: bool) {
        let bytes = if bytes.is_empty() { vec![0] } else { bytes };
        prop_assert!(opened_with(bytes, descriptors).is_err());
    }
}
