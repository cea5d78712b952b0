// SPDX-License-Identifier: Apache-2.0
//! `ringfence bench`: measures on this machine, prints a table, and holds it against the goals.

mod api;
mod calls;
mod checks;
mod guard;
mod mutations;
mod reader;

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::Ending;
use crate::screen::{Output, Style, Table, Tone};

/// Measure the reader, the guard and the security API on this machine, against the goals
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    Api(api::Arguments),
    Reader(reader::Arguments),
    Guard(guard::Arguments),
    Mutations(mutations::Arguments),
}

/// Runs the subcommand. A goal that is missed gives exit status 1.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let style = Style::of_stdout();
    let bench = match &arguments.subject {
        Subject::Api(arguments) => api::run(arguments, style)?,
        Subject::Reader(arguments) => reader::run(arguments, style)?,
        Subject::Guard(arguments) => guard::run(arguments, style)?,
        Subject::Mutations(arguments) => mutations::run(arguments, style)?,
    };
    Output::stdout().put(&format!("{}\n{}", bench.text, goals(&bench.goals, style)))?;
    let met = bench.goals.iter().all(|goal| goal.met);
    Ok(if met { Ending::Clean } else { Ending::Findings })
}

/// What was measured.
struct Bench {
    /// All figures, as a table.
    text: String,
    /// Those that have a goal.
    goals: Vec<Goal>,
}

/// A figure with a goal.
#[derive(Clone, Debug, PartialEq)]
struct Goal {
    what: String,
    measured: String,
    goal: String,
    met: bool,
}

impl Goal {
    /// `measured` must be at least `least`.
    fn at_least(what: &str, measured: f64, least: f64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            measured: format!("{measured:.2}{unit}"),
            goal: format!("≥ {least}{unit}"),
            met: measured >= least,
        }
    }

    /// `measured` must be at most `most`.
    fn at_most(what: &str, measured: f64, most: f64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            measured: format!("{measured:.2}{unit}"),
            goal: format!("≤ {most}{unit}"),
            met: measured <= most,
        }
    }
}

fn goals(goals: &[Goal], style: Style) -> String {
    let mut table = Table::new(&["goal", ">measured", ">wanted", "met"]);
    for goal in goals {
        let met = if goal.met { "yes" } else { "NO" };
        table.row(vec![goal.what.clone(), goal.measured.clone(), goal.goal.clone(), met.into()]);
    }
    let text = table.render(style, 0);
    text.lines()
        .map(|line| {
            let tone = if line.ends_with("NO") { Tone::Bad } else { Tone::Good };
            let judged = line.ends_with("NO") || line.ends_with("yes");
            let line = if judged { style.paint(tone, line) } else { line.to_owned() };
            format!("{line}\n")
        })
        .collect()
}

/// The median; zero of nothing.
fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_or_missed() {
        assert!(Goal::at_least("speed", 0.5, 0.5, "").met);
        assert!(!Goal::at_most("time", 10.1, 10.0, " ms").met);
        let text = goals(
            &[Goal::at_least("speed", 0.75, 0.5, ""), Goal::at_most("time", 10.1, 10.0, " ms")],
            Style::plain(),
        );
        let words = |line: usize| {
            text.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(1), "speed 0.75 ≥ 0.5 yes");
        assert_eq!(words(2), "time 10.10 ms ≤ 10 ms NO");
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let ms = Duration::from_millis;
        assert_eq!(median(&mut [ms(9), ms(1), ms(5)]), ms(5));
        assert_eq!(median(&mut []), Duration::ZERO);
    }
}
