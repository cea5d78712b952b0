// SPDX-License-Identifier: Apache-2.0
//! A client that is asked about one type of event, and answers as its arguments say:
//! `decide CLIENT EVENT allow | deny ERRNO | deny-second ERRNO | never [DEADLINE_MS]`. It says `ready`, and
//! then a line for each question: what it is about. It ends with its input.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use sdk::abi::{Class, Event, EventType};
use sdk::{SessionOptions, Subscription, Verdict};

use crate::client_process::{is_over, say};
use crate::deeds::PROGRAM;

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
