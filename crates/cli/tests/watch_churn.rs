// SPDX-License-Identifier: Apache-2.0
//! A thousand rounds ($RINGFENCE_CHURN_ROUNDS says how many) of attaching and detaching while
//! `ringfence watch` runs: legitimate changes are never a finding, and each is journaled with the
//! process behind it.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys as sys;
use support::Watch;

/// How many rounds: a thousand, unless a slow machine such as a guest of the lab asks for fewer.
fn rounds() -> usize {
    match std::env::var("RINGFENCE_CHURN_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("RINGFENCE_CHURN_ROUNDS is no number"),
        Err(_) => 1000,
    }
}

/// Tracepoints that hardly ever fire, so that nothing slows down. The first that the kernel has is
/// used.
const RARE: [&CStr; 4] =
    [c"oom_score_adj_update", c"cgroup_mkdir", c"cgroup_attach_task", c"task_rename"];

#[test]
#[ignore = "root"]
fn a_thousand_rounds_of_tracing_are_journaled_with_their_owner_and_are_no_finding() {
    let rounds = rounds();
    let tracepoint = RARE.into_iter().find(|name| attach_raw(load("probe", None), name).is_ok());
    let tracepoint = tracepoint.expect("no raw tracepoint could be attached");
    let btf_id = btf_id_of(tracepoint).expect("the kernel's BTF has no type for the tracepoint");
    let perf_id = support::tracepoint_id(tracepoint.to_str().unwrap());

    let mut watch = Watch::start(&[]);
    watch.until("the first pass", |event| event["event"] == "pass");
    let started = Instant::now();
    for round in 0..rounds {
        let attached = match round % 3 {
            0 => attach_raw(load("churn_raw", None), tracepoint).unwrap(),
            1 => attach_raw(load("churn_btf", Some(btf_id)), c"").unwrap(),
            _ => open_perf(perf_id).unwrap(),
        };
        drop(attached);
    }
    let took = started.elapsed();
    // Programs are freed after a grace period, their removal comes later than their end.
    std::thread::sleep(Duration::from_secs(3));
    let (status, events) = watch.stop();

    let named = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    let findings: Vec<_> = events.iter().filter(|event| event["event"] == "finding").collect();
    assert!(findings.is_empty(), "{findings:#?}");
    assert_eq!(status.code(), Some(0));
    let last = events.iter().rfind(|event| event["event"] == "pass").unwrap();
    assert_eq!(last["journal_lost"], 0);

    let us = std::process::id();
    let journal = |change: &str, name: &str| {
        let mut owners = Vec::new();
        for event in events.iter().filter(|event| event["event"] == "journal") {
            let symbol = event["symbol"].as_str().unwrap_or_default();
            if event["change"] == change && symbol.contains(name) {
                owners.push((event["owner"]["pid"].clone(), event["added_by"]["pid"].clone()));
            }
        }
        owners
    };
    for (name, count) in [("churn_raw", rounds.div_ceil(3)), ("churn_btf", (rounds + 1) / 3)] {
        let added = journal("symbol-added", name);
        assert_eq!(added.len(), count, "{name}");
        assert!(added.iter().all(|(owner, _)| *owner == us), "{name}: {added:?}");
        let removed = journal("symbol-removed", name);
        assert_eq!(removed.len(), count, "{name}");
        assert!(removed.iter().all(|(_, added_by)| *added_by == us), "{name}");
    }
    println!(
        "{rounds} rounds in {took:?}; {} passes, {} journal entries",
        named("pass"),
        named("journal")
    );
    // Attaching to a tracepoint turns its jump labels on and its static call to the handler;
    // detaching turns both back.
    let pokes = journal("text-poke", "");
    let ours = pokes.iter().filter(|(owner, _)| *owner == us).count();
    match support::announces_text_pokes() {
        Ok(()) => assert!(ours >= rounds * 4, "{ours} text pokes are ours of {}", pokes.len()),
        // Then the passes alone stand behind the changes, and the watch must have said so.
        Err(reason) => {
            println!("text pokes were not looked for: {reason}");
            assert_eq!(pokes.len(), 0);
            let start = events.iter().find(|event| event["event"] == "start").unwrap();
            let notices = start["notices"].to_string();
            assert!(notices.contains("announces new code only"), "{notices}");
        }
    }
}

#[test]
#[ignore = "root"]
fn hooks_that_stay_for_a_pass_are_told_with_their_owner_when_they_come_and_when_they_go() {
    const ROUNDS: usize = 300;
    let tracepoint = RARE.into_iter().find(|name| attach_raw(load("probe", None), name).is_ok());
    let tracepoint = tracepoint.expect("no raw tracepoint could be attached");
    let btf_id = btf_id_of(tracepoint).expect("the kernel's BTF has no type for the tracepoint");
    let perf_id = support::tracepoint_id(tracepoint.to_str().unwrap());

    let mut watch = Watch::start(&["--period", "0.02", "--only", "text,jump_labels,hooks"]);
    watch.until("the first pass", |event| event["event"] == "pass");
    for round in 0..ROUNDS {
        let (attached, owner) = match round % 3 {
            0 => (attach_raw(load("seen_raw", None), tracepoint).unwrap(), "seen_raw"),
            1 => (attach_raw(load("seen_btf", Some(btf_id)), c"").unwrap(), "seen_btf"),
            _ => (open_perf(perf_id).unwrap(), "perf_trace_"),
        };
        let is = |event: &serde_json::Value, kind: &str| {
            let hook = &event["hook"];
            event["event"] == kind
                && hook["mechanism"] == "tracepoint"
                && hook["target"] == tracepoint.to_str().unwrap()
                && (hook["owner"].to_string() + &hook["handler"].to_string()).contains(owner)
        };
        watch.until("the hook that came", |event| is(event, "hooked"));
        drop(attached);
        watch.until("the hook that went", |event| is(event, "unhooked"));
    }
    let (status, events) = watch.stop();
    let findings: Vec<_> = events.iter().filter(|event| event["event"] == "finding").collect();
    assert!(findings.is_empty(), "{findings:#?}");
    assert_eq!(status.code(), Some(0));
}

/// Only what the first test does in its rounds, for whoever watches by himself (the lab's scenario churn).
#[test]
#[ignore = "root"]
fn programs_attach_and_detach() {
    let rounds = std::env::var("RINGFENCE_ATTACH_ROUNDS").map(|rounds| rounds.parse().unwrap());
    for _ in 0..rounds.unwrap_or(1) {
        let mut attached = Vec::new();
        for tracepoint in RARE {
            attached.extend(attach_raw(load("churn_raw", None), tracepoint));
            if let Ok(btf_id) = btf_id_of(tracepoint) {
                attached.extend(attach_raw(load("churn_btf", Some(btf_id)), c""));
            }
        }
        assert!(!attached.is_empty(), "no raw tracepoint could be attached");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Loads a program that does nothing: `r0 = 0; exit` (include/uapi/linux/bpf.h, struct bpf_insn).
fn load(name: &str, btf_id: Option<u32>) -> OwnedFd {
    let mut instructions: [sys::bpf_insn; 2] = Default::default();
    instructions[0].code = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
    instructions[1].code = 0x95; // BPF_JMP | BPF_EXIT
    let name = CString::new(name).unwrap();
    let mut options = sys::bpf_prog_load_opts {
        sz: mem::size_of::<sys::bpf_prog_load_opts>() as _,
        ..Default::default()
    };
    let mut kind = sys::BPF_PROG_TYPE_RAW_TRACEPOINT;
    if let Some(btf_id) = btf_id {
        kind = sys::BPF_PROG_TYPE_TRACING;
        options.expected_attach_type = sys::BPF_TRACE_RAW_TP;
        options.attach_btf_id = btf_id;
    }
    // SAFETY: all pointers lead to values that outlive the call, which only reads them; the count is
    // that of the array.
    let fd = unsafe {
        sys::bpf_prog_load(
            kind,
            name.as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as _,
            &raw mut options,
        )
    };
    owned(fd).expect("loading a BPF program")
}

/// Attaches a program and gives the link; the program lives as long as that.
fn attach_raw(program: OwnedFd, tracepoint: &CStr) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    // A program with a BTF id knows its tracepoint and takes no name.
    let name = if tracepoint.is_empty() { std::ptr::null() } else { tracepoint.as_ptr() };
    // SAFETY: the name is null or a string that outlives the call; the descriptor is open.
    owned(unsafe { sys::bpf_raw_tracepoint_open(name, program.as_raw_fd()) })
}

/// The BTF id of `btf_trace_<name>`, which stands for the tracepoint.
fn btf_id_of(tracepoint: &CStr) -> io::Result<u32> {
    // SAFETY: the name is a string that outlives the call.
    let id = unsafe { sys::libbpf_find_vmlinux_btf_id(tracepoint.as_ptr(), sys::BPF_TRACE_RAW_TP) };
    u32::try_from(id).map_err(|_| io::Error::from_raw_os_error(-id))
}

/// A perf event on a tracepoint, for this thread: `PERF_TYPE_TRACEPOINT` with the smallest
/// attribute there is, `PERF_ATTR_SIZE_VER0` (include/uapi/linux/perf_event.h).
fn open_perf(id: u64) -> io::Result<OwnedFd> {
    const SIZE: u32 = 64;
    const TRACEPOINT: u32 = 2;
    const CLOEXEC: libc::c_ulong = 8;
    let mut attribute = [0_u64; SIZE as usize / 8];
    attribute[0] = u64::from(TRACEPOINT) | u64::from(SIZE) << 32;
    attribute[1] = id;
    let (thread, any_cpu, no_group) = (0, -1, -1);
    // SAFETY: the attribute has the size that it says and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attribute.as_ptr(),
            thread,
            any_cpu,
            no_group,
            CLOEXEC,
        )
    };
    owned(fd as RawFd)
}

/// A descriptor from a call that gives one, or a negative number and errno.
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just made it and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
