// SPDX-License-Identifier: Apache-2.0
//! Prints each program that is executed: `observer [SOCKET]`. Its grant
//! (examples/grants/observer.toml) has process_exec with the class notify.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use sdk::abi::{Class, Event, EventType};
use sdk::{RingError, SOCKET, SessionError, SessionOptions, Subscription};

fn main() -> anyhow::Result<()> {
    let socket = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
    let users = users();
    let mut session = SessionOptions::new("org.example.observer").socket(&socket).open()?;
    session.subscribe(&[Subscription::new(EventType::ProcessExec, [Class::Notify])])?;
    let mut events = session.events();
    let mut output = std::io::stdout().lock();
    loop {
        let event = match events.next(None) {
            Ok(Some(event)) => event,
            Ok(None) | Err(SessionError::Ended) => return Ok(()),
            // One record that makes no sense is no reason to miss the next.
            Err(SessionError::Ring(error @ RingError::Record { .. })) => {
                eprintln!("observer: {error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if event.missed > 0 {
            writeln!(output, "({} records were lost here)", event.missed)?;
        }
        let (Event::ProcessExec(exec), Some(actor)) = (event.record.event(), event.record.actor())
        else {
            continue;
        };
        let unknown = actor.uid.to_string();
        let user = users.get(&actor.uid).unwrap_or(&unknown);
        let path = exec.path().escape_ascii();
        let (pid, parent) = (actor.process.pid, actor.parent.pid);
        writeln!(output, "{path} pid {pid} parent {parent} user {user}")?;
    }
}

/// Names of users by their ids, as they are now.
fn users() -> HashMap<u32, String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
            Some((id.parse().ok()?, name.to_owned()))
        })
        .collect()
}
