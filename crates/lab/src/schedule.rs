// SPDX-License-Identifier: Apache-2.0
//! Runs scenarios on kernels, some at a time, and says how they came out.

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
    let next = Mutex::new(cells.iter().enumerate());
    let (sender, news) = channel();
    thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, cells.len().max(1)) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || work(next, programs, logs, core, &sender));
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

type Queue<'cells> = Mutex<std::iter::Enumerate<std::slice::Iter<'cells, (Scenario, Kernel)>>>;

fn work(next: &Queue<'_>, programs: &Programs, logs: &Path, core: bool, sender: &Sender<News>) {
    loop {
        let cell = next.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((at, (scenario, kernel))) = cell else { return };
        // The receiver lives until all workers are done.
        let _ = sender.send(News::Begun(at));
        let started = Instant::now();
        let logs = logs.join(scenario.name).join(&kernel.name);
        let outcome = run_cell(scenario, kernel, programs, logs, core);
        let verdict = Verdict {
            scenario: scenario.name,
            kernel: kernel.name.clone(),
            outcome,
            took: started.elapsed(),
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
) -> Result<Outcome, String> {
    if logs.exists() {
        // Of an earlier run.
        fs::remove_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    }
    let cell = Cell::new(kernel, programs, logs.clone(), core);
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&cell)));
    let outcome = match outcome {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        // What it was is on standard error already.
        Err(_) => Err("the scenario panicked".to_owned()),
    };
    outcome.map_err(|error| format!("{error}\nlogs and results: {}", logs.display()))
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
        self.show(&format!(
            "{word} {:<20} {kernel:<16} {seconds:>6.1} s  {more}\n",
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

    #[test]
    fn what_takes_longest_comes_first_and_kernels_stay_in_order() {
        let scenario = |name| Scenario {
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
        let mut cells: Vec<_> = ["short", "long"]
            .into_iter()
            .flat_map(|name| ["a", "b"].map(|on| (scenario(name), kernel(on))))
            .collect();
        longest_first(&mut cells, |name| if name == "long" { 2 } else { 1 });
        let names: Vec<_> =
            cells.iter().map(|(one, on)| format!("{} {}", one.name, on.name)).collect();
        assert_eq!(names, ["long a", "long b", "short a", "short b"]);
    }
}
