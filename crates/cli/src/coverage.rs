// SPDX-License-Identifier: Apache-2.0
//! Which events of the security API this kernel can tell of, deny and ask about, for `ringfence
//! doctor`: found out by loading the programs, which are attached to nothing.

use probes::Fanotify;
use probes::events::{EventCoverage, Hooks, Mechanism};
use serde::Serialize;

use crate::screen::{Style, Tone, wrap};

/// One event.
#[derive(Serialize)]
pub(crate) struct Row {
    event: &'static str,
    told: Way,
    denied: Way,
    asked: Way,
}

/// How something can be had, or why it cannot; or what of it cannot.
#[derive(Serialize)]
struct Way {
    by: Option<&'static str>,
    reason: Option<String>,
}

impl From<Result<Mechanism, String>> for Way {
    fn from(found: Result<Mechanism, String>) -> Self {
        match found {
            Ok(Mechanism::Tracepoint) => Self { by: Some("tracepoint"), reason: None },
            Ok(Mechanism::Lsm | Mechanism::Rule | Mechanism::Gate) => {
                Self { by: Some("LSM hook"), reason: None }
            }
            // As the tracepoint is called.
            Ok(Mechanism::SystemCall) => Self { by: Some("sys_exit"), reason: None },
            Err(reason) => Self { by: None, reason: Some(reason) },
        }
    }
}

impl Row {
    /// `fanotify`: whether it can ask where no program can.
    fn of(coverage: EventCoverage, fanotify: bool) -> Self {
        let EventCoverage { kind, notify, lacks, deny, ask } = coverage;
        let mut asked = Way::from(ask);
        let reach = Fanotify::reach(kind.number().into()).filter(|_| fanotify);
        match (asked.by, reach) {
            (Some(_), _) => asked.reason = kind.never_asked().map(str::to_owned),
            (None, Some(reach)) => {
                let why = asked.reason.map(|reason| format!("; {reason}")).unwrap_or_default();
                asked = Way { by: Some("fanotify"), reason: Some(format!("{reach}{why}")) };
            }
            (None, None) => {}
        }
        let reach = kind.told_by_calls().filter(|_| notify == Ok(Mechanism::SystemCall));
        let mut told = Way::from(notify);
        told.reason = reach.or(lacks).map(str::to_owned).or(told.reason);
        Self { event: kind.name(), told, denied: deny.into(), asked }
    }
}

/// What this kernel takes, or why nothing could be tried.
pub(crate) fn events(fanotify: bool) -> Result<Vec<Row>, String> {
    let hooks = Hooks::load().map_err(|error| error.to_string())?;
    Ok(hooks.coverage().into_iter().map(|coverage| Row::of(coverage, fanotify)).collect())
}

/// A section of the page.
pub(crate) fn render(events: &Result<Vec<Row>, String>, style: Style) -> String {
    let mut text = format!("\n{}\n", style.paint(Tone::Heading, "Events of the security API"));
    let rows = match events {
        Ok(rows) => rows,
        Err(reason) => {
            for line in wrap(reason, style.width().saturating_sub(2)) {
                text.push_str(&format!("  {}\n", style.paint(Tone::Unknown, &line)));
            }
            return text;
        }
    };
    for row in rows {
        text.push_str(&format!("  {:<20}", row.event));
        for (word, way) in [("told", &row.told), ("denied", &row.denied), ("asked", &row.asked)] {
            let (tone, words) = match way.by {
                Some(by) => (Tone::Good, format!("{word} by {by}")),
                None => (Tone::Bad, format!("not {word}")),
            };
            text.push_str(&format!("  {}", style.paint(tone, &format!("{words:<18}"))));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        let ways = [&row.told, &row.denied, &row.asked];
        let mut reasons: Vec<&str> = ways.iter().filter_map(|way| way.reason.as_deref()).collect();
        reasons.dedup();
        for line in reasons.iter().flat_map(|r| wrap(r, style.width().saturating_sub(24))) {
            text.push_str(&format!("{:24}{}\n", "", style.paint(Tone::Faint, &line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use probes::events::EventType;

    use super::*;

    #[test]
    fn what_no_program_can_ask_about_fanotify_may() {
        let row = |name: &str, ask: Result<Mechanism, &str>, fanotify| {
            let kind = EventType::all().find(|kind| kind.name() == name).unwrap();
            let none = || Err("none".to_owned());
            let coverage = EventCoverage {
                kind,
                notify: none(),
                lacks: None,
                deny: none(),
                ask: ask.map_err(str::to_owned),
            };
            Row::of(coverage, fanotify).asked
        };
        for name in ["process_exec", "file_open"] {
            assert_eq!(row(name, Ok(Mechanism::Gate), true).by, Some("LSM hook"));
            let asked = row(name, Err("no gate"), true);
            assert_eq!(asked.by, Some("fanotify"));
            let reason = asked.reason.unwrap();
            assert!(reason.starts_with("only ") && reason.ends_with("; no gate"), "{reason}");
            assert_eq!(row(name, Err("no gate"), false).by, None);
        }
        assert_eq!(row("image_map", Err("no gate"), true).by, None);
    }

    #[test]
    fn each_event_is_shown_with_how_or_why_not() {
        let way = |found: Result<Mechanism, &str>| Way::from(found.map_err(str::to_owned));
        let rows = vec![
            Row {
                event: "process_exec",
                told: way(Ok(Mechanism::Tracepoint)),
                denied: way(Err("LSM programs are refused")),
                asked: way(Err("LSM programs are refused")),
            },
            Row {
                event: "bpf_load",
                told: way(Err("none")),
                denied: way(Err("none")),
                asked: way(Ok(Mechanism::Gate)),
            },
        ];
        let text = render(&Ok(rows), Style::plain());
        for part in [
            "  process_exec          told by tracepoint  not denied          not asked\n",
            "LSM programs are refused\n",
            "  bpf_load              not told            not denied          asked by LSM hook\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(text.matches("none").count(), 1);
        assert!(render(&Err("needs root".into()), Style::plain()).contains("  needs root\n"));
    }
}
