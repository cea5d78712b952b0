// SPDX-License-Identifier: Apache-2.0
//! `ringfence slow`: which clients of ringfenced hold tasks up, and which do not keep up with their
//! records.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::Ending;
use crate::control::Query;
use crate::report_text::duration;
use crate::screen::{Style, Tone, grouped};

/// Show which clients are slow: what their verdicts take, and what they missed and lost
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    query: Query,
}

#[derive(Debug, Deserialize, Serialize)]
struct Clients {
    clients: Vec<Client>,
}

/// Of the reply to GetClients what has to do with time, as api/ringfence.varlink has it.
#[derive(Debug, Deserialize, Serialize)]
struct Client {
    client: String,
    ring_bytes: u64,
    ring_waiting: u64,
    demoted: Vec<String>,
    counts: Counts,
    questions: Questions,
    verdicts: Vec<Verdicts>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Counts {
    written: u64,
    lost: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Questions {
    asked: u64,
    cached: u64,
    missed: u64,
    queue_full: u64,
    died: u64,
}

/// Times are nanoseconds.
#[derive(Debug, Deserialize, Serialize)]
struct Verdicts {
    event: String,
    count: u64,
    missed: u64,
    median: u64,
    p99: u64,
    longest: u64,
    total: u64,
}

/// A ring that is fuller than that is about to lose records.
const NEARLY_FULL_PERCENT: u64 = 75;

/// Runs the subcommand. Exit status 1 says that some client is slow: it missed deadlines, is not asked
/// any more, lost records or is about to.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut clients: Clients = arguments.query.daemon()?.call("GetClients")?;
    // Who takes longest comes first; those who are asked nothing keep their order.
    clients.clients.sort_by_key(|client| std::cmp::Reverse((client.is_slow(), client.worst())));
    arguments.query.show(&clients, render)?;
    let slow = clients.clients.iter().any(Client::is_slow);
    Ok(if slow { Ending::Findings } else { Ending::Clean })
}

impl Client {
    fn full_percent(&self) -> u64 {
        (self.ring_waiting * 100).checked_div(self.ring_bytes).unwrap_or(0)
    }

    fn is_slow(&self) -> bool {
        self.questions.missed > 0
            || self.questions.queue_full > 0
            || self.counts.lost > 0
            || !self.demoted.is_empty()
            || self.full_percent() >= NEARLY_FULL_PERCENT
    }

    fn worst(&self) -> u64 {
        self.verdicts.iter().map(|verdicts| verdicts.p99).max().unwrap_or(0)
    }
}

fn render(clients: &Clients, style: Style) -> String {
    if clients.clients.is_empty() {
        return "Nobody is connected.\n".to_owned();
    }
    let mut text = String::new();
    for client in &clients.clients {
        let (tone, word) =
            if client.is_slow() { (Tone::Bad, "slow") } else { (Tone::Good, "keeps up") };
        let name = style.paint(Tone::Heading, &client.client);
        text.push_str(&format!("{name}  {}\n", style.paint(tone, word)));
        for verdicts in &client.verdicts {
            text.push_str(&format!("  {}\n", line(verdicts, style)));
        }
        let Questions { asked, cached, queue_full, died, .. } = client.questions;
        if asked + cached + queue_full > 0 {
            let full = alarming(queue_full, "not asked for lack of place", style);
            text.push_str(&format!(
                "  asked {}, known before {}, {full}, open as it ended {died}\n",
                grouped(asked),
                grouped(cached),
            ));
        } else {
            text.push_str("  not asked anything\n");
        }
        if !client.demoted.is_empty() {
            let demoted = format!("not asked any more: {}", client.demoted.join(", "));
            text.push_str(&format!("  {}\n", style.paint(Tone::Bad, &demoted)));
        }
        text.push_str(&format!(
            "  ring {} % full, {} records written, {}\n",
            client.full_percent(),
            grouped(client.counts.written),
            alarming(client.counts.lost, "lost", style)
        ));
    }
    text
}

/// What verdicts on one type of event took.
fn line(verdicts: &Verdicts, style: Style) -> String {
    let time = |nanoseconds| duration(Duration::from_nanos(nanoseconds));
    format!(
        "{:<20}  {} verdicts, median {}, p99 {}, longest {}, {}",
        verdicts.event,
        grouped(verdicts.count),
        time(verdicts.median),
        time(verdicts.p99),
        time(verdicts.longest),
        alarming(verdicts.missed, "too late or never", style)
    )
}

/// A number that should be 0.
fn alarming(count: u64, what: &str, style: Style) -> String {
    let tone = if count == 0 { Tone::Faint } else { Tone::Bad };
    style.paint(tone, &format!("{} {what}", grouped(count)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn client(changes: &[(&str, Value)]) -> Client {
        let mut client = json!({
            "client": "com.example.sensor", "ring_bytes": 1 << 20, "ring_waiting": 1 << 18,
            "demoted": [], "counts": { "written": 1000, "lost": 0 },
            "questions": { "asked": 1200, "cached": 7, "missed": 0, "queue_full": 0, "died": 0 },
            "verdicts": [{ "event": "process_exec", "count": 1200, "missed": 0,
                "median": 1_500_000, "p99": 9_000_000, "longest": 20_000_000, "total": 1 }],
            "added later": true,
        });
        for (pointer, value) in changes {
            *client.pointer_mut(pointer).unwrap() = value.clone();
        }
        serde_json::from_value(client).unwrap()
    }

    #[test]
    fn a_client_is_shown_with_what_its_verdicts_took() {
        let clients = vec![client(&[("/verdicts/0/missed", json!(3))])];
        let text = render(&Clients { clients }, Style::plain());
        for part in [
            "com.example.sensor  keeps up\n",
            "process_exec          1,200 verdicts, median 1.50 ms, p99 9.00 ms, longest 20.0 ms, 3 too late",
            "asked 1,200, known before 7, 0 not asked for lack of place, open as it ended 0\n",
            "ring 25 % full, 1,000 records written, 0 lost\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn who_misses_loses_or_is_about_to_is_slow() {
        assert!(!client(&[]).is_slow());
        for change in [
            ("/questions/missed", json!(1)),
            ("/questions/queue_full", json!(1)),
            ("/counts/lost", json!(1)),
            ("/demoted", json!(["process_exec"])),
            ("/ring_waiting", json!((1 << 20) * 3 / 4)),
        ] {
            assert!(client(std::slice::from_ref(&change)).is_slow(), "{change:?}");
        }
    }

    #[test]
    fn who_is_asked_nothing_has_no_times() {
        let asked = json!({ "asked": 0, "cached": 0, "missed": 0, "queue_full": 0, "died": 0 });
        let clients = vec![client(&[("/verdicts", json!([])), ("/questions", asked)])];
        let text = render(&Clients { clients }, Style::plain());
        assert!(text.contains("  not asked anything\n"), "{text}");
    }
}
