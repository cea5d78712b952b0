// SPDX-License-Identifier: Apache-2.0
//! Many clients on the kernel that runs the tests: who gets what, what is lost, and who is woken.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clients::record::{Record, size_of_part};
use clients::ring::{self, Reader};
use clients::{
    Client, EXEC, EXIT, FORK, LARGE, LIMIT, Programs, SIGNAL, boottime, ended, executed,
    process_hooks, run,
};
use probes::events::{Hooks, Mute, SMALLEST_RING, Written};

#[test]
#[ignore = "root: loads BPF programs"]
fn a_process_without_privilege_reads_its_ring_with_nothing_but_its_descriptor() {
    let mut hooks = process_hooks();
    let client = Client::admit(&mut hooks, 9, LARGE, &[EXEC]);
    let programs = Programs::new();
    let program = programs.copy("true");
    let descriptor = ring::inheritable(&client.ring);
    let mut reader = Command::new(std::env::current_exe().unwrap());
    reader.args(["--exact", "nobody_reads", "--ignored", "--nocapture"]);
    reader.env("RINGFENCE_RING", format!("{descriptor} {LARGE} {}", program.display()));
    let reader = reader.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    for _ in 0..50 {
        run(&program, &[]);
    }
    let output = reader.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("read 50 as 65534"), "{said}");
}

/// What the test above runs: without it, nothing.
#[test]
#[ignore = "part of another test"]
fn nobody_reads() {
    let Ok(ring) = std::env::var("RINGFENCE_RING") else { return };
    let words: Vec<_> = ring.split(' ').collect();
    // SAFETY: inherited from the test that started this one, and used only here.
    let descriptor = unsafe { OwnedFd::from_raw_fd(words[0].parse().unwrap()) };
    // SAFETY: plain system calls; no other thread of this process does anything meanwhile.
    let dropped = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setgid(65534) == 0
            && libc::setuid(65534) == 0
    };
    assert!(dropped);
    assert!(Hooks::load().is_err(), "it can load programs");
    let mut reader = Reader::map(&descriptor, words[1].parse().unwrap()).unwrap();
    let (started, mut count) = (Instant::now(), 0);
    while count < 50 && started.elapsed() < LIMIT {
        let records = reader.take().into_iter().map(Record);
        count += records.filter(|record| executed(record, Path::new(words[2]))).count();
        ring::wait(&[&descriptor], Duration::from_millis(100));
    }
    println!("read {count} as {}", rustix::process::getuid().as_raw());
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_does_not_fit_is_counted_exactly_and_told_of_first() {
    let mut hooks = process_hooks();
    let types = [EXEC, EXIT, SIGNAL];
    let mut all = Client::admit(&mut hooks, 0, LARGE, &types);
    let mut slow = Client::admit(&mut hooks, 1, SMALLEST_RING, &types);
    let programs = Programs::new();
    let program = programs.copy("true");
    // Both hear of what this program does, and of nothing that comes at another time.
    for slot in [0, 1] {
        hooks.mute(slot, &Mute::Path(program.to_str().unwrap().as_bytes().to_vec())).unwrap();
        hooks.invert(slot, true).unwrap();
    }
    all.take();
    slow.take();
    let before = [hooks.statistics(0).unwrap().written, hooks.statistics(1).unwrap().written];
    all.seen.clear();
    for _ in 0..300 {
        run(&program, &[]);
    }
    all.take();
    let told = hooks.statistics(0).unwrap();
    assert_eq!((told.written - before[0], told.lost), (all.seen.len() as u64, 0));
    assert!(all.seen.len() >= 300);
    let statistics = hooks.statistics(1).unwrap();
    assert!(statistics.lost > 0, "the ring was never full");
    assert_eq!(statistics.written - before[1] + statistics.lost, all.seen.len() as u64);
    slow.seen.clear();
    slow.take();
    for kind in types {
        let count =
            |client: &Client| client.seen.iter().filter(|r| r.kind() == kind.number()).count();
        let lost = statistics.ring_full[usize::from(kind.number())] as usize;
        assert_eq!(count(&slow) + lost, count(&all), "{}", kind.name());
    }
    // What it has is the beginning, without a gap. Where processors write at the same time, two rings can have
    // what they write in different orders.
    let numbers = |client: &Client| -> Vec<u64> {
        let numbers = client.seen.iter().map(|r| r.header("global_sequence"));
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };
    let (beginning, had) = (numbers(&all), numbers(&slow));
    let processors = std::thread::available_parallelism().unwrap().get();
    let beginning = &beginning[..beginning.len().min(had.len() + processors - 1)];
    assert!(had.iter().all(|number| beginning.contains(number)), "{had:?} of {beginning:?}");

    // There is place again: the loss comes before anything else.
    let from = slow.seen.len();
    let pid = run(&program, &[]);
    slow.read_until(|r| r.header("lost") > 0 && r.actor("process.pid") == u64::from(pid));
    let loss = &slow.seen[from];
    assert_eq!(loss.kind(), 56, "{:?}", &slow.seen[from..]);
    assert_eq!(loss.body("ringfence_loss.records"), statistics.lost);
    assert_eq!(loss.body("ringfence_loss.why"), 1);
    assert_eq!(loss.header("lost"), statistics.lost);
    let by_type = loss.bytes("ringfence_loss.by_type", 4 * 64);
    let by_type: Vec<_> =
        by_type.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
    assert_eq!(by_type, statistics.ring_full);
    assert_eq!(slow.seen[from + 1].header("lost"), statistics.lost);
    let now = hooks.statistics(1).unwrap();
    assert_eq!((now.told, now.lost), (statistics.lost, statistics.lost));
    assert_eq!(slow.seen.iter().filter(|r| r.kind() == 56).count(), 1);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_loss_is_told_of_although_nothing_else_happens() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 2, SMALLEST_RING, &[]);
    let header = size_of_part("ringfence_header");
    let mut record = vec![0; header + 4000];
    record[6..8].copy_from_slice(&52_u16.to_le_bytes());
    let mut lost = 0;
    for _ in 0..40 {
        lost += u64::from(hooks.write(2, &record, false).unwrap() == Written::Lost);
    }
    assert!(lost > 0);
    client.read_until(|record| record.kind() == 56);
    let loss = client.seen.last().unwrap();
    assert_eq!(loss.body("ringfence_loss.records"), lost);
    assert_eq!(client.seen.len() as u64, 41 - lost);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_a_client_mutes_it_does_not_hear_of_and_others_do() {
    let mut hooks = process_hooks();
    let programs = Programs::new();
    let (quiet, loud) = (programs.copy("true"), programs.copy("false"));
    let mut clients: Vec<_> =
        (0..5).map(|slot| Client::admit(&mut hooks, slot, LARGE, &[EXEC, EXIT, FORK])).collect();
    let heard = |clients: &mut [Client], program: &Path| {
        let pid = run(program, &[]);
        let end = run(&loud, &[]);
        // The last one mutes nothing.
        let (last, others) = clients.split_last_mut().unwrap();
        last.read_until(ended(end));
        assert!(last.seen.iter().any(|r| executed(r, program)));
        others
            .iter_mut()
            .map(|client| {
                client.take();
                let exec = |r: &&Record| r.kind() == EXEC.number();
                client.of(pid).into_iter().any(|r| exec(&r))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(heard(&mut clients, &quiet), [true; 4]);
    let record = clients[4].seen.iter().find(|r| executed(r, &quiet)).unwrap();
    let (device, inode) = (record.actor("executable.device"), record.actor("executable.inode"));
    let mutes = [
        Mute::Executable { device, inode },
        Mute::Path(quiet.to_str().unwrap().as_bytes().to_vec()),
        Mute::Cgroup(record.actor("cgroup")),
    ];
    for (slot, mute) in mutes.iter().enumerate() {
        hooks.mute(slot as u32, mute).unwrap();
    }
    assert_eq!(heard(&mut clients, &quiet), [false, false, false, true]);
    // By executable and by path only that program is muted.
    assert_eq!(heard(&mut clients, &loud), [true, true, false, true]);
    // Inverted, it is all that they hear of.
    for slot in 0..3 {
        hooks.invert(slot, true).unwrap();
    }
    assert_eq!(heard(&mut clients, &quiet), [true, true, true, true]);
    assert_eq!(heard(&mut clients, &loud), [false, false, true, true]);
    // Inverted without a mute, nothing is selected.
    hooks.unmute(1, &mutes[1]).unwrap();
    assert_eq!(heard(&mut clients, &quiet), [true, false, true, true]);
    for (slot, mute) in mutes.iter().enumerate() {
        hooks.unmute(slot as u32, mute).unwrap();
        hooks.invert(slot as u32, false).unwrap();
    }
    assert_eq!(heard(&mut clients, &quiet), [true; 4]);

    // By process: ours, whose forks are muted while what its children do is not.
    let fork = clients[4].of(std::process::id());
    let fork = fork.iter().find(|r| r.kind() == FORK.number()).unwrap();
    let us = Mute::Process { pid: std::process::id(), start: fork.actor("process.start") };
    hooks.mute(3, &us).unwrap();
    let ours = |client: &Client| client.of(std::process::id()).len();
    let before = [ours(&clients[3]), ours(&clients[4])];
    assert_eq!(heard(&mut clients, &quiet), [true; 4]);
    assert_eq!(ours(&clients[3]), before[0]);
    assert!(ours(&clients[4]) > before[1]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_slot_that_is_given_away_again_knows_nothing_of_its_last_client() {
    let mut hooks = process_hooks();
    let programs = Programs::new();
    let program = programs.copy("true");
    let first = Client::admit(&mut hooks, 4, LARGE, &[EXEC]);
    assert!(hooks.admit(4, &first.ring).is_err(), "the slot is taken");
    hooks.mute(4, &Mute::Path(b"/".to_vec())).unwrap();
    run(&program, &[]);
    hooks.remove(4).unwrap();
    assert!(hooks.statistics(4).is_err());
    assert!(hooks.subscribe(4, EXEC.bit()).is_err());
    let produced = first.reader.produced();
    let mut second = Client::admit(&mut hooks, 4, LARGE, &[EXEC, EXIT]);
    let pid = run(&program, &[]);
    second.read_until(ended(pid));
    assert!(second.seen.iter().any(|r| executed(r, &program)));
    assert_eq!(first.reader.produced(), produced, "the first ring still grows");
    assert!(hooks.admit(64, &first.ring).is_err());
}

#[test]
#[ignore = "root: loads BPF programs"]
fn eight_clients_see_the_same_events_with_the_same_numbers() {
    let mut hooks = process_hooks();
    let programs = Programs::new();
    let program = programs.copy("true");
    let mut clients: Vec<_> =
        (0..8).map(|n| Client::admit(&mut hooks, n * 9, LARGE, &[EXEC, EXIT])).collect();
    let pids: Vec<_> = (0..100).map(|_| run(&program, &[])).collect();
    let last = *pids.last().unwrap();
    let numbers = clients.iter_mut().map(|client| {
        client.read_until(ended(last));
        let numbers = client
            .seen
            .iter()
            .filter(|r| u32::try_from(r.actor("process.pid")).is_ok_and(|pid| pids.contains(&pid)));
        let numbers: Vec<_> = numbers.map(|r| (r.header("global_sequence"), r.kind())).collect();
        assert!(client.seen.iter().all(|r| r.header("lost") == 0));
        assert!(numbers.is_sorted(), "one after the other, as they were run");
        numbers
    });
    let numbers: Vec<_> = numbers.collect();
    assert_eq!(numbers[0].len(), 200);
    assert!(numbers.iter().all(|of_one| *of_one == numbers[0]));
}

#[test]
#[ignore = "root: loads BPF programs"]
fn observers_are_woken_soon_and_rarely_and_not_at_all_while_nothing_happens() {
    let mut hooks = process_hooks();
    let programs = Programs::new();
    let program = programs.copy("true");
    let mut clients: Vec<_> =
        (0..26).map(|slot| Client::admit(&mut hooks, slot, LARGE, &[])).collect();
    let by_path = Mute::Path(program.to_str().unwrap().as_bytes().to_vec());
    for slot in 0..26 {
        // Only what this test runs, whatever the machine does meanwhile.
        hooks.mute(slot, &by_path).unwrap();
        hooks.invert(slot, true).unwrap();
        hooks.subscribe(slot, EXEC.bit()).unwrap();
    }
    // Nothing happens: nobody is woken.
    let rings: Vec<_> = clients.iter().map(|client| client.ring.as_fd()).collect();
    assert!(!ring::wait(&rings, Duration::from_millis(300)));
    assert!(!hooks.is_wake_due(), "a timer is set although there is no record");

    // One record each: all are readable soon. The best of some, as this machine may be busy.
    let mut waits = Vec::new();
    for _ in 0..10 {
        let rings = clients.iter().map(|client| client.ring.as_fd().try_clone_to_owned().unwrap());
        let waiting = rings.map(|ring| {
            std::thread::spawn(move || {
                assert!(ring::wait(&[ring], LIMIT));
                boottime()
            })
        });
        let waiting: Vec<_> = waiting.collect();
        std::thread::sleep(Duration::from_millis(5));
        run(&program, &[]);
        let woken = waiting.into_iter().map(|thread| thread.join().unwrap()).max().unwrap();
        for client in &mut clients {
            client.take();
        }
        let record = clients[25].seen.last().unwrap();
        assert!(executed(record, &program));
        waits.push(Duration::from_nanos(woken - record.header("time")));
    }
    println!("26 observers heard of an exec after {waits:?}");
    // Where processors are emulated it is their speed that is measured.
    let slow = std::env::var_os("RINGFENCE_SLOW").is_some();
    let limit = Duration::from_millis(if slow { 200 } else { 20 });
    assert!(waits.iter().min().unwrap() <= &limit, "{waits:?}");

    // A storm: wake-ups are bounded by time and not by records.
    for client in &mut clients {
        client.reader.take();
    }
    let (started, mut wakes, mut records) = (Instant::now(), 0, 0);
    let storm = std::thread::spawn(move || {
        for _ in 0..400 {
            run(&program, &[]);
        }
    });
    while !storm.is_finished() || records < 400 {
        assert!(started.elapsed() < LIMIT, "{records} records");
        let woken = ring::wait(&[&clients[0].ring], Duration::from_millis(50));
        let taken = clients[0].reader.take().len();
        // While another processor writes a record, poll says that there is something and there is nothing to
        // take yet; an emulated one may be held up in the midst of it.
        wakes += u128::from(woken && taken > 0);
        records += taken;
    }
    storm.join().unwrap();
    let most = started.elapsed().as_millis() / 10 + 5;
    println!("{records} records, {wakes} wake-ups in {:?}", started.elapsed());
    assert!(wakes <= most, "{wakes} wake-ups in {:?}", started.elapsed());
}

#[test]
#[ignore = "root: loads BPF programs"]
fn records_of_the_daemon_go_into_the_same_ring() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 63, SMALLEST_RING, &[]);
    let part = size_of_part("ringfence_shutting_down");
    let mut record = vec![0; size_of_part("ringfence_header") + size_of_part("ringfence_actor")];
    let body = record.len() as u16;
    record.resize(record.len() + part, 7);
    record[4..6].copy_from_slice(&1_u16.to_le_bytes());
    record[6..8].copy_from_slice(&59_u16.to_le_bytes());
    record[8..10].copy_from_slice(&body.to_le_bytes());
    assert_eq!(hooks.write(63, &record, true).unwrap(), Written::Done);
    assert!(ring::wait(&[&client.ring], Duration::from_millis(500)), "it is woken at once");
    client.take();
    let [seen] = &client.seen[..] else { panic!("{:?}", client.seen) };
    assert_eq!((seen.kind(), seen.header("body")), (59, u64::from(body)));
    assert_eq!(seen.header("size") as usize, record.len());
    assert_eq!(seen.header("global_sequence"), hooks.sequence());
    assert_eq!(seen.body("ringfence_shutting_down.why"), 0x0707_0707);
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let id: String = id.trim().replace('-', "");
    let boot: String =
        seen.header_bytes("boot_id", 16).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(boot, id);
    assert!(hooks.write(63, &record[..8], true).is_err(), "shorter than a header");
    assert!(hooks.write(62, &record, true).is_err(), "nobody is there");
    assert!(hooks.write(63, &[0; 12289], true).is_err(), "too long");
}
