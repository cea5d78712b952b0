// SPDX-License-Identifier: Apache-2.0
//! What each check costs: time that went by, and time of the processor.

use std::time::{Duration, Instant};

use guard::check::{Check, Outcome, Pace};
use guard::journal::Journal;
use probes::JournalReader;

use super::median;
use crate::clock::thread_ns;
use crate::live::{Arguments, Host, LiveWatch};
use crate::report_text::duration;
use crate::screen::{Style, Table};
use crate::watch::Watched;

/// Entries of the journal between two passes.
const JOURNAL_LIMIT: usize = 65_536;

/// What one check took in each pass.
struct Times {
    name: &'static str,
    elapsed: Vec<Duration>,
    /// Time of the processor. On a busy machine this is the figure to go by.
    used: Vec<Duration>,
}

/// All of them.
pub(super) struct Samples(Vec<Times>);

impl Samples {
    /// Runs each check in each of `passes`, `pause` apart. The first pass, in which the checks gather
    /// what the others only look up, does not count.
    pub(super) fn take(
        arguments: &Arguments,
        passes: u32,
        pause: Duration,
    ) -> anyhow::Result<Self> {
        let (mut journal, mut source) = match JournalReader::open() {
            Ok(source) => (Journal::running(JOURNAL_LIMIT), Some(source)),
            Err(error) => (Journal::unavailable(error.to_string()), None),
        };
        let host = Host::open(arguments.baseline())?;
        let mut checks = guard::checks::all();
        let mut samples: Vec<Times> =
            checks.iter().map(|check| Times::of(check.as_ref())).collect();
        for pass in 0..=passes {
            if let Some(source) = &mut source {
                let taken = source.take();
                taken.entries.into_iter().for_each(|entry| journal.push(entry));
                journal.add_lost(taken.lost);
            }
            let began = crate::clock::monotonic_ns();
            host.with_system(&journal, |system| {
                for (check, times) in checks.iter_mut().zip(&mut samples) {
                    let mut outcome = Outcome::default();
                    let (start, used) = (Instant::now(), thread_ns());
                    // A check that cannot run here costs what it takes to find that out.
                    let _ = check.run(system, &mut outcome);
                    if pass > 0 {
                        times.used.push(Duration::from_nanos(thread_ns().saturating_sub(used)));
                        times.elapsed.push(start.elapsed());
                    }
                }
            });
            journal.forget_before(began);
            std::thread::sleep(pause);
        }
        Ok(Self(samples))
    }

    /// How long a check took, if there is one of this name.
    pub(super) fn median_of(&self, check: &str) -> Option<Duration> {
        let times = self.0.iter().find(|times| times.name == check)?;
        Some(median(&mut times.elapsed.clone()))
    }

    pub(super) fn table(&self, watch: &LiveWatch, style: Style) -> String {
        let columns = ["check", ">median", ">worst", ">processor", "runs"];
        let mut table = Table::new(&columns);
        let (mut elapsed, mut used) = (Duration::ZERO, Duration::ZERO);
        for times in &self.0 {
            let middle = median(&mut times.elapsed.clone());
            let worst = times.elapsed.iter().max().copied().unwrap_or_default();
            let processor = median(&mut times.used.clone());
            (elapsed, used) = (elapsed + middle, used + processor);
            table.row(vec![
                times.name.to_owned(),
                duration(middle),
                duration(worst),
                duration(processor),
                pace(watch, times.name).to_owned(),
            ]);
        }
        let sum = [duration(elapsed), String::new(), duration(used)];
        table.row([vec!["all".to_owned()], sum.to_vec()].concat());
        table.render(style, 0)
    }
}

/// When a watch runs a check.
fn pace(watch: &LiveWatch, name: &str) -> &'static str {
    match watch.checks().into_iter().find(|(check, _)| *check == name) {
        Some((_, Pace::EachPass)) => "in each pass",
        Some((_, Pace::InTurn)) | None => "in turn",
    }
}

impl Times {
    fn of(check: &dyn Check) -> Self {
        Self { name: check.name(), elapsed: Vec::new(), used: Vec::new() }
    }
}
