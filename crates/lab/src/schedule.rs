// SPDX-License-Identifier: Apache-2.0
//! Runs scenarios on kernels, some at a time, and says how they came out.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernels::Kernel;
use crate::programs::Programs;
use crate::scenario::{Cell, Outcome, Scenario};

/// How a cell came out.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The kernel's name.
    pub kernel: String,
    /// How; the error is that of a failure.
    pub outcome: Result<Outcome, String>,
    /// How long it took.
    pub took: Duration,
    /// The processor time that its guests took.
    pub processor: Duration,
}

/// What a worker says.
enum News {
    Begun(usize),
    Done(usize, Verdict),
}

/// Puts the cells that take longest first, so that at the end no long one runs alone.
pub fn longest_first(cells: &mut [(Scenario, Kernel)], seconds: impl Fn(&str) -> u32) {
    // Of equal ones the order stays.
    cells.sort_by_key(|(scenario, _)| std::cmp::Reverse(seconds(scenario.name)));
}

/// Runs each scenario on each kernel, at most so many at once, and tells of each that is done. What
/// failed leaves its logs below the directory; what did not leaves what it kept. `core` for what
/// `make test` runs.
#[must_use]
pub fn run(
    cells: &[(Scenario, Kernel)],
    programs: &Programs,
    at_once: usize,
    logs: &Path,
    core: bool,
) -> Vec<Verdict> {
    let left = Mutex::new(cells.iter().enumerate().collect());
    let (sender, news) = channel();
    thread::scope(|scope| {
        for worker in 0..at_once.clamp(1, cells.len().max(1)) {
            let (left, sender) = (&left, sender.clone());
            // What is about time waits for much of it. So up to half of what runs at once is that, beside others
            // that need all that the processors have, until only one kind is left.
            let timed = worker < at_once / 2;
            scope.spawn(move || work(left, timed, programs, logs, core, &sender));
        }
        drop(sender);
        let mut progress = Progress::new(cells.len());
        let mut verdicts = Vec::new();
        for news in news {
            match news {
                News::Begun(at) => progress.begun(at, &cells[at]),
                News::Done(at, verdict) => {
                    progress.done(at, &verdict);
                    verdicts.push(verdict);
                }
            }
        }
        verdicts
    })
}

/// Cells that nobody has begun, with their places.
type Left<'cells> = VecDeque<(usize, &'cells (Scenario, Kernel))>;

/// The first that is about time, or that is not; where there is none of the kind, of the other.
fn take<'cells>(
    left: &mut Left<'cells>,
    timed: bool,
) -> Option<(usize, &'cells (Scenario, Kernel))> {
    let at = left.iter().position(|(_, (scenario, _))| scenario.timed == timed);
    left.remove(at.unwrap_or(0))
}

fn work(
    left: &Mutex<Left<'_>>,
    timed: bool,
    programs: &Programs,
    logs: &Path,
    core: bool,
    sender: &Sender<News>,
) {
    loop {
        let cell = take(&mut left.lock().unwrap_or_else(PoisonError::into_inner), timed);
        let Some((at, (scenario, kernel))) = cell else { return };
        // The receiver lives until all workers are done.
        let _ = sender.send(News::Begun(at));
        let started = Instant::now();
        let logs = logs.join(scenario.name).join(&kernel.name);
        let (outcome, processor) = run_cell(scenario, kernel, programs, logs, core);
        let verdict = Verdict {
            scenario: scenario.name,
            kernel: kernel.name.clone(),
            outcome,
            took: started.elapsed(),
            processor,
        };
        let _ = sender.send(News::Done(at, verdict));
    }
}

fn run_cell(
    scenario: &Scenario,
    kernel: &Kernel,
    programs: &Programs,
    logs: PathBuf,
    core: bool,
) -> (Result<Outcome, String>, Duration) {
    if logs.exists()
        // Of an earlier run.
        && let Err(error) = fs::remove_dir_all(&logs)
    {
        return (Err(format!("{}: {error}", logs.display())), Duration::ZERO);
    }
    let cell = Cell::new(kernel, programs, logs.clone(), core, !scenario.timed);
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&cell)));
    let outcome = match outcome {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        // What it was is on standard error already.
        Err(_) => Err("the scenario panicked".to_owned()),
    };
    let outcome = outcome.map_err(|error| format!("{error}\nlogs and results: {}", logs.display()));
    let outcome = outcome.map(|outcome| match (outcome, cell.booted_again()) {
        (Outcome::Passed(figure), again) if again > 0 => {
            Outcome::Passed(format!("{figure}; {again} of the guests booted again"))
        }
        (outcome, _) => outcome,
    });
    (outcome, cell.processor_time())
}

/// A line for each cell that is done, and on a terminal one that says what runs.
struct Progress {
    all: usize,
    done: usize,
    running: Vec<(usize, String)>,
    terminal: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { all, done: 0, running: Vec::new(), terminal: io::stdout().is_terminal() }
    }

    fn begun(&mut self, at: usize, (scenario, kernel): &(Scenario, Kernel)) {
        self.running.push((at, format!("{} on {}", scenario.name, kernel.name)));
        self.show("");
    }

    fn done(&mut self, at: usize, verdict: &Verdict) {
        self.running.retain(|(running, _)| *running != at);
        self.done += 1;
        let (word, more) = match &verdict.outcome {
            Ok(Outcome::Passed(figure)) => ("passed ", figure.clone()),
            Ok(Outcome::Skipped(reason)) => ("skipped", reason.clone()),
            Err(error) => ("FAILED ", error.replace('\n', "\n        ")),
        };
        let (seconds, kernel) = (verdict.took.as_secs_f64(), &verdict.kernel);
        let processor = verdict.processor.as_secs_f64();
        self.show(&format!(
            "{word} {:<20} {kernel:<16} {seconds:>6.1} s {processor:>6.1} cpu  {more}\n",
            verdict.scenario
        ));
    }

    fn show(&self, line: &str) {
        let mut out = io::stdout().lock();
        // When nobody reads standard output the exit status still tells.
        let _ = if self.terminal {
            let running: Vec<_> = self.running.iter().map(|(_, name)| name.as_str()).collect();
            let (done, all) = (self.done, self.all);
            write!(out, "\r\x1b[K{line}{done} of {all} done; {}", running.join(", "))
        } else {
            write!(out, "{line}")
        };
        if self.terminal && self.done == self.all {
            let _ = write!(out, "\r\x1b[K");
        }
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(scenarios: &[&'static str], kernels: &[&str]) -> Vec<(Scenario, Kernel)> {
        let scenario = |name| Scenario {
            timed: name == "timed",
            name,
            about: "",
            kernels: crate::scenario::everywhere,
            core: |_| true,
            run: |_| Ok(Outcome::skipped("never run")),
        };
        let kernel = |name: &str| Kernel {
            name: name.to_owned(),
            release: String::new(),
            version: String::new(),
            directory: PathBuf::new(),
            beside_modules: false,
        };
        let pairs = scenarios.iter().flat_map(|name| kernels.iter().map(move |on| (*name, *on)));
        pairs.map(|(name, on)| (scenario(name), kernel(on))).collect()
    }

    #[test]
    fn what_takes_longest_comes_first_and_kernels_stay_in_order() {
        let mut cells = cells(&["short", "long"], &["a", "b"]);
        longest_first(&mut cells, |name| if name == "long" { 2 } else { 1 });
        let names: Vec<_> =
            cells.iter().map(|(one, on)| format!("{} {}", one.name, on.name)).collect();
        assert_eq!(names, ["long a", "long b", "short a", "short b"]);
    }

    #[test]
    fn each_worker_takes_its_kind_first_and_the_other_when_there_is_none() {
        let cells = cells(&["busy", "timed"], &["a", "b"]);
        let mut left: Left<'_> = cells.iter().enumerate().collect();
        let mut names = Vec::new();
        for timed in [true, false, true, true, false] {
            let taken = take(&mut left, timed);
            names.push(taken.map(|(_, (scenario, on))| format!("{} {}", scenario.name, on.name)));
        }
        let all = ["timed a", "busy a", "timed b", "busy b"].map(|name| Some(name.to_owned()));
        assert_eq!(names, all.into_iter().chain([None]).collect::<Vec<_>>());
    }
}
