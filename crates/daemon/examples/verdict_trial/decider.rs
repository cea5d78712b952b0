// SPDX-License-Identifier: Apache-2.0
//! A client that is asked about one type of event, and answers as its arguments say:
//! `decide CLIENT EVENT allow | deny ERRNO | deny-second ERRNO | never [DEADLINE_MS]`. It says `ready`, and
//! then a line for each question: what it is about. It ends with its input.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use sdk::abi::{Class, Event, EventType};
use sdk::{SessionOptions, Subscription, Verdict};

use crate::client_process::{is_over, say};
use crate::deeds::PROGRAM;
use crate::programs::executed;

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [client, event, policy, number, rest @ ..] = arguments else {
        anyhow::bail!("usage: decide CLIENT EVENT POLICY NUMBER [DEADLINE_MS]");
    };
    let event = EventType::ALL.iter().copied().find(|known| known.name() == *event);
    let event = event.context("no such event")?;
    let error: u32 = number.parse()?;
    let deadline = rest.first().map(|number| number.parse().map(Duration::from_millis));
    let deadline = deadline.transpose()?;
    let mut session = SessionOptions::new(client).open()?;
    session.subscribe(&[Subscription { deadline, ..Subscription::new(event, [Class::Ask]) }])?;
    say("ready")?;
    let mut asked = 0;
    while !is_over()? {
        let mut events = session.events();
        let Some(event) = events.next(Some(Duration::from_millis(50)))? else { continue };
        if !event.record.is_ask() {
            continue;
        }
        asked += 1;
        match policy.as_str() {
            "deny-second" if asked < 2 => event.answer(Verdict::allow())?,
            "allow" => event.answer(Verdict::allow().cacheable())?,
            "deny" | "deny-second" => event.answer(Verdict::deny(error))?,
            _ => {}
        }
        let about = match event.record.event() {
            Event::ProcessExec(exec) => exec.path().escape_ascii().to_string(),
            Event::ImageMap(map) => map.path().escape_ascii().to_string(),
            Event::ModuleLoad(load) => load.path().escape_ascii().to_string(),
            Event::KexecLoad(load) => load.path().escape_ascii().to_string(),
            Event::BpfLoad(load) => {
                format!("{} {}", load.name().escape_ascii(), load.instructions)
            }
            Event::FileOpen(open) => {
                format!("{} {}", open.path().escape_ascii(), open.access)
            }
            other => anyhow::bail!("asked about {other:?}"),
        };
        say(&about)?;
    }
    Ok(session.close()?)
}

/// `resume CLIENT`: one that is asked what is executed and denies it, in a session whose connection broke and that
/// was taken up again. When its input ends it executes the program that is tried, and says the errno, 0 for none.
pub(crate) fn resume(client: &str) -> anyhow::Result<()> {
    let connection = UnixStream::connect(sdk::SOCKET)?;
    let broken = connection.try_clone()?;
    let mut session = SessionOptions::new(client).open_over(connection.into())?;
    session.subscribe(&[Subscription::new(EventType::ProcessExec, [Class::Ask])])?;
    broken.shutdown(Shutdown::Both)?;
    let began = Instant::now();
    // The daemon may not know it yet.
    while let Err(error) = session.reconnect(Path::new(sdk::SOCKET)) {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    say("ready")?;
    let mut own: Option<JoinHandle<_>> = None;
    loop {
        if own.is_none() && is_over()? {
            own = Some(std::thread::spawn(|| executed(PROGRAM)));
        }
        if let Some(ended) = own.take_if(|own| own.is_finished()) {
            let came = ended.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
            say(&came.err().unwrap_or(0).to_string())?;
            return Ok(session.close()?);
        }
        let mut events = session.events();
        let Some(event) = events.next(Some(Duration::from_millis(50)))? else { continue };
        if let Event::ProcessExec(exec) = event.record.event()
            && event.record.is_ask()
        {
            event.answer(Verdict::deny(libc::EPERM.unsigned_abs()))?;
            say(&exec.path().escape_ascii().to_string())?;
        }
    }
}

/// `watch CLIENT`: one that is told of what is executed and asked about nothing. When its input ends it executes the
/// program that is tried, in its own place, and says the errno.
pub(crate) fn watch(client: &str) -> anyhow::Result<()> {
    let mut session = SessionOptions::new(client).open()?;
    session.subscribe(&[Subscription::new(EventType::ProcessExec, [Class::Notify])])?;
    say("ready")?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    let failed = Command::new(PROGRAM).exec();
    say(&failed.raw_os_error().unwrap_or_default().to_string())
}
