// SPDX-License-Identifier: Apache-2.0
//! Tasks that wait for verdicts, from the kernel side to clients and back.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use broker::event::{Class, EventType};
use broker::slot::{FileKey, ProcessKey, Slot, SlotSet};
use broker::verdict::{Outcome, Question};
use daemon::clock;
use daemon::kernel::{Asked, Terms};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde_json::{Value, json};
use support::{CLIENT, Client, Daemon, grant};

const ALLOW: u32 = 1;
const DENY: u32 = 2;
const EACCES: u32 = 13;

/// A client that is asked about execs, with its socket for verdicts.
fn asked(daemon: &Daemon, name: &str) -> (Client, OwnedFd) {
    let mut client = daemon.connect();
    let reply = client.open(name);
    let place = reply["parameters"]["verdicts"].as_u64();
    let place = place.unwrap_or_else(|| panic!("no socket for verdicts: {reply}"));
    let verdicts = client.descriptors.remove(usize::try_from(place).unwrap());
    client.ok("Subscribe", subscription());
    (client, verdicts)
}

fn subscription() -> Value {
    json!({ "subscriptions": [{ "event": "process_exec", "classes": ["ask"] }] })
}

/// The usual grant with more of execs, and of what holds without an answer about one.
fn grant_for_exec(more: &str, failure: &str) -> String {
    let next = "[events.process_fork]";
    let text = format!("{more}\n[events.process_exec.failure]\n{failure}\n{next}");
    grant(CLIENT, 1000).replace(next, &text)
}

fn slots(daemon: &Daemon) -> SlotSet {
    let mut all = SlotSet::EMPTY;
    daemon.kernel.get().slots.keys().for_each(|slot| all.insert(*slot));
    all
}

/// A task waits to execute a file.
fn ask(daemon: &Daemon, event_id: u64, askers: SlotSet) {
    daemon.kernel.asks(Asked::Question(question(event_id, askers)));
}

fn question(event_id: u64, askers: SlotSet) -> Question {
    Question {
        event_id,
        time: clock::now(),
        event: EventType::PROCESS_EXEC,
        file: FileKey { device: 1, inode: 77, version: 5 },
        process: ProcessKey { pid: 4242, start: 9 },
        askers,
        cacheable: true,
    }
}

fn answer(verdicts: &OwnedFd, event_id: u64, verdict: u32, error: u32, cacheable: bool) {
    let mut message = Vec::from(event_id.to_le_bytes());
    for word in [verdict, error, u32::from(cacheable), 0] {
        message.extend(word.to_le_bytes());
    }
    send(verdicts, &message, SendFlags::empty()).unwrap();
}

/// Why a verdict does not count: the event, and RINGFENCE_REFUSED_.
fn refused(verdicts: &OwnedFd) -> (u64, u32) {
    let mut message = [0; 16];
    let (length, _) = recv(verdicts, &mut message[..], RecvFlags::empty()).unwrap();
    assert_eq!(length, message.len());
    let word = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
    (u64::from_le_bytes(message[..8].try_into().unwrap()), word(8))
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn settled(daemon: &Daemon, event_id: u64) -> Outcome {
    wait_for("the task still waits", || daemon.kernel.get().settled.get(&event_id).copied())
}

fn given(daemon: &Daemon, event_id: u64) {
    wait_for("nobody was asked", || {
        let kernel = daemon.kernel.get();
        kernel.slots.values().find_map(|slot| slot.given.get(&event_id).copied())
    });
}

#[test]
fn a_task_goes_on_as_the_client_says() {
    let daemon = Daemon::start(&[]);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    ask(&daemon, 1, slots(&daemon));
    given(&daemon, 1);
    answer(&verdicts, 1, ALLOW, 0, false);
    assert_eq!(settled(&daemon, 1), Outcome::Allow);
    ask(&daemon, 2, slots(&daemon));
    given(&daemon, 2);
    answer(&verdicts, 2, DENY, EACCES, false);
    assert_eq!(settled(&daemon, 2), Outcome::Deny { error: 13 });
}

#[test]
fn the_kernel_side_knows_the_terms_and_who_never_waits() {
    let daemon = Daemon::start(&[]);
    let (_client, _verdicts) = asked(&daemon, CLIENT);
    let kernel = daemon.kernel.get();
    let slot = kernel.slots.values().next().unwrap();
    let terms = slot.terms.get(&EventType::PROCESS_EXEC).unwrap();
    assert!(terms.time > Duration::ZERO && !terms.deny_full, "{terms:?}");
    assert_eq!(slot.exempt.map(|process| process.pid), Some(std::process::id()));
}

#[test]
fn the_kernel_side_knows_how_long_the_session_wants_to_have_and_what_a_new_grant_says() {
    let daemon = Daemon::start(&[]);
    let (mut client, _verdicts) = asked(&daemon, CLIENT);
    let terms = || {
        let kernel = daemon.kernel.get();
        *kernel.slots.values().next().unwrap().terms.get(&EventType::PROCESS_EXEC).unwrap()
    };
    let subscription =
        json!({ "event": "process_exec", "classes": ["ask"], "deadline": 40_000_000 });
    client.ok("Subscribe", json!({ "subscriptions": [subscription] }));
    assert_eq!(terms(), Terms { time: Duration::from_millis(40), deny_full: false });
    let denying = grant_for_exec("deadline_ms = 20", "queue_full = \"deny\"");
    std::fs::write(daemon.grants.join("test.toml"), denying).unwrap();
    daemon.signal(libc::SIGHUP);
    let new = Terms { time: Duration::from_millis(20), deny_full: true };
    wait_for("the kernel side has the old terms", || (terms() == new).then_some(()));
}

#[test]
fn what_a_grant_denies_while_its_client_is_away_is_denied_until_the_grant_goes() {
    let strict = grant_for_exec("", "not_connected = \"deny\"");
    let daemon = Daemon::start_on_fake(&strict);
    let absent = || {
        let kernel = daemon.kernel.get();
        let asked =
            kernel.absent.iter().filter(|(_, asked)| asked.contains(EventType::PROCESS_EXEC));
        let mut slots = SlotSet::EMPTY;
        asked.for_each(|(slot, _)| slots.insert(*slot));
        slots
    };
    assert_eq!(absent().count(), 1, "before it was ever there");
    ask(&daemon, 1, absent());
    assert_eq!(settled(&daemon, 1), Outcome::Deny { error: 1 });
    let (mut client, verdicts) = asked(&daemon, CLIENT);
    ask(&daemon, 2, slots(&daemon));
    given(&daemon, 2);
    answer(&verdicts, 2, ALLOW, 0, false);
    assert_eq!(settled(&daemon, 2), Outcome::Allow);
    client.ok("CloseSession", json!({}));
    assert_eq!(absent().count(), 1, "after it has gone");
    ask(&daemon, 3, absent());
    assert_eq!(settled(&daemon, 3), Outcome::Deny { error: 1 });
    std::fs::remove_file(daemon.grants.join("test.toml")).unwrap();
    daemon.signal(libc::SIGHUP);
    wait_for("it is still asked about", || (absent().count() == 0).then_some(()));
}

#[test]
fn who_denies_what_he_allowed_before_is_not_known_to_allow_it_any_more() {
    let daemon = Daemon::start(&[]);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    let known = || {
        let kernel = daemon.kernel.get();
        kernel.slots.values().any(|slot| slot.known.contains(&(EventType::PROCESS_EXEC, 77)))
    };
    // Two tasks execute the same file at once.
    ask(&daemon, 1, slots(&daemon));
    ask(&daemon, 2, slots(&daemon));
    given(&daemon, 2);
    answer(&verdicts, 1, ALLOW, 0, true);
    assert_eq!(settled(&daemon, 1), Outcome::Allow);
    wait_for("it was not remembered", || known().then_some(()));
    answer(&verdicts, 2, DENY, EACCES, true);
    assert_eq!(settled(&daemon, 2), Outcome::Deny { error: 13 });
    wait_for("the kernel side still lets it pass", || (!known()).then_some(()));
}

#[test]
fn a_client_whose_ring_has_no_room_for_the_question_holds_nobody() {
    let strict = grant_for_exec("", "queue_full = \"deny\"");
    let daemon = Daemon::start_on_fake(&strict);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    daemon.kernel.get().slots.values_mut().for_each(|slot| slot.full = true);
    ask(&daemon, 1, slots(&daemon));
    assert_eq!(settled(&daemon, 1), Outcome::Deny { error: 1 });
    daemon.kernel.get().slots.values_mut().for_each(|slot| slot.full = false);
    ask(&daemon, 2, slots(&daemon));
    given(&daemon, 2);
    answer(&verdicts, 2, ALLOW, 0, false);
    assert_eq!(settled(&daemon, 2), Outcome::Allow);
}

#[test]
fn nobody_denies_with_what_a_task_gets_that_is_killed() {
    let daemon = Daemon::start(&[]);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    ask(&daemon, 1, slots(&daemon));
    given(&daemon, 1);
    answer(&verdicts, 1, DENY, 4, false);
    assert_eq!(refused(&verdicts), (1, 4), "EINTR");
    answer(&verdicts, 1, DENY, EACCES, false);
    assert_eq!(settled(&daemon, 1), Outcome::Deny { error: 13 });
}

#[test]
fn tasks_that_ask_at_once_all_get_their_answer() {
    let daemon = Daemon::start(&[]);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    let all = slots(&daemon);
    ask(&daemon, 1, all);
    given(&daemon, 1);
    answer(&verdicts, 1, DENY, EACCES, true);
    assert_eq!(settled(&daemon, 1), Outcome::Deny { error: 13 });
    // More than are taken at once, and what tells of them is heard but once.
    let questions = (2..1000).map(|event_id| Asked::Question(question(event_id, all)));
    daemon.kernel.get().asked.extend(questions);
    ask(&daemon, 1000, all);
    for event_id in [2, 500, 1000] {
        assert_eq!(settled(&daemon, event_id), Outcome::Deny { error: 13 }, "{event_id}");
    }
}

#[test]
fn an_answer_that_may_be_cached_is_the_kernels_to_know_until_the_session_ends() {
    let daemon = Daemon::start(&[]);
    let (mut client, verdicts) = asked(&daemon, CLIENT);
    ask(&daemon, 1, slots(&daemon));
    given(&daemon, 1);
    answer(&verdicts, 1, ALLOW, 0, true);
    assert_eq!(settled(&daemon, 1), Outcome::Allow);
    wait_for("it was not remembered", || {
        let kernel = daemon.kernel.get();
        let known = (EventType::PROCESS_EXEC, 77);
        kernel.slots.values().any(|slot| slot.known.contains(&known)).then_some(())
    });
    client.ok("CloseSession", json!({}));
    assert!(daemon.kernel.get().slots.is_empty());
}

#[test]
fn a_client_that_says_nothing_holds_nobody_longer_than_its_deadline() {
    let quick = grant_for_exec("deadline_ms = 100", "deadline_missed = \"deny\"");
    let daemon = Daemon::start_on_fake(&quick);
    let (mut client, verdicts) = asked(&daemon, CLIENT);
    let began = Instant::now();
    ask(&daemon, 1, slots(&daemon));
    assert_eq!(settled(&daemon, 1), Outcome::Deny { error: 1 });
    assert!(began.elapsed() >= Duration::from_millis(90), "{:?}", began.elapsed());
    answer(&verdicts, 1, ALLOW, 0, false);
    assert_eq!(refused(&verdicts), (1, 1), "a verdict after its deadline is too late");
    // It is told, in its ring.
    client.ok("GetStatistics", json!({}));
    let records = daemon.kernel.get().slots.values().next().unwrap().records.clone();
    let missed = |record: &Vec<u8>| record.get(6..8) == Some(&57_u16.to_le_bytes()[..]);
    assert!(records.iter().any(missed), "{} records", records.len());
}

#[test]
fn what_a_client_may_not_answer_is_refused_and_changes_nothing() {
    let other = grant("org.example.other", 2000);
    let daemon = Daemon::start(&[("other.toml", &other)]);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    let only: SlotSet = slots(&daemon);
    let (_other, others) = asked(&daemon, "org.example.other");
    ask(&daemon, 1, only);
    given(&daemon, 1);
    answer(&others, 1, DENY, EACCES, false);
    assert_eq!(refused(&others), (1, 3), "it was not asked");
    send(&verdicts, b"no verdict", SendFlags::empty()).unwrap();
    assert_eq!(refused(&verdicts), (0, 4), "it is none");
    answer(&verdicts, 1, ALLOW, 0, false);
    assert_eq!(settled(&daemon, 1), Outcome::Allow);
    answer(&verdicts, 1, DENY, EACCES, false);
    assert_eq!(refused(&verdicts), (1, 2), "it has answered already");
}

#[test]
fn one_that_denies_is_enough_and_one_that_dies_holds_nobody() {
    let other = grant("org.example.other", 2000);
    let daemon = Daemon::start(&[("other.toml", &other)]);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    let (dying, others) = asked(&daemon, "org.example.other");
    let both = slots(&daemon);
    assert_eq!(both.count(), 2);
    ask(&daemon, 1, both);
    given(&daemon, 1);
    answer(&verdicts, 1, DENY, EACCES, false);
    assert_eq!(settled(&daemon, 1), Outcome::Deny { error: 13 });
    ask(&daemon, 2, both);
    given(&daemon, 2);
    answer(&verdicts, 2, ALLOW, 0, false);
    drop((dying, others));
    assert_eq!(settled(&daemon, 2), Outcome::Allow);
}

#[test]
fn a_task_that_is_killed_asks_nothing_any_more() {
    let daemon = Daemon::start(&[]);
    let (_client, verdicts) = asked(&daemon, CLIENT);
    ask(&daemon, 1, slots(&daemon));
    given(&daemon, 1);
    daemon.kernel.asks(Asked::Withdrawn(1));
    assert_eq!(settled(&daemon, 1), Outcome::Cancelled);
    // The client may still say what it thinks of it; that is no error of its.
    answer(&verdicts, 1, ALLOW, 0, true);
    ask(&daemon, 2, slots(&daemon));
    // Known by then.
    assert_eq!(settled(&daemon, 2), Outcome::Allow);
}

#[test]
fn where_nobody_can_be_asked_a_client_is_told_why() {
    let kernel = support::Shared::default();
    let reason = "this kernel has no gate";
    let key = (EventType::PROCESS_EXEC, Class::Ask);
    kernel.get().unavailable.insert(key, reason.into());
    let daemon = Daemon::start_with(kernel, &[]);
    let mut client = daemon.session();
    let reply = client.call("Subscribe", subscription());
    assert_eq!(reply["error"], "io.ringfence.Control.EventUnavailable", "{reply}");
    assert_eq!(reply["parameters"]["reason"], reason, "{reply}");
    let none = Slot::all().find(|slot| {
        let kernel = daemon.kernel.get();
        kernel.slots.get(slot).is_some_and(|slot| slot.masks.ask.0 != 0)
    });
    assert_eq!(none, None);
}

#[test]
fn root_is_told_what_the_verdicts_of_a_client_took() {
    let daemon = Daemon::start(&[]);
    let (mut client, verdicts) = asked(&daemon, CLIENT);
    let quick = json!([{ "event": "process_exec", "classes": ["ask"], "deadline": 50_000_000 }]);
    client.ok("Subscribe", json!({ "subscriptions": quick }));
    daemon.kernel.get().slots.values_mut().for_each(|slot| slot.waiting = 4096);
    ask(&daemon, 1, slots(&daemon));
    answer(&verdicts, 1, ALLOW, 0, false);
    ask(&daemon, 2, slots(&daemon));
    let began = Instant::now();
    while daemon.kernel.get().settled.len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "the deadline never passed");
        std::thread::sleep(Duration::from_millis(10));
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let clients = client.ok("GetClients", json!({}));
    let only = &clients["clients"][0];
    assert_eq!(only["ring_waiting"], 4096);
    assert_eq!((&only["questions"]["asked"], &only["questions"]["missed"]), (&json!(2), &json!(1)));
    let times = &only["verdicts"][0];
    assert_eq!((&times["count"], &times["missed"]), (&json!(2), &json!(1)), "{times}");
    let took = |field: &str| times[field].as_u64().unwrap();
    assert!(took("longest") >= 50_000_000 && took("median") <= took("p99"), "{times}");
    assert!(took("p99") <= took("longest") && took("longest") <= took("total"), "{times}");
}
