// SPDX-License-Identifier: Apache-2.0
//! 26 clients at once. What one of them does wrong, the others do not feel.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client_process::Client;
use crate::host::{Daemon, PROGRAM, make_program, program};
use crate::roles::{DEAD, DENIED};

const CLIENTS: usize = 26;
/// Of these.
const OBSERVERS: usize = CLIENTS - 5;
const EXECS: usize = 150;
/// How long the argument of each is: what is told of them is several of the smallest rings.
const ARGUMENT: usize = 3000;
/// The deadline of the grants, which the one that floods may need as its own flood takes the room for answers that
/// come before their question. 0.4 s were seen on a host of two processors with five guests.
const AT_MOST: Duration = Duration::from_secs(2);

fn start(role: &str, number: usize) -> anyhow::Result<Client> {
    Client::start(&["be", role, &format!("org.example.crowd{number}")])
}

pub(crate) fn run() -> anyhow::Result<()> {
    make_program()?;
    std::fs::copy(PROGRAM, DENIED)?;
    let mut daemon = Daemon::start()?;
    let slow = start("slow", 0)?;
    let deciding = start("deciding", 2)?;
    let flooding = start("flooding", 3)?;
    let hostile = start("hostile", 4)?;
    let observers = (CLIENTS - OBSERVERS..CLIENTS).map(|number| start("observer", number));
    let observers = observers.collect::<anyhow::Result<Vec<_>>>()?;
    // The last one: who starts after it waits for it, and it would have lost its right to be asked before the first
    // program runs.
    let dead = start("dead", 1)?;
    println!("ok: {CLIENTS} clients have a session");

    let (mut pids, mut times) = (Vec::new(), Vec::new());
    let mut dead = Some(dead);
    for number in 0..EXECS {
        if number == EXECS / 2 {
            dead.take().context("it is there until now")?.kill()?;
        }
        let started = Instant::now();
        let mut child =
            program().arg("x".repeat(ARGUMENT)).spawn().context("the program is not executed")?;
        pids.push(child.id());
        ensure!(child.wait()?.success(), "the program failed");
        times.push(started.elapsed());
    }
    println!("ok: {EXECS} programs ran");
    let waited = times.iter().filter(|time| **time >= DEAD).count();
    let longest = times.iter().max().copied().unwrap_or_default();
    ensure!(waited > 0, "nobody waited for the client that is dead: {times:?}");
    ensure!(longest < AT_MOST, "one took {longest:?}: {times:?}");
    println!(
        "ok: who waited for a client went on at its deadline, {} ms at most",
        longest.as_millis()
    );
    ensure!(times.last().is_some_and(|last| *last < DEAD), "the last one took {:?}", times.last());
    println!("ok: in the end nobody waits for it any more");

    // It executes as well, as long as it is there, and who observes is told of that.
    let flooding = flooding.end()?;
    ensure!(number(&flooding, "asked")? > 0, "the flooding one was not asked: {flooding:?}");
    ensure!(number(&flooding, "sent")? > 2 * EXECS, "it did not flood: {flooding:?}");
    let denied = number(&flooding, "denied")?;
    ensure!(denied > 0, "it tried nothing that another client denies: {flooding:?}");
    println!("ok: of the one that floods only what it was asked and had not answered counted");
    println!(
        "ok: and nothing that others were asked: {denied} programs that one denies were denied"
    );

    let wanted: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut told = Vec::new();
    for observer in observers {
        let said = observer.end()?;
        let seen = said.iter().find_map(|line| line.strip_prefix("pids "));
        let seen: Vec<&str> = seen.context("it says no pids")?.split(' ').collect();
        ensure!(number(&said, "lost")? == 0, "an observer lost something: {said:?}");
        ensure!(seen == wanted, "an observer saw {seen:?}, and not {wanted:?}");
        told.push(number(&said, "execs")?);
    }
    println!("ok: {OBSERVERS} observers saw every exec, in order and with no gap");
    ensure!(number(&flooding, "lost")? == 0, "the flooding one lost something: {flooding:?}");

    let slow = slow.end()?;
    let seen = slow.iter().find_map(|line| line.strip_prefix("pids ")).unwrap_or_default();
    ensure!(!seen.is_empty(), "the slow one saw nothing: {slow:?}");
    let mut all = wanted.iter();
    let in_order = seen.split_whitespace().all(|pid| all.any(|wanted| wanted == pid));
    ensure!(in_order, "the slow one saw {seen}, of {wanted:?}");
    println!("ok: the slow one saw what it saw in order");
    // What the first observer was told of, and the execs of the three clients before it and of itself.
    let first = told.first().context("no observer")?;
    let (execs, lost) = (number(&slow, "execs")?, number(&slow, "lost")?);
    ensure!(lost > 0, "the slow one lost nothing, of {first}");
    ensure!(execs + lost == first + 4, "{execs} told, {lost} lost, of {first} and 4: {slow:?}");
    println!(
        "ok: it lost {lost}, which is exactly what it was not told of, and nobody else lost any"
    );
    deciding.end()?;
    hostile.end()?;
    ensure!(daemon.ended()?.is_none(), "ringfenced has ended");
    println!("ok: the one that writes nonsense has ended, and ringfenced is there");
    Ok(())
}

/// A number that a client said by its name.
fn number(said: &[String], name: &str) -> anyhow::Result<usize> {
    let found = said.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(found.with_context(|| format!("no {name} in {said:?}"))?.parse()?)
}
