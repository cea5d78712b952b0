// SPDX-License-Identifier: Apache-2.0
//! What a client does. Each says `ready`, and ends with its input.

use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use sdk::abi::{Class, Event, EventType, Record};
use sdk::{SessionOptions, Subscription, Verdict, Verdicts};

use crate::client_process::{is_over, say};
use crate::host::{LIMIT, PROGRAM};

const EXEC: EventType = EventType::ProcessExec;
const STEP: Duration = Duration::from_millis(20);
/// The smallest ring there is.
const SMALL: u64 = 128 << 10;
/// What one client denies.
pub(crate) const DENIED: &str = "/tried/denied";
/// How long a client that is dead is waited for.
pub(crate) const DEAD: Duration = Duration::from_millis(300);

pub(crate) fn run(role: &str, client: &str) -> anyhow::Result<()> {
    match role {
        "observer" => observe(client, None, Duration::ZERO),
        "slow" => observe(client, Some(SMALL), Duration::from_secs(1)),
        "deciding" => decide(client),
        "dead" => be_dead(client),
        "flooding" => flood(client),
        "hostile" => be_hostile(client),
        other => anyhow::bail!("no role {other}"),
    }
}

/// Who executed the program, if that is what a record tells of.
fn executed(record: Record<'_>) -> Option<u32> {
    let Event::ProcessExec(exec) = record.event() else { return None };
    (exec.path() == PROGRAM.as_bytes()).then(|| record.actor().map_or(0, |actor| actor.process.pid))
}

/// Is told of execs, and says at its end who executed the program, how many execs it was told of, and what it
/// lost: by the gaps in its stream, by what it was told of that, and by what the daemon counted. Takes its time for
/// each record.
fn observe(client: &str, ring: Option<u64>, each: Duration) -> anyhow::Result<()> {
    let mut options = SessionOptions::new(client);
    if let Some(bytes) = ring {
        options = options.ring_bytes(bytes);
    }
    let mut session = options.open()?;
    session.subscribe(&[Subscription::new(EXEC, [Class::Notify])])?;
    say("ready")?;
    let (mut pids, mut execs, mut missed, mut told) = (Vec::new(), 0, 0, 0);
    let mut ended = None;
    loop {
        if ended.is_none() && is_over()? {
            ended = Some(Instant::now());
        }
        let mut events = session.events();
        if let Some(event) = events.next(Some(STEP))? {
            missed += event.missed;
            pids.extend(executed(event.record).map(|pid| pid.to_string()));
            match event.record.event() {
                Event::ProcessExec(_) => execs += 1,
                Event::Loss(loss) => told += loss.records,
                other => anyhow::bail!("it was told of {other:?}"),
            }
            // What is left in the ring at the end is read at once.
            if ended.is_none() {
                std::thread::sleep(each);
            }
        } else if let Some(ended) = ended {
            // What was lost is told of as soon as there is room again.
            let lost = session.statistics()?.lost;
            if told == lost {
                say(&format!("execs {execs}"))?;
                say(&format!("lost {lost}"))?;
                anyhow::ensure!(missed == lost, "gaps of {missed}, and {lost} lost");
                return say(&format!("pids {}", pids.join(" ")));
            }
            anyhow::ensure!(ended.elapsed() < LIMIT, "{lost} lost, and told of {told}");
        }
    }
}

/// Allows all but one program, which it denies after a while.
fn decide(client: &str) -> anyhow::Result<()> {
    let mut session = SessionOptions::new(client).open()?;
    session.subscribe(&[Subscription::new(EXEC, [Class::Ask])])?;
    say("ready")?;
    while !is_over()? {
        let mut events = session.events();
        let Some(event) = events.next(Some(STEP))? else { continue };
        match event.record.event() {
            Event::ProcessExec(exec) if exec.path() == DENIED.as_bytes() => {
                std::thread::sleep(2 * STEP);
                event.answer(Verdict::deny(libc::EACCES.unsigned_abs()))?;
            }
            _ if event.record.is_ask() => event.answer(Verdict::allow().cacheable())?,
            _ => {}
        }
    }
    Ok(session.close()?)
}

/// Is asked, and never reads anything.
fn be_dead(client: &str) -> anyhow::Result<()> {
    let mut session = SessionOptions::new(client).open()?;
    let asked = Subscription { deadline: Some(DEAD), ..Subscription::new(EXEC, [Class::Ask]) };
    session.subscribe(&[asked])?;
    say("ready")?;
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
    std::thread::sleep(LIMIT);
    Ok(())
}

/// Answers each question twice; and, all the time, what is long over, what is never asked, what is still to be
/// asked, and what others are asked.
fn flood(client: &str) -> anyhow::Result<()> {
    let mut session = SessionOptions::new(client).open()?;
    session.subscribe(&[Subscription::new(EXEC, [Class::Notify, Class::Ask])])?;
    let verdicts = session.verdicts().context("it cannot answer")?;
    say("ready")?;
    let (mut asked, mut programs, mut sent, mut denied, mut last) = (0, 0, 0u64, 0, 0);
    while !is_over()? {
        let mut ours = false;
        {
            let mut events = session.events();
            if let Some(event) = events.next(Some(STEP))?
                && event.record.is_ask()
            {
                last = event.record.header().event_id;
                // Either may be refused, as this client's own flood takes the room for answers that come
                // before their question: so both allow.
                event.answer(Verdict::allow())?;
                let _ = event.answer(Verdict::allow());
                asked += 1;
                ours = executed(event.record).is_some();
            }
        }
        for number in 0..100 {
            // Nobody reads the refusals, so the socket may be full.
            let mut send =
                |event, verdict| sent += u64::from(verdicts.send(event, verdict).is_ok());
            send(last.saturating_sub(10_000 + number), Verdict::deny(1));
            send(last + (1 << 40) + number, Verdict::deny(1));
            // What it is still to be asked it could deny, which would be its right.
            send(last + number, Verdict::allow());
        }
        if ours {
            if programs % 10 == 0 {
                execute_denied(&verdicts, last)?;
                denied += 1;
            }
            programs += 1;
        }
    }
    let lost = session.statistics()?.lost;
    for (name, number) in [("asked", asked), ("sent", sent), ("denied", denied), ("lost", lost)] {
        say(&format!("{name} {number}"))?;
    }
    Ok(())
}

/// Executes what another client denies, and meanwhile answers in its place. Who starts a program is not asked
/// about it, so the question is one of others.
fn execute_denied(verdicts: &Verdicts, last: u64) -> anyhow::Result<()> {
    let over = AtomicBool::new(false);
    let came = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for number in 0..100 {
                    let _ = verdicts.send(last + number, Verdict::allow());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let came = Command::new(DENIED).arg0("busybox").arg("true").stdin(Stdio::null()).status();
        over.store(true, Ordering::Relaxed);
        came
    });
    let error = came.err().and_then(|error| error.raw_os_error());
    anyhow::ensure!(
        error == Some(libc::EACCES),
        "it was executed, or not for the denial: {error:?}"
    );
    Ok(())
}

/// Writes nonsense where the kernel looks for what it has read, and to the daemon.
fn be_hostile(client: &str) -> anyhow::Result<()> {
    let mut session = SessionOptions::new(client).open()?;
    session.subscribe(&[Subscription::new(EXEC, [Class::Notify])])?;
    let page = memmap2::MmapOptions::new().len(4096).map_raw(&own_ring()?)?;
    // SAFETY: the mapping is a page, page-aligned, and lives as long as this function; that somebody
    // else reads and writes the word is what an atomic is for.
    let consumer = unsafe { AtomicU64::from_ptr(page.as_mut_ptr().cast()) };
    say("ready")?;
    let (mut number, mut connections) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    while !is_over()? {
        for _ in 0..1000 {
            // xorshift64
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            consumer.store(number, Ordering::Release);
        }
        let mut garbage = UnixStream::connect(sdk::SOCKET)?;
        let bytes: Vec<u8> = number.to_le_bytes().repeat(1 + number as usize % 64);
        // The daemon may be done with it before it has all.
        let _ = garbage.write_all(&bytes);
        connections += 1;
        std::thread::sleep(STEP);
    }
    say(&format!("connections {connections}"))
}

/// The ring's descriptor of this process.
fn own_ring() -> anyhow::Result<OwnedFd> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().parse::<i32>()?;
        if std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("bpf-map"))
        {
            // SAFETY: dup gives a descriptor of its own, or a negative number.
            let copy = unsafe { libc::dup(number) };
            anyhow::ensure!(copy >= 0, "cannot copy the descriptor of the ring");
            // SAFETY: the descriptor was just made, for nobody else.
            return Ok(unsafe { OwnedFd::from_raw_fd(copy) });
        }
    }
    anyhow::bail!("no descriptor of this process is a ring")
}
