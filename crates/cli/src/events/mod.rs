// SPDX-License-Identifier: Apache-2.0
//! `ringfence events`: what happens, as ringfenced's clients are told of it.

mod filter;
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
use sdk::{Coverage, EventClasses, RingError, Session, SessionError, SessionOptions, Subscription};

use self::filter::Filter;
use crate::Ending;
use crate::clock::Clock;
use crate::screen::{Output, Style};

/// Show what happens on this host, live, as clients of ringfenced are told of it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Socket of ringfenced
    #[arg(long, value_name = "PATH", default_value = sdk::SOCKET)]
    socket: PathBuf,
    /// Which client to be: the name of a grant
    #[arg(long, value_name = "NAME", default_value = "io.ringfence.events")]
    client: String,
    /// Only events of this type; all that the grant gives if there is none. What concerns the session
    /// itself, such as losses, is always shown
    #[arg(long = "type", value_name = "TYPE", value_parser = event_types())]
    types: Vec<EventType>,
    /// Only events for which this holds, a condition as rules have them (docs/rules.md); if it is given
    /// several times, for which all hold
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Print one JSON object a line, as docs/events.md describes it
    #[arg(long)]
    json: bool,
    /// With each event its record as it came, in hexadecimal: for `ringfence explain-event`
    #[arg(long, requires = "json")]
    record: bool,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

const EXAMPLES: &str = "\
Example: ringfence events --where 'file.path = \"/tmp\"' --where 'actor.uid = 0'";

/// How much is put together before it is printed, in bytes, while more events wait.
const BATCH: usize = 64 << 10;

fn event_types() -> impl TypedValueParser<Value = EventType> {
    let names = EventType::ALL.iter().filter(|event| !event.is_of_session());
    PossibleValuesParser::new(names.map(|event| event.name()))
        .try_map(|name| EventType::from_name(&name).ok_or("no such type"))
}

/// Runs the subcommand, until it is ended, there were as many events as wanted, or the daemon ends.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let filter = Filter::of(&arguments.conditions, &arguments.types)?;
    let mut session = SessionOptions::new(&arguments.client).socket(&arguments.socket).open()?;
    let subscriptions = if arguments.types.is_empty() {
        let coverage = session.coverage()?;
        let (mut subscriptions, missing) = all(&session.opened().grant, &coverage);
        if !missing.is_empty() {
            eprintln!(
                "ringfence: this host does not tell of {}; `ringfence status` says why",
                missing.join(", ")
            );
        }
        if let Some(filter) = &filter {
            subscriptions.retain(|one| filter.is_of(one.classes.event));
        }
        subscriptions
    } else {
        // What is not granted or not there is left to the daemon, which says why.
        let types = arguments.types.iter().copied();
        types.filter(|event| filter.as_ref().is_none_or(|f| f.is_of(*event))).map(told).collect()
    };
    if subscriptions.is_empty() {
        let selected = if filter.is_some() { " and that can be selected so" } else { "" };
        let client = &arguments.client;
        bail!("the grant `{client}` has no event of which it may be told here{selected}");
    }
    session.subscribe(&subscriptions)?;
    show(&mut session, filter.as_ref(), arguments)
}

fn told(event: EventType) -> Subscription {
    Subscription::new(event, [Class::Notify])
}

/// All events of which the grant lets this client be told and this host tells, and the names of those
/// of which this host does not.
fn all(grant: &[EventClasses], coverage: &[Coverage]) -> (Vec<Subscription>, Vec<&'static str>) {
    let there = |event: EventType| {
        let found = coverage.iter().find(|coverage| coverage.number == event.number());
        found.is_some_and(|c| matches!(c.notify.state.as_str(), "available" | "reduced"))
    };
    let granted = grant.iter().filter(|granted| granted.classes.contains(&Class::Notify));
    let (here, missing): (Vec<_>, Vec<_>) =
        granted.map(|granted| granted.event).partition(|event| there(*event));
    let missing = missing.into_iter().map(EventType::name).collect();
    (here.into_iter().map(told).collect(), missing)
}

fn show(
    session: &mut Session,
    filter: Option<&Filter>,
    arguments: &Arguments,
) -> anyhow::Result<Ending> {
    let clock = Clock::of_boot();
    let style = Style::of_stdout();
    let mut output = Output::stdout();
    let mut events = session.events();
    let mut text = String::new();
    let (mut shown, mut missed, mut told_of_end) = (0, 0, false);
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
        // What was lost might have been shown.
        missed += event.missed;
        if !filter.is_none_or(|filter| filter.shows(&event.record)) {
            continue;
        }
        let missed = std::mem::take(&mut missed);
        told_of_end |= matches!(event.record.event(), Event::ShuttingDown(_));
        if arguments.json {
            let line = json::Line::of(&event.record, event.sequence, missed, clock);
            let line = if arguments.record { line.with_record(&event.record) } else { line };
            text.push_str(&serde_json::to_string(&line)?);
        } else {
            if missed > 0 {
                text.push_str(&line::gap(missed, style));
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
