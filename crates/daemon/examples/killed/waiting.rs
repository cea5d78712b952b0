// SPDX-License-Identifier: Apache-2.0
//! 100 programs wait for a verdict as the daemon is killed: each goes on as the grant says.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client_process::Client;
use crate::host::{Daemon, make_program, program};

const WAITING: usize = 100;
/// From the end of the daemon until the last one has gone on.
const AT_MOST: Duration = Duration::from_secs(10);

pub(crate) fn run() -> anyhow::Result<()> {
    make_program()?;
    for (policy, wanted) in [("allow", None), ("deny", Some(libc::EPERM))] {
        one(policy, wanted).with_context(|| format!("ringfenced_gone = {policy}"))?;
    }
    Ok(())
}

fn one(policy: &str, wanted: Option<i32>) -> anyhow::Result<()> {
    let mut daemon = Daemon::start()?;
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
        daemon.end(true)?;
        let killed = Instant::now();
        while !threads.iter().all(|thread| thread.is_finished()) {
            ensure!(killed.elapsed() < AT_MOST, "some still wait");
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("ok: {policy}: all go on, {} ms after", killed.elapsed().as_millis());
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

    ensure!(program().status()?.success(), "a program without a daemon failed");
    let _daemon = Daemon::start()?;
    let line = client.line()?;
    ensure!(line == "resumed", "the client says {line:?}");
    ensure!(program().status()?.success(), "a program that is allowed failed");
    ensure!(client.line()? == "asked", "the client is not asked any more");
    println!("ok: {policy}: the client goes on with the next daemon");
    client.end()?;
    Ok(())
}
