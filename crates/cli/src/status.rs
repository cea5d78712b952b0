// SPDX-License-Identifier: Apache-2.0
//! `ringfence status`: how ringfenced is, and what this host gives its clients.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::Ending;
use crate::clock::boot_time_ns;
use crate::control::Query;
use crate::screen::{Style, Tone, wrap};

/// Show how ringfenced is, and what this host gives its clients
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    query: Query,
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
    guard: Guard,
    problems: Vec<Problem>,
}

/// Times are of CLOCK_BOOTTIME, in nanoseconds.
#[derive(Debug, Deserialize, Serialize)]
struct Guard {
    state: String,
    program: Option<String>,
    pid: Option<u32>,
    since: Option<u64>,
    starts: u64,
    passes: u64,
    last_pass: Option<u64>,
    found: u64,
    standing: u64,
    bad_lines: u64,
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

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut daemon = arguments.query.daemon()?;
    let all = All {
        version: daemon.call("GetVersion")?,
        status: daemon.call("GetStatus")?,
        coverage: daemon.call::<Matrix>("GetCoverage")?.coverage,
    };
    arguments.query.show(&all, render)?;
    Ok(if is_well(&all.status) { Ending::Clean } else { Ending::Findings })
}

/// Whether somebody has to look: at a finding that stands, a guard that does not watch although it is to, or
/// a grant with a mistake. What a host cannot give is no fault.
fn is_well(status: &Status) -> bool {
    let wrong = |problem: &Problem| ["grants", "guard"].contains(&&*problem.area);
    status.guard.standing == 0 && !status.problems.iter().any(wrong)
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
    text.push_str(&format!("{}\n", guard(&status.guard, style)));
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

/// How the guard is, in a line; why it is not is among the problems.
fn guard(guard: &Guard, style: Style) -> String {
    let now = boot_time_ns();
    let ago = |time: Option<u64>| {
        let span = Duration::from_nanos(now.saturating_sub(time.unwrap_or(now)));
        if span < Duration::from_secs(100) {
            format!("{:.1} s", span.as_secs_f64())
        } else {
            format!("{} min", span.as_secs() / 60)
        }
    };
    let (tone, findings) = match guard.standing {
        0 => (Tone::Good, "no findings".to_owned()),
        1 => (Tone::Bad, "1 finding".to_owned()),
        many => (Tone::Bad, format!("{many} findings")),
    };
    let findings = style.paint(tone, &findings);
    let pid = guard.pid.map(|pid| format!(" as pid {pid}")).unwrap_or_default();
    let since = ago(guard.since);
    match guard.state.as_str() {
        "off" => "guard: none, as ringfenced was told (--no-guard)".to_owned(),
        "starting" => {
            format!("guard: began {since} ago{pid}, in its first pass; {findings} so far")
        }
        "watching" => format!(
            "guard: {findings}; watching{pid} for {since}, {} passes, the last {} ago",
            guard.passes,
            ago(guard.last_pass)
        ),
        state => format!("guard: {state} {since} ago, after {} passes", guard.passes),
    }
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

    /// A guard with these fields, and the rest as of one that is not there.
    fn of_guard(fields: serde_json::Value) -> Guard {
        let mut all = json!({ "state": "", "starts": 1, "passes": 0, "found": 0, "standing": 0,
            "bad_lines": 0 });
        let given = fields.as_object().cloned().unwrap_or_default();
        all.as_object_mut().unwrap().extend(given);
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn the_guard_is_a_line() {
        let now = boot_time_ns();
        let line = |fields| guard(&of_guard(fields), Style::plain());
        assert!(line(json!({ "state": "off" })).contains("--no-guard"));
        let watching = json!({ "state": "watching", "pid": 7, "passes": 12, "standing": 1,
            "since": now - 600_000_000_000, "last_pass": now });
        let text = line(watching);
        assert!(
            text.starts_with("guard: 1 finding; watching as pid 7 for 10 min, 12 passes, the last")
        );
        assert!(text.ends_with(" s ago"), "{text}");
        let text = line(json!({ "state": "ended", "since": now, "passes": 3 }));
        assert!(text.starts_with("guard: ended 0.") && text.ends_with("after 3 passes"), "{text}");
        let text = line(json!({ "state": "starting", "since": now }));
        assert!(text.ends_with("in its first pass; no findings so far"), "{text}");
    }

    #[test]
    fn findings_a_guard_that_does_not_watch_and_wrong_grants_are_not_well() {
        let status = |standing: u64, area: &str| {
            let problems = json!([{ "area": area, "reason": "" }]);
            let guard = of_guard(json!({ "state": "watching", "standing": standing }));
            let status = json!({ "uptime": 0, "sessions": 0, "connections": 0, "grants": 0,
                "unavailable": 0, "guard": guard, "problems": problems });
            serde_json::from_value::<Status>(status).unwrap()
        };
        assert!(is_well(&status(0, "coverage")) && is_well(&status(0, "rules")));
        assert!(!is_well(&status(1, "coverage")));
        assert!(!is_well(&status(0, "guard")) && !is_well(&status(0, "grants")));
    }

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
                guard: of_guard(json!({ "state": "off", "standing": 0 })),
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
