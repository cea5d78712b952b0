// SPDX-License-Identifier: Apache-2.0
//! What a client does. Each says `ready`, and ends with its input.

use std::time::{Duration, Instant};

use sdk::abi::{Class, Event, EventType, Record};
use sdk::{Session, SessionError, Subscription, Verdict};

use crate::client_process::{is_over, say};
use crate::host::{LIMIT, PROGRAM};

const EXEC: EventType = EventType::ProcessExec;
const STEP: Duration = Duration::from_millis(20);

/// What the client `ruling` installs.
pub(crate) const RULES: &str = "[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"deny\"\n\
                                error = \"EACCES\"\nfile.path = \"/tried/denied\"\n";

pub(crate) fn run(role: &str, client: &str) -> anyhow::Result<()> {
    match role {
        "silent" => be_silent(client),
        "ruling" => rule(client),
        other => anyhow::bail!("no role {other}"),
    }
}

fn is_of_the_program(record: Record<'_>) -> bool {
    matches!(record.event(), Event::ProcessExec(exec) if exec.path() == PROGRAM.as_bytes())
}

/// Is asked and never answers, but says each question about the program. When the daemon is there again it
/// opens a new session, says so, and from then on allows everything.
fn be_silent(client: &str) -> anyhow::Result<()> {
    let mut session = opened(client)?;
    session.subscribe(&[Subscription::new(EXEC, [Class::Ask])])?;
    say("ready")?;
    let mut again = false;
    while !is_over()? {
        let mut events = session.events();
        match events.next(Some(STEP)) {
            Ok(Some(event)) if event.record.is_ask() => {
                let ours = is_of_the_program(event.record);
                if again || !ours {
                    event.answer(Verdict::allow())?;
                }
                if ours {
                    say("asked")?;
                }
            }
            Ok(_) => {}
            Err(SessionError::Ended) => {
                session = opened(client)?;
                session.subscribe(&[Subscription::new(EXEC, [Class::Ask])])?;
                again = true;
                say("resumed")?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Installs the rules once. When the daemon is there again it opens a new session, says how many rules it
/// has, and takes them away when it is told to.
fn rule(client: &str) -> anyhow::Result<()> {
    let mut session = opened(client)?;
    session.install_rules(RULES)?;
    say("ready")?;
    while !is_over()? {
        match session.events().next(Some(STEP)) {
            Ok(_) => {}
            Err(SessionError::Ended) => {
                session = opened(client)?;
                let rules = session.rules()?.map_or(0, |rules| rules.rules.len());
                say(&format!("rules {rules}"))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    session.install_rules("")?;
    Ok(())
}

/// A session with the daemon that runs, or with the one that comes next.
fn opened(client: &str) -> anyhow::Result<Session> {
    let began = Instant::now();
    loop {
        match Session::open(client) {
            Ok(session) => return Ok(session),
            Err(error) if began.elapsed() > LIMIT => return Err(error.into()),
            Err(_) => std::thread::sleep(STEP),
        }
    }
}
