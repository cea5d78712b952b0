// SPDX-License-Identifier: Apache-2.0
//! 26 clients at once. What one of them does wrong, the others do not feel.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client_process::Client;
use crate::host::{Daemon, make_program, program};
use crate::roles::DEAD;

const CLIENTS: usize = 26;
const EXECS: usize = 150;
/// The deadline of the grants, which the one that floods may need, and what an exec takes besides on an
/// emulated processor.
const AT_MOST: Duration = Duration::from_secs(2 + 2);

fn start(role: &str, number: usize) -> anyhow::Result<Client> {
    Client::start(&["be", role, &format!("org.example.crowd{number}")])
}

pub(crate) fn run() -> anyhow::Result<()> {
    make_program()?;
    let mut daemon = Daemon::start()?;
    let slow = start("slow", 0)?;
    let dead = start("dead", 1)?;
    let flooding = start("flooding", 2)?;
    let hostile = start("hostile", 3)?;
    let observers = (4..CLIENTS).map(|number| start("observer", number));
    let observers = observers.collect::<anyhow::Result<Vec<_>>>()?;
    println!("ok: {CLIENTS} clients have a session");

    let (mut pids, mut times) = (Vec::new(), Vec::new());
    let mut dead = Some(dead);
    for number in 0..EXECS {
        if number == EXECS / 2 {
            dead.take().context("it is there until now")?.kill()?;
        }
        let started = Instant::now();
        let mut child = program().spawn().context("the program is not executed")?;
        pids.push(child.id());
        ensure!(child.wait()?.success(), "the program failed");
        times.push(started.elapsed());
    }
    println!("ok: {EXECS} programs ran");
    let waited = times.iter().filter(|time| **time >= DEAD).count();
    let longest = times.iter().max().copied().unwrap_or_default();
    ensure!(waited > 0, "nobody waited for the client that is dead: {times:?}");
    ensure!(longest < AT_MOST, "one took {longest:?}: {times:?}");
    println!("ok: who waited for a client went on at its deadline");
    ensure!(times.last().is_some_and(|last| *last < DEAD), "the last one took {:?}", times.last());
    println!("ok: in the end nobody waits for it any more");

    let wanted: Vec<String> = pids.iter().map(u32::to_string).collect();
    for observer in observers {
        let said = observer.end()?;
        let seen = said.iter().find_map(|line| line.strip_prefix("pids "));
        let seen: Vec<&str> = seen.context("it says no pids")?.split(' ').collect();
        ensure!(
            said.iter().any(|line| line == "missed 0"),
            "an observer missed something: {said:?}"
        );
        ensure!(seen == wanted, "an observer saw {seen:?}, and not {wanted:?}");
    }
    println!("ok: {} observers saw every exec, in order and with no gap", CLIENTS - 4);

    let slow = slow.end()?;
    let seen = slow.iter().find_map(|line| line.strip_prefix("pids ")).unwrap_or_default();
    ensure!(!seen.is_empty(), "the slow one saw nothing: {slow:?}");
    let mut all = wanted.iter();
    let in_order = seen.split_whitespace().all(|pid| all.any(|wanted| wanted == pid));
    ensure!(in_order, "the slow one saw {seen}, of {wanted:?}");
    println!("ok: the slow one saw what it saw in order");
    let flooding = flooding.end()?;
    let number = |name: &str| -> anyhow::Result<usize> {
        let found = flooding.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.with_context(|| format!("no {name} in {flooding:?}"))?.parse()?)
    };
    ensure!(number("asked")? > 0, "the flooding one was not asked: {flooding:?}");
    ensure!(number("sent")? > 2 * EXECS, "it did not flood: {flooding:?}");
    println!("ok: of the one that floods only what it was asked and had not answered counted");
    hostile.end()?;
    ensure!(daemon.ended()?.is_none(), "ringfenced has ended");
    println!("ok: the one that writes nonsense has ended, and ringfenced is there");
    Ok(())
}
