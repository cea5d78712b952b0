// SPDX-License-Identifier: Apache-2.0
//! `ringfence clients`: who is connected to ringfenced, what each gets and what it lost.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::Ending;
use crate::control::Query;
use crate::screen::{Style, Tone};

/// Show who is connected to ringfenced, what each gets and what it lost
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    query: Query,
}

/// The reply to GetClients. Fields are as api/ringfence.varlink has them; those that are added
/// later are skipped.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Clients {
    pub(crate) clients: Vec<Client>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Client {
    client: String,
    process: ProcessKey,
    uid: u32,
    executable: Option<String>,
    digest: Option<String>,
    altitude: String,
    connected: bool,
    since: u64,
    ring_bytes: u64,
    subscriptions: Vec<EventClasses>,
    demoted: Vec<String>,
    mutes: u64,
    inverted: bool,
    counts: Counts,
}

#[derive(Debug, Deserialize, Serialize)]
struct ProcessKey {
    pid: u32,
    start: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct EventClasses {
    event: String,
    classes: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Counts {
    written: u64,
    lost: u64,
}

/// Runs the subcommand. Exit status 1 says that a client lost records or is not asked any more.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let clients: Clients = arguments.query.daemon()?.call("GetClients")?;
    arguments.query.show(&clients, render)?;
    let well = clients.clients.iter().all(Client::is_well);
    Ok(if well { Ending::Clean } else { Ending::Findings })
}

impl Client {
    fn is_well(&self) -> bool {
        self.counts.lost == 0 && self.demoted.is_empty()
    }
}

/// Clients by altitude, the highest first, as they are asked.
fn render(clients: &Clients, style: Style) -> String {
    if clients.clients.is_empty() {
        return "Nobody is connected.\n".to_owned();
    }
    let mut text = String::new();
    for client in &clients.clients {
        let heading = style.paint(Tone::Heading, &client.client);
        let state = if client.connected { "" } else { ", not connected at the moment" };
        text.push_str(&format!(
            "{heading}  altitude {}, pid {}, uid {}{state}\n",
            client.altitude, client.process.pid, client.uid
        ));
        let executable = client.executable.as_deref().unwrap_or("no path on this host");
        text.push_str(&format!("  runs      {executable}\n"));
        for (index, had) in client.subscriptions.iter().enumerate() {
            let heading = if index == 0 { "has" } else { "" };
            let classes = had.classes.join(", ");
            text.push_str(&format!("  {heading:<8}  {:<20}  {classes}\n", had.event));
        }
        if client.subscriptions.is_empty() {
            text.push_str("  has       no events yet\n");
        }
        if client.mutes > 0 || client.inverted {
            let only = if client.inverted { ", inverted: only what they name" } else { "" };
            text.push_str(&format!("  mutes     {}{only}\n", client.mutes));
        }
        let counts = &client.counts;
        let lost = format!("{} lost", counts.lost);
        let tone = if counts.lost == 0 { Tone::Faint } else { Tone::Bad };
        text.push_str(&format!(
            "  ring      {} KiB, {} written, {}\n",
            client.ring_bytes / 1024,
            counts.written,
            style.paint(tone, &lost)
        ));
        if !client.demoted.is_empty() {
            let demoted = format!("not asked any more: {}", client.demoted.join(", "));
            text.push_str(&format!("  demoted   {}\n", style.paint(Tone::Bad, &demoted)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(lost: u64, demoted: &[&str]) -> Client {
        serde_json::from_value(serde_json::json!({
            "client": "com.example.sensor",
            "process": { "pid": 42, "start": 7 },
            "uid": 990,
            "executable": "/opt/sensor",
            "altitude": "320500.25",
            "connected": true,
            "since": 1,
            "ring_bytes": 1 << 20,
            "subscriptions": [{ "event": "process_exec", "classes": ["notify", "ask"] }],
            "demoted": demoted,
            "mutes": 2,
            "inverted": true,
            "counts": { "written": 1000, "lost": lost },
            "added later": true,
        }))
        .unwrap()
    }

    #[test]
    fn a_client_is_shown_with_what_it_has_and_lost() {
        let clients = Clients { clients: vec![client(3, &["process_exec"])] };
        let text = render(&clients, Style::plain());
        for part in [
            "com.example.sensor  altitude 320500.25, pid 42, uid 990\n",
            "  has       process_exec          notify, ask\n",
            "  mutes     2, inverted",
            "  ring      1024 KiB, 1000 written, 3 lost\n",
            "  demoted   not asked any more: process_exec\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn loss_and_demotion_are_not_well() {
        assert!(client(0, &[]).is_well());
        assert!(!client(1, &[]).is_well());
        assert!(!client(0, &["process_exec"]).is_well());
    }
}
