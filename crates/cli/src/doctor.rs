// SPDX-License-Identifier: Apache-2.0
//! `ringfence doctor`: what this host can do for the guard and the security API, and why not where it
//! cannot; what each check needs and what it does not see. Works without root, and then says what root
//! would give.

use clap::Args;
use guard::{About, Guard, Pace};
use probes::{Feature, FeatureState};
use serde::Serialize;

use crate::Ending;
use crate::coverage::{self, Row};
use crate::screen::{Output, Style, Tone, wrap};

/// What this host can do and why not, and what each check needs and does not see
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Without these no check runs at all; of the two ways to read, one is enough.
const NEEDED: [&str; 3] = ["privilege", "kernel types (BTF)", "kernel symbols"];
const READING: [&str; 2] = ["inline reads", "helper reads"];
const FANOTIFY: &str = "fanotify permission events";

/// Runs the subcommand. Exit status 1 says that `check` cannot work here.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let features = probes::features();
    let guard = Guard::default();
    let checks: Vec<CheckJson> = guard
        .checks()
        .map(|check| CheckJson { name: check.name(), pace: check.pace(), about: check.about() })
        .collect();
    let works = can_check(&features);
    let events = coverage::events(works_here(&features, FANOTIFY));
    let text = if arguments.json {
        let features = features.iter().map(FeatureJson::of).collect();
        let (events, events_unknown) = match events {
            Ok(events) => (Some(events), None),
            Err(reason) => (None, Some(reason)),
        };
        let all = Json { can_check: works, features, events, events_unknown, checks };
        format!("{}\n", serde_json::to_string_pretty(&all)?)
    } else {
        render(&features, &events, &checks, works, Style::of_stdout())
    };
    Output::stdout().put(&text)?;
    Ok(if works { Ending::Clean } else { Ending::Findings })
}

fn can_check(features: &[Feature]) -> bool {
    let works = |name: &&str| works_here(features, name);
    NEEDED.iter().all(works) && READING.iter().any(works)
}

fn works_here(features: &[Feature], name: &str) -> bool {
    let found = features.iter().find(|feature| feature.name == name);
    found.is_some_and(|feature| feature.state != FeatureState::Unavailable)
}

fn render(
    features: &[Feature],
    events: &Result<Vec<Row>, String>,
    checks: &[CheckJson],
    works: bool,
    style: Style,
) -> String {
    let mut text = style.paint(Tone::Heading, "What this host can do");
    text.push('\n');
    let width = features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    for feature in features {
        let (tone, word) = state(feature.state);
        text.push_str(&format!("  {}", style.paint(tone, &format!("{word:<11}"))));
        text.push_str(&format!("  {:<width$}  ", feature.name));
        text.push_str(&style.paint(Tone::Faint, feature.purpose));
        text.push('\n');
        paragraph(&mut text, 15, "", feature.reason.as_deref().unwrap_or_default(), style);
    }
    text.push_str(&coverage::render(events, style));
    text.push_str(&format!("\n{}\n", style.paint(Tone::Heading, "Checks")));
    for check in checks {
        let pace = match check.pace {
            Pace::EachPass => "in each pass of watch",
            Pace::InTurn => "in turn, as often as the share of watch allows",
        };
        text.push_str(&format!("  {}, {pace}\n", style.paint(Tone::Heading, check.name)));
        let About { needs, reads, means, blind_to } = check.about;
        for (heading, words) in
            [("needs", needs), ("reads", reads), ("means", means), ("blind to", blind_to)]
        {
            paragraph(&mut text, 4, heading, words, style);
        }
    }
    let (tone, verdict) = if works {
        (Tone::Good, "`ringfence check` works on this host.")
    } else {
        (Tone::Bad, "`ringfence check` does not work on this host; see what is unavailable above.")
    };
    text.push_str(&format!("\n{}\n", style.paint(tone, verdict)));
    text
}

/// Wrapped words beside a heading, both indented.
fn paragraph(text: &mut String, indent: usize, heading: &str, words: &str, style: Style) {
    let column = if heading.is_empty() { 0 } else { 10 };
    let lines = wrap(words, style.width().saturating_sub(indent + column));
    for (index, line) in lines.iter().enumerate() {
        let heading = format!("{:<column$}", if index == 0 { heading } else { "" });
        text.push_str(&" ".repeat(indent));
        text.push_str(&style.paint(Tone::Faint, &heading));
        text.push_str(line);
        text.push('\n');
    }
}

fn state(state: FeatureState) -> (Tone, &'static str) {
    match state {
        FeatureState::Available => (Tone::Good, "available"),
        FeatureState::Reduced => (Tone::Unknown, "reduced"),
        FeatureState::Unavailable => (Tone::Bad, "unavailable"),
    }
}

#[derive(Serialize)]
struct Json<'a> {
    can_check: bool,
    features: Vec<FeatureJson<'a>>,
    /// Of the security API, if it could be tried.
    events: Option<Vec<Row>>,
    events_unknown: Option<String>,
    checks: Vec<CheckJson>,
}

#[derive(Serialize)]
struct FeatureJson<'a> {
    name: &'a str,
    purpose: &'a str,
    state: &'a str,
    reason: Option<&'a str>,
}

impl<'a> FeatureJson<'a> {
    fn of(feature: &'a Feature) -> Self {
        Self {
            name: feature.name,
            purpose: feature.purpose,
            state: state(feature.state).1,
            reason: feature.reason.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct CheckJson {
    name: &'static str,
    pace: Pace,
    #[serde(flatten)]
    about: About,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &'static str, state: FeatureState) -> Feature {
        let reason = Some("why not, and what to do about it".into());
        Feature { name, purpose: "something", state, reason }
    }

    #[test]
    fn one_way_to_read_is_enough_and_none_is_not() {
        let mut features: Vec<_> = NEEDED
            .into_iter()
            .chain(READING)
            .map(|name| feature(name, FeatureState::Available))
            .collect();
        features[3].state = FeatureState::Unavailable;
        assert!(can_check(&features));
        features[4].state = FeatureState::Unavailable;
        assert!(!can_check(&features));
        features[4].state = FeatureState::Reduced;
        features[0].state = FeatureState::Unavailable;
        assert!(!can_check(&features));
    }

    #[test]
    fn the_features_that_decide_are_among_those_that_are_tried() {
        let names: Vec<_> = probes::features().iter().map(|feature| feature.name).collect();
        assert!(names.contains(&FANOTIFY), "{FANOTIFY}");
        for name in NEEDED.into_iter().chain(READING) {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
    }

    #[test]
    fn everything_is_said_within_the_page() {
        let features = [feature("inline reads", FeatureState::Unavailable)];
        let about = About {
            needs: "a need",
            reads: "what it reads in many words that go on and on and on until the line is full",
            means: "a meaning",
            blind_to: "a blind spot",
        };
        let checks = [CheckJson { name: "text", pace: Pace::InTurn, about }];
        let text = render(&features, &Ok(Vec::new()), &checks, false, Style::plain());
        for part in
            ["unavailable  inline reads", "what to do about it", "text, in turn", "blind spot"]
        {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100));
    }
}
