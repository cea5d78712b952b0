// SPDX-License-Identifier: Apache-2.0
//! `ringfence events`: what happens, as ringfenced's clients are told of it.

mod json;
mod line;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;
use std::time::Duration;

use abi::{Class, Event, EventType};
use anyhow::bail;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use sdk::{EventClasses, RingError, Session, SessionError};

use crate::Ending;
use crate::clock::Clock;
use crate::screen::{Output, Style};

/// Show what happens on this host, live, as clients of ringfenced are told of it
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Socket of ringfenced
    #[arg(long, value_name = "PATH", default_value = sdk::SOCKET)]
    socket: PathBuf,
    /// Which client to be: the name of a grant
    #[arg(long, value_name = "NAME", default_value = "ringfence-events")]
    client: String,
    /// Only events of this type; all that the grant gives if there is none. What concerns the session
    /// itself, such as losses, is always shown
    #[arg(long = "type", value_name = "TYPE", value_parser = event_types())]
    types: Vec<EventType>,
    /// Print one JSON object a line, as docs/events.md describes it
    #[arg(long)]
    json: bool,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// How much is put together before it is printed, in bytes, while more events wait.
const BATCH: usize = 64 << 10;

fn event_types() -> impl TypedValueParser<Value = EventType> {
    let names = EventType::ALL.iter().filter(|event| !event.is_of_session());
    PossibleValuesParser::new(names.map(|event| event.name()))
        .try_map(|name| EventType::from_name(&name).ok_or("no such type"))
}

/// Runs the subcommand, until it is ended, there were as many events as wanted, or the daemon ends.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut session = Session::open_at(&arguments.socket, &arguments.client, None)?;
    let wanted = wanted(&session.opened().grant, &arguments.types);
    if wanted.is_empty() {
        bail!("the grant `{}` has no event of which it may be told", arguments.client);
    }
    session.subscribe(&wanted)?;
    show(&mut session, arguments)
}

/// What to subscribe to. What was asked for and is not granted is left to the daemon, which says why.
fn wanted(grant: &[EventClasses], types: &[EventType]) -> Vec<EventClasses> {
    let told = |event| EventClasses::new(event, [Class::Notify]);
    if !types.is_empty() {
        return types.iter().copied().map(told).collect();
    }
    let granted = grant.iter().filter(|granted| granted.classes.contains(&Class::Notify));
    granted.map(|granted| told(granted.event)).collect()
}

fn show(session: &mut Session, arguments: &Arguments) -> anyhow::Result<Ending> {
    let clock = Clock::of_boot();
    let style = Style::of_stdout();
    let mut output = Output::stdout();
    let mut events = session.events();
    let mut text = String::new();
    let (mut shown, mut told_of_end) = (0, false);
    while arguments.count.is_none_or(|count| shown < count) && !output.is_closed() {
        // What is there is printed before anything is waited for.
        let patience = (!text.is_empty()).then_some(Duration::ZERO);
        let event = match events.next(patience) {
            Ok(Some(event)) => event,
            Ok(None) => {
                output.put(&std::mem::take(&mut text))?;
                continue;
            }
            Err(SessionError::Ring(error @ RingError::Record { .. })) => {
                eprintln!("ringfence: {:#}", anyhow::Error::from(error));
                continue;
            }
            Err(SessionError::Ended) if told_of_end => break,
            Err(error) => {
                output.put(&text)?;
                return Err(error.into());
            }
        };
        told_of_end |= matches!(event.record.event(), Event::ShuttingDown(_));
        if arguments.json {
            let line = json::Line::of(&event.record, event.sequence, event.missed, clock);
            text.push_str(&serde_json::to_string(&line)?);
        } else {
            if event.missed > 0 {
                text.push_str(&line::gap(event.missed, style));
                text.push('\n');
            }
            text.push_str(&line::line(&event.record, clock, style));
        }
        text.push('\n');
        shown += 1;
        if text.len() > BATCH {
            output.put(&std::mem::take(&mut text))?;
        }
    }
    output.put(&text)?;
    Ok(Ending::Clean)
}
