// SPDX-License-Identifier: Apache-2.0
//! `ringfence watch`: a first pass, then one each second and after each change that the kernel
//! announces, until interrupted.

mod entries;
mod follow;
mod output;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;

use crate::Ending;
use crate::live;
use crate::screen::{Output, Style};
pub(crate) use entries::EntryShown;
pub(crate) use follow::{Drained, Pacing, Watched, Woken, follow};
pub(crate) use output::{Counts, Subject, Teller};
use output::{JsonLines, Lines};

/// What a watch uses of one processor unless told otherwise: a little less than the one percent that
/// is promised, because what it used is known only afterwards.
pub(crate) const SHARE_PERCENT: f64 = 0.95;

/// Check, then watch: a pass each second and after each change that the kernel announces
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Seconds from one pass to the next
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = period)]
    period: Duration,

    /// How much of one processor to use, in percent: checks that this is too little for take turns.
    /// Checks of the text and of hooks look in each pass all the same
    #[arg(long, value_name = "PERCENT", default_value_t = SHARE_PERCENT, value_parser = percent)]
    share: f64,

    /// Stop after this many passes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    passes: Option<u64>,

    /// Print one JSON object a line: start, pass, journal, finding and cleared events
    #[arg(long)]
    json: bool,

    /// Count the changes that the kernel announces, without printing each
    #[arg(long)]
    quiet_journal: bool,

    #[command(flatten)]
    live: live::Arguments,
}

/// Seconds with an optional fraction.
fn period(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if !(0.01..=86_400.0).contains(&seconds) {
        return Err("it must be from 0.01 to 86400 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Percent of a processor.
fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of percent"))?;
    if !(0.01..=100.0).contains(&percent) {
        return Err("it must be from 0.01 to 100 percent".into());
    }
    Ok(percent)
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut watched = live::LiveWatch::open(&arguments.live)?;
    let mut teller: Box<dyn Teller> = if arguments.json {
        let quiet_journal = arguments.quiet_journal;
        Box::new(JsonLines { output: Output::stdout(), quiet_journal })
    } else {
        let live = io::stdout().is_terminal();
        Box::new(Lines::new(Output::stdout(), Style::of_stdout(), live, arguments.quiet_journal))
    };
    let pacing = Pacing { period: arguments.period, share: Some(arguments.share / 100.0) };
    let found = follow(&mut watched, pacing, arguments.passes, teller.as_mut())?;
    Ok(if found { Ending::Findings } else { Ending::Clean })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_of_one_processor() {
        assert_eq!(percent("0.5"), Ok(0.5));
        assert_eq!(percent("100"), Ok(100.0));
        for wrong in ["", "1%", "0", "-1", "101", "nan"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_period_is_a_number_of_seconds_within_reason() {
        assert_eq!(period("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "x", "0", "-1", "nan", "inf", "1e9"] {
            assert!(period(wrong).is_err(), "{wrong}");
        }
    }
}
