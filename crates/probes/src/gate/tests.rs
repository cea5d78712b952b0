// SPDX-License-Identifier: Apache-2.0
//! The gate without its programs: a thread asks by reading the attribute itself, through the anchor's
//! /proc/PID/exe, as the kernel does for a program. So all but the hooks is tried on any kernel that
//! lets root mount FUSE. What the hooks do is tried in the lab (its scenario `gate`).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use super::abi::{GateAnswer, GateAnswerKey, GateFile, GateQuestion, GateSettings};
use super::*;
use crate::question::{Notice, Questions, Reply};

fn map(kind: MapType, name: &str, key: usize, value: usize, entries: u32) -> MapHandle {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as u64,
        ..Default::default()
    };
    MapHandle::create(kind, Some(name), key as u32, value as u32, entries, &options)
        .unwrap_or_else(|error| panic!("needs root: {error}"))
}

fn maps() -> (GateMaps, MapHandle) {
    let pending = map(MapType::Hash, "gate_pending", 4, size_of::<GateQuestion>(), 64);
    let copy = MapHandle::try_from(&pending).unwrap();
    // Marks of tasks are no map that can be made without its types.
    let [exempt, marks] = Exemptions::load().unwrap().maps();
    let (key, answer) = (size_of::<GateAnswerKey>(), size_of::<GateAnswer>());
    let all = [
        map(MapType::Array, "gate_settings", 4, size_of::<GateSettings>(), 1),
        pending,
        exempt,
        marks,
        map(MapType::LruHash, "gate_cache", key, answer, 1024),
        map(MapType::PercpuArray, "gate_counters", 4, 8, 14),
    ];
    (GateMaps::among(all).unwrap(), copy)
}

/// Reads the attribute `name` of the anchor's file into `room` bytes: what it gave.
fn read_attribute(file: &File, name: &str, room: usize) -> io::Result<Vec<u8>> {
    let name = CString::new(name).unwrap();
    let mut value = vec![0_u8; room];
    // SAFETY: the name ends with a zero, and the value is writable for as many bytes as it has.
    let read = unsafe {
        libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    if room > 0 {
        value.truncate(read as usize);
        return Ok(value);
    }
    Ok(vec![0; read as usize])
}

struct Asking {
    thread: u32,
    outcome: Receiver<io::Result<Vec<u8>>>,
    _file: File,
}

/// A thread that asks.
fn ask(pending: &MapHandle, file: &File, event_id: u64) -> Asking {
    let pending = MapHandle::try_from(pending).unwrap();
    let own = file.try_clone().unwrap();
    let (say, outcome) = mpsc::channel();
    let (say_thread, thread) = mpsc::channel();
    thread::spawn(move || {
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let file = GateFile { device: 1, inode: 2, version: 3 };
        let question = GateQuestion {
            event_id,
            askers: 0b101,
            pid: std::process::id(),
            thread,
            r#type: 16,
            file,
            ..Default::default()
        };
        pending.update(&thread.to_ne_bytes(), question.bytes(), MapFlags::ANY).unwrap();
        say_thread.send(thread).unwrap();
        let read = read_attribute(&own, "user.verdict", size_of::<GateReply>());
        pending.delete(&thread.to_ne_bytes()).unwrap();
        say.send(read).unwrap();
    });
    Asking { thread: thread.recv().unwrap(), outcome, _file: file.try_clone().unwrap() }
}

struct Try {
    gate: Gate,
    pending: MapHandle,
    file: File,
}

fn open(options: GateOptions) -> Try {
    let (maps, pending) = maps();
    let mut gate = Gate::open(maps, options).unwrap();
    let path = format!("/proc/{}/exe", gate.anchor());
    // Whoever opens it asks the gate, so it is opened by another thread.
    let opening = thread::spawn(move || File::open(path).unwrap());
    while !opening.is_finished() {
        pump(&mut gate, Duration::from_millis(20));
    }
    Try { gate, pending, file: opening.join().unwrap() }
}

/// Waits a little for notices; gives those that there are.
fn pump(gate: &mut Gate, wait: Duration) -> Vec<Notice> {
    let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
    {
        let descriptor = gate.descriptor();
        let mut one = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
        poll(&mut one, Some(&wait)).unwrap();
    }
    std::iter::from_fn(|| gate.next().unwrap()).collect()
}

/// The questions that come until there are as many as asked for.
fn asked(gate: &mut Gate, count: usize) -> Vec<Question> {
    let limit = Instant::now() + Duration::from_secs(10);
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < limit, "only {} questions", all.len());
        for notice in pump(gate, Duration::from_millis(20)) {
            match notice {
                Notice::Asked(question) => all.push(question),
                Notice::Withdrawn(id) => panic!("{id:?} was withdrawn"),
            }
        }
    }
    all
}

/// Event and verdict of a reply, as the kernel's side checks them.
fn reply(value: &[u8]) -> (u64, u32, u32) {
    let reply = GateReply::parse(value).unwrap();
    (reply.event_id, reply.verdict, reply.error)
}

#[test]
#[ignore = "root: mounts FUSE, makes BPF maps"]
fn a_question_tells_all_that_is_pending_and_its_answer_comes_back() {
    let Try { mut gate, pending, file } = open(GateOptions::default());
    let asking = ask(&pending, &file, 77);
    let [question] = asked(&mut gate, 1).try_into().unwrap();
    assert_eq!((question.event_id, question.kind, question.askers), (77, 16, 0b101));
    assert_eq!((question.thread, question.process.pid), (asking.thread, std::process::id()));
    assert_eq!(question.file, FileKey { device: 1, inode: 2, version: 3 });
    assert!(asking.outcome.recv_timeout(Duration::from_millis(100)).is_err(), "it did not wait");
    gate.answer(question.id, Reply::Deny(13)).unwrap();
    let value = asking.outcome.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(reply(&value), (77, DENY, 13));
    // Once more is no error, and does nothing.
    gate.answer(question.id, Reply::Allow).unwrap();
    assert_eq!(gate.waiting(), 0);
}

#[test]
#[ignore = "root: mounts FUSE, makes BPF maps"]
fn many_questions_are_answered_in_any_order_each_to_its_own_thread() {
    let Try { mut gate, pending, file } = open(GateOptions::default());
    let asking: Vec<_> = (0..40).map(|number| ask(&pending, &file, 1000 + number)).collect();
    let mut questions = asked(&mut gate, 40);
    questions.reverse();
    for question in &questions {
        gate.answer(question.id, Reply::Deny(question.event_id as u16 - 900)).unwrap();
    }
    for (number, asking) in (0..).zip(asking) {
        let value = asking.outcome.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
        assert_eq!(reply(&value), (1000 + number, DENY, 100 + number as u32));
    }
}

#[test]
#[ignore = "root: mounts FUSE, makes BPF maps"]
fn the_size_alone_other_attributes_and_too_little_room_are_no_questions() {
    let Try { mut gate, pending, file } = open(GateOptions::default());
    let (copy, again) = (file.try_clone().unwrap(), MapHandle::try_from(&pending).unwrap());
    let reading = thread::spawn(move || {
        let error = |read: io::Result<Vec<u8>>| read.unwrap_err().raw_os_error().unwrap();
        // Even with a question pending.
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let question = GateQuestion { event_id: 5, ..Default::default() };
        pending.update(&thread.to_ne_bytes(), question.bytes(), MapFlags::ANY).unwrap();
        let size = read_attribute(&copy, "user.verdict", 0).unwrap().len();
        let short = error(read_attribute(&copy, "user.verdict", 23));
        let other = error(read_attribute(&copy, "user.verdicts", 24));
        pending.delete(&thread.to_ne_bytes()).unwrap();
        (size, short, other, error(read_attribute(&copy, "user.verdict", 24)))
    });
    while !reading.is_finished() {
        assert!(pump(&mut gate, Duration::from_millis(20)).is_empty());
    }
    let expected = (size_of::<GateReply>(), libc::ERANGE, libc::ENODATA, libc::ENODATA);
    assert_eq!(reading.join().unwrap(), expected);
    // Which has not taught the kernel that there are no attributes.
    let _asking = ask(&again, &file, 6);
    asked(&mut gate, 1);
}

#[test]
#[ignore = "root: mounts FUSE, makes BPF maps"]
fn without_beats_the_anchor_aborts_and_all_that_wait_go_on() {
    let watchdog = Duration::from_millis(400);
    let options = GateOptions { watchdog, ..GateOptions::default() };
    let Try { mut gate, pending, file } = open(options);
    for number in 0..5 {
        thread::sleep(watchdog / 2);
        gate.beat().unwrap();
        assert!(pump(&mut gate, Duration::ZERO).is_empty(), "beat {number}");
    }
    let asking: Vec<_> = (0..8).map(|number| ask(&pending, &file, number)).collect();
    asked(&mut gate, 8);
    let start = Instant::now();
    for asking in asking {
        let outcome = asking.outcome.recv_timeout(Duration::from_secs(3)).unwrap();
        let code = outcome.unwrap_err().raw_os_error().unwrap();
        assert!([libc::ECONNABORTED, libc::ENOTCONN].contains(&code), "{code}");
    }
    assert!(start.elapsed() < watchdog * 3, "{:?}", start.elapsed());
    assert!(matches!(gate.next(), Err(ProbeError::Closed { .. })));
}

#[test]
#[ignore = "root: mounts FUSE, makes BPF maps"]
fn an_anchor_that_was_killed_is_replaced_and_what_waited_still_waits() {
    let Try { mut gate, pending, file } = open(GateOptions::default());
    let asking = ask(&pending, &file, 9);
    let [question] = asked(&mut gate, 1).try_into().unwrap();
    let first = gate.anchor();
    let pid = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let limit = Instant::now() + Duration::from_secs(5);
    while gate.anchors() < 2 {
        assert!(Instant::now() < limit, "no second anchor");
        assert!(pump(&mut gate, Duration::from_millis(20)).is_empty());
    }
    assert_ne!(gate.anchor(), first);
    gate.answer(question.id, Reply::Allow).unwrap();
    let value = asking.outcome.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(reply(&value), (9, ALLOW, 0));
}

#[test]
#[ignore = "root: mounts FUSE, makes BPF maps"]
fn what_nobody_answers_falls_back_after_the_longest_wait() {
    let longest_wait = Duration::from_millis(300);
    let Try { mut gate, pending, file } = open(GateOptions { longest_wait, ..Default::default() });
    let asking = ask(&pending, &file, 9);
    let [question] = asked(&mut gate, 1).try_into().unwrap();
    gate.beat().unwrap();
    assert!(asking.outcome.try_recv().is_err());
    thread::sleep(longest_wait);
    gate.beat().unwrap();
    let code = asking.outcome.recv_timeout(Duration::from_secs(5)).unwrap().unwrap_err();
    assert_eq!(code.raw_os_error(), Some(libc::ETIMEDOUT));
    let notice = gate.next().unwrap();
    assert!(matches!(notice, Some(Notice::Withdrawn(id)) if id == question.id), "{notice:?}");
}

#[test]
#[ignore = "root: mounts FUSE, makes BPF maps"]
fn a_gate_that_is_closed_lets_all_go_and_leaves_no_process() {
    let Try { mut gate, pending, file } = open(GateOptions::default());
    let asking = ask(&pending, &file, 9);
    asked(&mut gate, 1);
    let anchor = gate.anchor();
    drop(gate);
    let error = asking.outcome.recv_timeout(Duration::from_secs(5)).unwrap().unwrap_err();
    let code = error.raw_os_error().unwrap();
    assert!([libc::ECONNABORTED, libc::ENOTCONN].contains(&code), "{code}");
    assert!(!std::path::Path::new(&format!("/proc/{anchor}")).exists());
}

#[test]
#[ignore = "root: makes BPF maps"]
fn known_answers_belong_to_each_client_and_fresh_files_are_not_known() {
    let (maps, _) = maps();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at =
        |age: Duration| FileKey { device: 1, inode: 7, version: (now - age).as_nanos() as u64 };
    let (old, fresh) = (at(Duration::from_secs(60)), at(Duration::ZERO));
    assert!(!maps.allow(1, fresh, 1).unwrap());
    assert!(maps.allow(1, old, 0b01).unwrap());
    assert!(maps.allow(1, old, 0b10).unwrap());
    let known = |maps: &GateMaps| maps.known(1, old).unwrap();
    assert_eq!(known(&maps), 0b11);
    maps.forget_clients(0b01).unwrap();
    assert_eq!(known(&maps), 0b10);
    maps.forget_clients(0b10).unwrap();
    assert_eq!(known(&maps), 0);
}
