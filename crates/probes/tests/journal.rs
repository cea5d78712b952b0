// SPDX-License-Identifier: Apache-2.0
//! The journal on the kernel that runs the tests.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use guard::journal::{Change, Entry, Journal};
use guard::views::Views;
use libbpf_rs::libbpf_sys;
use probes::{JournalReader, LiveViews, ProbeError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Opens a tracepoint for perf, whereby the kernel patches a call into its text; closing patches it
/// out again.
fn open_tracepoint(event: &str) -> OwnedFd {
    let views = LiveViews::open();
    let id = views.file(&format!("/sys/kernel/tracing/events/{event}/id")).unwrap();
    let mut attributes = libbpf_sys::perf_event_attr {
        type_: libbpf_sys::PERF_TYPE_TRACEPOINT,
        size: size_of::<libbpf_sys::perf_event_attr>() as u32,
        config: id.trim().parse().unwrap(),
        ..Default::default()
    };
    attributes.set_disabled(1);
    // SAFETY: perf_event_open(2) for this process on any CPU; the structure is as long as it says.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, -1, 0) };
    assert!(descriptor >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel just gave this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

/// Takes entries until `enough` says so, or some seconds have gone.
fn take_until(reader: &mut JournalReader, enough: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
    let started = Instant::now();
    let mut entries = Vec::new();
    while !enough(&entries) && started.elapsed() < Duration::from_secs(5) {
        wait(reader, Duration::from_millis(100));
        entries.extend(reader.take().entries);
    }
    entries
}

fn wait(reader: &JournalReader, timeout: Duration) -> bool {
    let mut ready: Vec<_> = reader
        .descriptors()
        .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
        .collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
    poll(&mut ready, Some(&timeout)).unwrap() > 0
}

fn pokes_by_us(entries: &[Entry]) -> Vec<&Entry> {
    let ours = std::process::id();
    entries
        .iter()
        .filter(|entry| entry.actor.pid == ours && matches!(entry.change, Change::TextPoke { .. }))
        .collect()
}

/// A reader on a kernel that tells of text pokes. On one that keeps them to itself there is none,
/// and then what must hold is that this is said, with the reason.
fn reader_of_pokes() -> Option<JournalReader> {
    let mut reader = JournalReader::open().unwrap();
    match reader.try_text_pokes() {
        Ok(()) => Some(reader),
        Err(error) => {
            assert!(matches!(error, ProbeError::Unsupported { .. }), "{error}");
            assert!(pokes_by_us(&reader.take().entries).is_empty());
            eprintln!("not looked for: {error}");
            None
        }
    }
}

#[test]
#[ignore = "root"]
fn a_tracepoint_that_goes_on_and_off_is_journaled_with_who_did_it() {
    let Some(mut reader) = reader_of_pokes() else { return };
    reader.take();
    let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    drop(open_tracepoint("sched/sched_process_hang"));
    let entries = take_until(&mut reader, |entries| pokes_by_us(entries).len() >= 2);
    let pokes = pokes_by_us(&entries);
    assert!(pokes.len() >= 2, "{} pokes among {} entries", pokes.len(), entries.len());
    let comm = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    let (first, last) = (pokes[0], pokes[pokes.len() - 1]);
    assert_eq!(first.actor.comm, comm.trim_end());
    assert!(first.time_ns >= before.tv_sec as u64 * 1_000_000_000 + before.tv_nsec as u64);
    // What went on went off again: some place has at the end what it had at the start.
    let place = |entry: &Entry| match &entry.change {
        Change::TextPoke { address, old, new } => (*address, old.clone(), new.clone()),
        Change::Symbol { .. } | Change::Module { .. } => unreachable!("filtered"),
    };
    let undone = pokes.iter().any(|poke| {
        let (address, old, _) = place(poke);
        pokes.iter().any(|later| {
            let (at, _, new) = place(later);
            later.time_ns > poke.time_ns && at == address && new == old
        })
    });
    assert!(undone, "{first:?} … {last:?}");
    assert!(pokes.is_sorted_by_key(|poke| poke.time_ns));
}

#[test]
#[ignore = "root"]
fn one_record_wakes_a_poll_at_once() {
    let mut reader = JournalReader::open().unwrap();
    let views = LiveViews::open();
    reader.take();
    let name = views.raise_event().unwrap();
    let started = Instant::now();
    assert!(wait(&reader, Duration::from_millis(900)));
    assert!(started.elapsed() < Duration::from_millis(200), "{name}");
}

#[test]
#[ignore = "root"]
fn a_burst_of_symbols_loses_nothing_or_says_so() {
    let mut reader = JournalReader::open().unwrap();
    let views = LiveViews::open();
    let names: Vec<String> = (0..300).map(|_| views.raise_event().unwrap()).collect();
    let taken = reader.take();
    let seen = |name: &String, comes: bool| {
        taken.entries.iter().any(|entry| match &entry.change {
            Change::Symbol { name: seen, registered, .. } => seen == name && *registered == comes,
            Change::TextPoke { .. } | Change::Module { .. } => false,
        })
    };
    let all = names.iter().all(|name| seen(name, true) && seen(name, false));
    assert!(all || taken.lost > 0, "{} entries", taken.entries.len());
    assert!(taken.entries.is_sorted_by_key(|entry| entry.time_ns));
}

#[test]
#[ignore = "root"]
fn an_event_raised_on_purpose_arrives_under_its_name() {
    let mut reader = JournalReader::open().unwrap();
    let views = LiveViews::open();
    let name = views.raise_event().unwrap();
    assert_ne!(name, views.raise_event().unwrap());
    let states = |entries: &[Entry]| -> Vec<bool> {
        let ours = entries.iter().filter_map(|entry| match &entry.change {
            Change::Symbol { name: seen, registered, kind: 1, .. } if *seen == name => {
                Some(*registered)
            }
            _ => None,
        });
        ours.collect()
    };
    let entries = take_until(&mut reader, |entries| states(entries).len() >= 2);
    assert_eq!(states(&entries), [true, false], "{name} among {}", entries.len());
}

#[test]
#[ignore = "root"]
fn a_burst_of_changes_loses_nothing_or_says_so() {
    let Some(mut reader) = reader_of_pokes() else { return };
    let mut journal = Journal::running(100_000);
    for _ in 0..200 {
        drop(open_tracepoint("sched/sched_process_hang"));
    }
    wait(&reader, Duration::from_millis(100));
    reader.drain(&mut journal);
    let entries: Vec<Entry> = journal.entries().cloned().collect();
    let seen = pokes_by_us(&entries).len();
    // At least one poke on and one off each time.
    assert!(seen >= 400 || journal.lost() > 0, "{seen} pokes, {} lost", journal.lost());
}

#[test]
#[ignore = "root"]
fn everybody_who_listens_hears_the_same() {
    // The kernel makes records longer for each further listener (see journal/record.rs).
    let mut readers: Vec<_> = (0..4).map(|_| JournalReader::open().unwrap()).collect();
    let name = LiveViews::open().raise_event().unwrap();
    for reader in &mut readers {
        let ours = |entry: &Entry| match &entry.change {
            Change::Symbol { name: seen, .. } => *seen == name,
            Change::TextPoke { .. } | Change::Module { .. } => false,
        };
        let heard = take_until(reader, |entries| entries.iter().any(ours));
        let heard = heard.iter().find(|entry| ours(entry)).unwrap();
        assert_eq!(heard.actor.pid, std::process::id());
        assert!(heard.time_ns > 0);
    }
}

#[test]
#[ignore = "root"]
fn what_did_not_fit_is_told_by_the_next_take() {
    let mut reader = JournalReader::open().unwrap();
    let views = LiveViews::open();
    // One ring takes them all: whoever loads programs stays on one CPU.
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &cpus).unwrap();
    // A record has at least 48 bytes, each event two of them and a ring 256 KiB at most.
    const EVENTS: usize = 3000;
    for _ in 0..EVENTS {
        views.raise_event().unwrap();
    }
    let taken = reader.take();
    assert!(taken.lost > 0, "{} entries of {}", taken.entries.len(), 2 * EVENTS);
    // Nothing came since. What the kernel says of the loss later is not told again.
    let name = views.raise_event().unwrap();
    let after = reader.take();
    assert_eq!(after.lost, 0, "{name}");
}
