// SPDX-License-Identifier: Apache-2.0
//! Clients that do what no client does: it costs them their connection, and nobody else anything.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use daemon::connection::{MESSAGE, MESSAGE_BEFORE};
use daemon::server::{CONNECTIONS, CONNECTIONS_OF_USER};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use support::{CLIENT, Daemon};

/// A reply still comes, soon, to somebody who does as he should.
fn serves(daemon: &Daemon) {
    let began = Instant::now();
    daemon.connect().ok("GetVersion", json!({}));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn garbage_costs_the_connection() {
    let daemon = Daemon::start(&[]);
    let deep = format!("{}\0", "[".repeat(60_000));
    let garbage = [
        b"\0".as_slice(),
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"{}\0",
        b"{\"method\":5}\0",
        b"{\"method\":\"io.ringfence.Control.GetVersion\"\0",
        b"\xff\xfe\xfd\0",
        deep.as_bytes(),
    ];
    for bytes in garbage {
        let mut client = daemon.connect();
        client.stream.write_all(bytes).unwrap();
        assert!(client.is_closed(), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
    }
    serves(&daemon);
}

#[test]
fn a_message_without_end_is_cut_off_sooner_before_a_session() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    // Whether all of it can still be written is not the question.
    let _ = client.stream.write_all(&vec![b' '; MESSAGE_BEFORE * 4]);
    assert!(client.is_closed());
    let mut client = daemon.session();
    let padding = " ".repeat(MESSAGE_BEFORE * 2);
    let long = format!("{{\"method\":\"io.ringfence.Control.GetVersion\"}}{padding}\0");
    client.stream.write_all(long.as_bytes()).unwrap();
    assert!(client.receive().unwrap().get("parameters").is_some());
    let _ = client.stream.write_all(&vec![b' '; MESSAGE * 2]);
    assert!(client.is_closed());
    serves(&daemon);
}

#[test]
fn a_connection_can_be_closed_after_any_byte() {
    let daemon = Daemon::start(&[]);
    let call = json!({
        "method": "io.ringfence.Control.OpenSession",
        "parameters": { "client": CLIENT, "versions": [{ "major": 1, "minor": 0 }] },
    });
    let message = format!("{call}\0");
    for length in 0..=message.len() {
        let mut client = daemon.connect();
        client.stream.write_all(&message.as_bytes()[..length]).unwrap();
    }
    serves(&daemon);
    // The last one may have got its session; it waits to be resumed, and does not keep others out.
    let began = Instant::now();
    loop {
        let mut client = daemon.connect();
        match client.open(CLIENT).get("error") {
            None => break,
            Some(error) => assert_eq!(error, "io.ringfence.Control.AlreadyConnected"),
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn who_does_not_read_replies_is_not_read_from_and_the_others_are_served() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    client.stream.set_nonblocking(true).unwrap();
    let call = b"{\"method\":\"io.ringfence.Control.GetCoverage\"}\0";
    let mut sent = 0_u32;
    // Until neither side takes any more.
    while client.stream.write_all(call).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "it is read without end");
    }
    serves(&daemon);
}

#[test]
fn who_connects_without_end_is_let_go_and_those_who_are_there_are_served() {
    // Both ends are descriptors of this process, and each peer's process is one.
    let wanted = 4 * CONNECTIONS as u64;
    let limits = getrlimit(Resource::Nofile);
    assert!(limits.maximum.is_none_or(|most| most >= wanted), "{limits:?}");
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limits }).unwrap();
    let daemon = Daemon::start(&[]);
    let most = if rustix::process::geteuid().is_root() { CONNECTIONS } else { CONNECTIONS_OF_USER };
    let mut clients: Vec<_> = (0..most).map(|_| daemon.connect()).collect();
    // Who is answered has been let in, and all who came before him.
    assert_eq!(clients[most - 1].ok("GetStatus", json!({}))["connections"], most);
    assert!(daemon.connect().is_closed());
    clients[0].ok("GetVersion", json!({}));
    drop(clients.split_off(most - 10));
    let began = Instant::now();
    while clients[0].ok("GetStatus", json!({}))["connections"] != most - 10 {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    serves(&daemon);
}

#[test]
fn calls_that_were_sent_all_at_once_are_answered_in_order() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    let names = ["GetVersion", "GetCoverage", "GetStatus", "GetVersion"];
    for name in names {
        client.send(&json!({ "method": format!("io.ringfence.Control.{name}") }));
    }
    for part in ["product", "coverage", "uptime", "product"] {
        assert!(client.receive().unwrap()["parameters"].get(part).is_some(), "{part}");
    }
}

#[test]
fn a_call_that_wants_no_reply_gets_none() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    let open = json!({ "client": CLIENT, "versions": [{ "major": 1, "minor": 0 }] });
    let method = "io.ringfence.Control.OpenSession";
    client.send(&json!({ "method": method, "parameters": open, "oneway": true }));
    client.send(&json!({ "method": "io.ringfence.Control.Nothing", "oneway": true }));
    let status = client.ok("GetStatus", json!({}));
    assert_eq!(status["sessions"], 1);
}

fn refused(socket: &OwnedFd, verdict: &[u8]) -> Option<(u64, u32)> {
    send(socket, verdict, SendFlags::NOSIGNAL).unwrap();
    let mut reply = [0; 64];
    let (length, _) = recv(socket, &mut reply, RecvFlags::empty()).unwrap();
    (length == 16).then(|| {
        let id = u64::from_le_bytes(reply[..8].try_into().unwrap());
        (id, u32::from_le_bytes(reply[8..12].try_into().unwrap()))
    })
}

fn verdict(event_id: u64, verdict: u32, error: u32, flags: u32) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&event_id.to_le_bytes());
    bytes[8..12].copy_from_slice(&verdict.to_le_bytes());
    bytes[12..16].copy_from_slice(&error.to_le_bytes());
    bytes[16..20].copy_from_slice(&flags.to_le_bytes());
    bytes
}

#[test]
fn verdicts_about_nothing_are_refused_by_name() {
    let daemon = Daemon::start(&[]);
    let client = daemon.session();
    let socket = &client.descriptors[1];
    for (word, error) in [(1, 0), (2, 0), (2, 13)] {
        let said = verdict(7, word, error, 0);
        assert_eq!(refused(socket, &said), Some((7, abi::REFUSED_NOT_ASKED)));
    }
    for (bytes, id) in [
        (verdict(7, 0, 0, 0).to_vec(), 7),
        (verdict(7, 3, 0, 0).to_vec(), 7),
        (verdict(7, 1, 1, 0).to_vec(), 7),
        (verdict(7, 2, 512, 0).to_vec(), 7),
        (verdict(7, 1, 0, 2).to_vec(), 7),
        (vec![1; 23], 0),
        (vec![1; 25], 0),
        (vec![1], 0),
    ] {
        assert_eq!(refused(socket, &bytes), Some((id, abi::REFUSED_MALFORMED)), "{bytes:?}");
    }
    serves(&daemon);
}

#[test]
fn verdicts_whose_refusals_nobody_reads_hold_up_nobody() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    for id in 0..5_000 {
        send(&client.descriptors[1], &verdict(id, 1, 0, 0), SendFlags::NOSIGNAL).unwrap();
    }
    client.ok("GetStatus", json!({}));
    client.descriptors.pop();
    client.ok("GetStatus", json!({}));
    serves(&daemon);
}
