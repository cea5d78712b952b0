// SPDX-License-Identifier: Apache-2.0
//! 100 programs wait for a verdict as the daemon is killed, or stopped: each goes on as the grant says.

use std::io;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client_process::Client;
use crate::host::{Daemon, LIMIT, make_program, program};

const WAITING: usize = 100;
/// When a daemon that does nothing is given up: `GateOptions::watchdog`, crates/probes/src/gate/mod.rs. One that
/// is killed is given up at once, because the kernel closes its /dev/fuse.
const WATCHDOG: Duration = Duration::from_secs(2);
/// What a hundred tasks on an emulated processor need to go on, and to say so, while the host has other
/// guests: 0.3 s were seen on a quiet one, 0.8 s on one with five guests. So those whose daemon is killed have gone
/// on before a watchdog would have looked.
const MARGIN: Duration = WATCHDOG;

pub(crate) fn run() -> anyhow::Result<()> {
    make_program()?;
    let mut daemon = Daemon::start()?;
    for (policy, wanted) in [("allow", None), ("deny", Some(libc::EPERM))] {
        for hangs in [false, true] {
            let what = || format!("ringfenced_gone = {policy}, hangs: {hangs}");
            daemon = one(daemon, policy, wanted, hangs).with_context(what)?;
        }
    }
    Ok(())
}

/// Gives the next daemon.
fn one(
    mut daemon: Daemon,
    policy: &str,
    wanted: Option<i32>,
    hangs: bool,
) -> anyhow::Result<Daemon> {
    let at_most = if hangs { WATCHDOG + MARGIN } else { MARGIN };
    let mut client = Client::start(&["be", "silent", &format!("org.example.killed-{policy}")])?;
    let outcomes = std::thread::scope(|scope| -> anyhow::Result<Vec<io::Result<bool>>> {
        let run = || program().status().map(|status| status.success());
        let mut threads: Vec<_> = (0..WAITING).map(|_| scope.spawn(run)).collect();
        for _ in 0..WAITING {
            let line = client.line()?;
            ensure!(line == "asked", "the client says {line:?}");
        }
        if let Some(early) = threads.iter().position(|thread| thread.is_finished()) {
            let came_to = threads.swap_remove(early).join();
            anyhow::bail!("number {early} did not wait: {came_to:?}");
        }
        println!("ok: {policy}: {WAITING} programs wait");
        let began = Instant::now();
        if hangs { daemon.stop() } else { daemon.end(true) }?;
        let all_finished =
            |threads: &[ScopedJoinHandle<'_, _>]| threads.iter().all(ScopedJoinHandle::is_finished);
        // Not given up at once, so that they do go on: else they would be held for good.
        while !all_finished(&threads) && began.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = began.elapsed();
        ensure!(took < at_most, "they waited for {took:?}, {at_most:?} at most");
        let how = if hangs { "hangs" } else { "is killed" };
        println!("ok: {policy}: as the daemon {how} all go on, {} ms after", took.as_millis());
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|one| one.map_err(|_| anyhow::anyhow!("a thread panicked"))).collect()
    })?;
    for outcome in &outcomes {
        match (outcome, wanted) {
            (Ok(true), None) => {}
            (Err(error), Some(errno)) if error.raw_os_error() == Some(errno) => {}
            other => anyhow::bail!("one came to {other:?}"),
        }
    }
    println!("ok: {policy}: each as declared");

    if hangs {
        daemon.end(true)?;
    }
    ensure!(program().status()?.success(), "a program without a daemon failed");
    let next = Daemon::start()?;
    let line = client.line()?;
    ensure!(line == "resumed", "the client says {line:?}");
    ensure!(program().status()?.success(), "a program that is allowed failed");
    ensure!(client.line()? == "asked", "the client is not asked any more");
    println!("ok: {policy}: the client goes on with the next daemon");
    client.end()?;
    Ok(next)
}
