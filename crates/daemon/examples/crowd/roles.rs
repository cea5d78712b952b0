// SPDX-License-Identifier: Apache-2.0
//! What a client does. Each says `ready`, and ends with its input.

use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sdk::abi::{Class, Event, EventType, Record};
use sdk::{SessionOptions, Subscription, Verdict};

use crate::client_process::{is_over, say};
use crate::host::{LIMIT, PROGRAM};

const EXEC: EventType = EventType::ProcessExec;
const STEP: Duration = Duration::from_millis(20);
/// The smallest ring there is.
const SMALL: u64 = 128 << 10;
/// How long a client that is dead is waited for.
pub(crate) const DEAD: Duration = Duration::from_millis(300);

pub(crate) fn run(role: &str, client: &str) -> anyhow::Result<()> {
    match role {
        "observer" => observe(client, None, Duration::ZERO),
        "slow" => observe(client, Some(SMALL), Duration::from_millis(200)),
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

/// Is told of execs, and says at its end who executed the program, and how much it missed. Takes its
/// time for each record.
fn observe(client: &str, ring: Option<u64>, each: Duration) -> anyhow::Result<()> {
    let mut options = SessionOptions::new(client);
    if let Some(bytes) = ring {
        options = options.ring_bytes(bytes);
    }
    let mut session = options.open()?;
    session.subscribe(&[Subscription::new(EXEC, [Class::Notify])])?;
    say("ready")?;
    let (mut pids, mut missed) = (Vec::new(), 0);
    loop {
        let over = is_over()?;
        let mut events = session.events();
        let Some(event) = events.next(Some(STEP))? else {
            if over {
                break;
            }
            continue;
        };
        missed += event.missed;
        pids.extend(executed(event.record).map(|pid| pid.to_string()));
        // What is left in the ring at the end is read at once.
        if !over {
            std::thread::sleep(each);
        }
    }
    say(&format!("missed {missed}"))?;
    say(&format!("pids {}", pids.join(" ")))
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

/// Answers each question twice, and many that nobody asked.
fn flood(client: &str) -> anyhow::Result<()> {
    let mut session = SessionOptions::new(client).open()?;
    session.subscribe(&[Subscription::new(EXEC, [Class::Notify, Class::Ask])])?;
    say("ready")?;
    let (mut asked, mut sent) = (0, 0u64);
    while !is_over()? {
        let mut last = 0;
        {
            let mut events = session.events();
            if let Some(event) = events.next(Some(STEP))? {
                last = event.record.header().event_id;
                if event.record.is_ask() {
                    // Either may be refused, as this client's own flood takes the room for answers that come
                    // before their question: so both allow.
                    event.answer(Verdict::allow())?;
                    let _ = event.answer(Verdict::allow());
                    asked += 1;
                }
            }
        }
        // About what is long over or was never asked; what is still to be asked it could deny. Nobody reads
        // the refusals, so the socket may be full.
        for number in 0..200 {
            let event = last.saturating_sub(10_000 + number);
            sent += u64::from(session.verdict(event, Verdict::deny(1)).is_ok());
        }
    }
    say(&format!("asked {asked}"))?;
    say(&format!("sent {sent}"))
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
