// SPDX-License-Identifier: Apache-2.0
//! What it costs an exec that clients are told of it, as the kernel itself counts it.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Instant;

use clients::{Client, EXEC, LARGE, Programs, process_hooks, run};
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::ProgInfoIter;

const ROUNDS: u32 = 300;

/// How often the program on exec ran and how long in all, in nanoseconds. Of several with that name the
/// one that was loaded last is ours.
fn runs() -> (u64, u64) {
    let ours = ProgInfoIter::default().filter(|info| info.name.to_str() == Some("process_exec"));
    let ours = ours.max_by_key(|info| info.id).unwrap();
    (ours.run_cnt, ours.run_time_ns)
}

#[test]
#[ignore = "root: loads BPF programs"]
fn an_exec_costs_nothing_without_observers_and_little_for_each_further_one() {
    // SAFETY: a plain system call; the descriptor is ours alone. Counting ends as it is closed.
    let _counting = unsafe {
        OwnedFd::from_raw_fd(libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME))
    };
    let mut hooks = process_hooks();
    let programs = Programs::new();
    let program = programs.copy("true");
    let mut clients: Vec<_> =
        (0..26).map(|slot| Client::admit(&mut hooks, slot, LARGE, &[])).collect();
    let mut costs = Vec::new();
    for observers in [0, 1, 8, 26] {
        for client in &clients {
            let types = if client.slot < observers { EXEC.bit() } else { 0 };
            hooks.subscribe(client.slot, types).unwrap();
        }
        let before = runs();
        let started = Instant::now();
        for _ in 0..ROUNDS {
            run(&program, &[]);
        }
        let wall = started.elapsed() / ROUNDS;
        let after = runs();
        let (count, time) = (after.0 - before.0, after.1 - before.1);
        let each = time.checked_div(count).unwrap_or(0);
        println!("{observers:2} observers: {each:6} ns of the program in an exec of {wall:?}");
        costs.push((count, each));
        for client in &mut clients {
            client.take();
            client.seen.clear();
        }
    }
    let [(count, _), (_, one), (_, eight), (_, many)] = costs[..] else { panic!("{costs:?}") };
    assert_eq!(count, 0, "the program is attached although nobody subscribes");
    assert!(costs[1..].iter().all(|(count, _)| *count >= u64::from(ROUNDS)));
    // A record is built once, so 26 cost much less than 26 times as much.
    assert!(many < 13 * one && eight < 6 * one, "{costs:?}");
}
