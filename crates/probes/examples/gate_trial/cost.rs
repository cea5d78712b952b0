// SPDX-License-Identifier: Apache-2.0
//! What a question costs, by the clock. Under QEMU's `-icount shift=0` a nanosecond is an instruction.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::programs::Programs;
use crate::remote::Remote;
use crate::tasks::{End, Task, make_program};

/// Enough for the fork of the task not to count.
const TIMES: u32 = 1000;
/// The least of so many tries is taken: what else the machine does only adds.
const TRIES: u32 = 5;

/// Nanoseconds of one mapping.
fn one() -> anyhow::Result<u128> {
    let mut least = u128::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        let (end, _) = Task::map(TIMES)?.end(Duration::from_secs(300))?;
        ensure!(end == End::Done, "{end:?}");
        least = least.min(start.elapsed().as_nanos() / u128::from(TIMES));
    }
    Ok(least)
}

/// On one processor, this process and all that it starts: on which one a task wakes must not count.
fn stay() -> anyhow::Result<()> {
    let mut first = rustix::thread::CpuSet::new();
    first.set(0);
    Ok(rustix::thread::sched_setaffinity(None, &first)?)
}

pub(crate) fn run() -> anyhow::Result<()> {
    stay()?;
    make_program()?;
    let mut programs = Programs::load()?;
    let mut daemon = Remote::start(&mut programs)?;
    let nobody = one()?;
    programs.askers(0, 1);
    let before = daemon.stats()?.asked;
    let asked = one()?;
    let questions = daemon.stats()?.asked - before;
    ensure!(questions == u64::from(TIMES * TRIES), "{questions} questions");
    daemon.tell("keep")?;
    Task::map(1)?.end(Duration::from_secs(10))?;
    let before = daemon.stats()?.asked;
    let known = one()?;
    ensure!(daemon.stats()?.asked == before, "asked although the answer was known");
    println!(
        "cost of a mapping, ns: nobody asks {nobody}, answer known {known} (+{}), asked {asked} (+{})",
        known.saturating_sub(nobody),
        asked.saturating_sub(nobody)
    );
    Ok(())
}
