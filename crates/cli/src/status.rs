// SPDX-License-Identifier: Apache-2.0
//! `ringfence status`: how ringfenced is, and what this host gives its clients.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::Ending;
use crate::control::{Daemon, Socket};
use crate::screen::{Output, Style, Tone, wrap};

/// Show how ringfenced is, and what this host gives its clients
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    socket: Socket,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Three replies of the daemon, as api/ringfence.varlink has them.
#[derive(Debug, Serialize)]
struct All {
    version: Version,
    status: Status,
    coverage: Vec<Coverage>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Version {
    version: String,
    boot_id: String,
    kernel: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Status {
    uptime: u64,
    sessions: u64,
    connections: u64,
    grants: u64,
    unavailable: u64,
    problems: Vec<Problem>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Problem {
    area: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Matrix {
    coverage: Vec<Coverage>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Coverage {
    event: String,
    area: String,
    stage: String,
    notify: Availability,
    rule: Availability,
    ask: Availability,
}

#[derive(Debug, Deserialize, Serialize)]
struct Availability {
    state: String,
    mechanism: Option<String>,
    reason: Option<String>,
}

/// Runs the subcommand. Exit status 1 says that a grant is wrong; what a host cannot give is none
/// of its faults.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut daemon = Daemon::connect(&arguments.socket)?;
    let all = All {
        version: daemon.call("GetVersion")?,
        status: daemon.call("GetStatus")?,
        coverage: daemon.call::<Matrix>("GetCoverage")?.coverage,
    };
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&all)?)
    } else {
        render(&all, Style::of_stdout())
    };
    Output::stdout().put(&text)?;
    let wrong = all.status.problems.iter().any(|problem| problem.area == "grants");
    Ok(if wrong { Ending::Findings } else { Ending::Clean })
}

fn render(all: &All, style: Style) -> String {
    let All { version, status, coverage } = all;
    let up = Duration::from_nanos(status.uptime).as_secs();
    let mut text = format!(
        "ringfenced {} on {}, up {}:{:02}:{:02}\n{} of {} granted clients connected, {} \
         connections\n",
        version.version,
        version.kernel,
        up / 3600,
        up / 60 % 60,
        up % 60,
        status.sessions,
        status.grants,
        status.connections,
    );
    for problem in status.problems.iter().filter(|problem| problem.area != "coverage") {
        for line in problem.reason.lines() {
            text.push_str(&format!("{}\n", style.paint(Tone::Bad, line)));
        }
    }
    text.push_str(&format!("\n{}\n", style.paint(Tone::Heading, "Events")));
    for row in coverage {
        text.push_str(&format!("  {:<20}", row.event));
        for class in [&row.notify, &row.rule, &row.ask] {
            text.push_str(&format!(
                "  {}",
                style.paint(tone(class), &format!("{:<11}", word(class)))
            ));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        for reason in reasons(row) {
            for line in wrap(reason, style.width().saturating_sub(24)) {
                text.push_str(&format!("{:24}{}\n", "", style.paint(Tone::Faint, &line)));
            }
        }
    }
    text
}

fn word(class: &Availability) -> &str {
    match class.state.as_str() {
        "undefined" => "-",
        state => state,
    }
}

fn tone(class: &Availability) -> Tone {
    match class.state.as_str() {
        "available" => Tone::Good,
        "reduced" => Tone::Unknown,
        "unavailable" => Tone::Bad,
        _ => Tone::Faint,
    }
}

/// Each reason of a row once.
fn reasons(row: &Coverage) -> Vec<&str> {
    let mut reasons: Vec<&str> = Vec::new();
    for class in [&row.notify, &row.rule, &row.ask] {
        if let Some(reason) = class.reason.as_deref()
            && !reasons.contains(&reason)
        {
            reasons.push(reason);
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_shown_with_its_reason_once() {
        let missing = json!({ "state": "unavailable", "reason": "no BPF LSM" });
        let coverage = json!({
            "event": "process_exec", "area": "process", "stage": "candidate",
            "notify": { "state": "available", "mechanism": "tp_btf" },
            "rule": missing, "ask": missing,
        });
        let all = All {
            version: Version { version: "1".into(), boot_id: "b".into(), kernel: "6.18".into() },
            status: Status {
                uptime: 3_661_000_000_000,
                sessions: 1,
                connections: 2,
                grants: 3,
                unavailable: 0,
                problems: vec![Problem { area: "grants".into(), reason: "a.toml:1:2: no".into() }],
            },
            coverage: vec![serde_json::from_value(coverage).unwrap()],
        };
        let text = render(&all, Style::plain());
        for part in [
            "ringfenced 1 on 6.18, up 1:01:01\n1 of 3 granted clients connected, 2 connections\n",
            "a.toml:1:2: no\n",
            "  process_exec          available    unavailable  unavailable\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(text.matches("no BPF LSM").count(), 1);
    }
}
