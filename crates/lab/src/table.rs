// SPDX-License-Identifier: Apache-2.0
//! The lab's closing table: scenarios by kernels, and the line of totals.

use crate::scenario::Outcome;
use crate::schedule::Verdict;

/// Columns beside each other; more than this does not fit a terminal.
const KERNELS: usize = 4;

/// How many passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// As expected.
    pub passed: usize,
    /// Not as expected.
    pub failed: usize,
    /// Not run.
    pub skipped: usize,
}

impl Totals {
    /// Counts.
    #[must_use]
    pub fn of(verdicts: &[Verdict]) -> Self {
        let mut totals = Self::default();
        for verdict in verdicts {
            match verdict.outcome {
                Ok(Outcome::Passed(_)) => totals.passed += 1,
                Ok(Outcome::Skipped(_)) => totals.skipped += 1,
                Err(_) => totals.failed += 1,
            }
        }
        totals
    }

    /// The closing line.
    #[must_use]
    pub fn line(self) -> String {
        let Self { passed, failed, skipped } = self;
        format!("lab: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// A scenario that was skipped on each kernel that it was to run on has shown nothing.
pub fn fail_what_was_skipped_everywhere(verdicts: &mut [Verdict]) {
    let shown: Vec<_> = verdicts
        .iter()
        .filter(|one| !matches!(one.outcome, Ok(Outcome::Skipped(_))))
        .map(|one| one.scenario)
        .collect();
    for verdict in verdicts {
        if let Ok(Outcome::Skipped(why)) = &verdict.outcome
            && !shown.contains(&verdict.scenario)
        {
            verdict.outcome = Err(format!("skipped on each kernel: {why}"));
        }
    }
}

/// A row for each scenario and a column for each kernel, both in the order in which they are given.
#[must_use]
pub fn table(verdicts: &[Verdict], scenarios: &[&str], kernels: &[&str]) -> String {
    let mut text = String::new();
    for kernels in kernels.chunks(KERNELS) {
        let mut rows = vec![std::iter::once("").chain(kernels.iter().copied()).map(str::to_owned)]
            .into_iter()
            .map(Iterator::collect::<Vec<_>>)
            .collect::<Vec<_>>();
        for scenario in scenarios {
            let cells = kernels.iter().map(|kernel| cell(verdicts, scenario, kernel));
            rows.push(std::iter::once((*scenario).to_owned()).chain(cells).collect());
        }
        text.push('\n');
        text.push_str(&aligned(&rows));
    }
    text
}

fn cell(verdicts: &[Verdict], scenario: &str, kernel: &str) -> String {
    let mut those = verdicts.iter().filter(|one| one.scenario == scenario && one.kernel == kernel);
    match those.next().map(|verdict| &verdict.outcome) {
        Some(Ok(Outcome::Passed(figure))) => figure.clone(),
        Some(Ok(Outcome::Skipped(_))) => "skipped".to_owned(),
        Some(Err(_)) => "FAILED".to_owned(),
        None => "–".to_owned(),
    }
}

/// Rows of cells as lines, in which each column is as wide as its widest cell.
#[must_use]
pub fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn verdict(scenario: &'static str, kernel: &str, outcome: Result<Outcome, String>) -> Verdict {
        Verdict {
            scenario,
            kernel: kernel.to_owned(),
            outcome,
            took: Duration::ZERO,
            processor: Duration::ZERO,
        }
    }

    #[test]
    fn what_was_skipped_or_failed_never_counts_as_passed() {
        let verdicts = [
            verdict("boots", "6.1", Ok(Outcome::passed("4.2 s"))),
            verdict("boots", "6.12", Err("why".to_owned())),
            verdict("churn", "6.1", Ok(Outcome::skipped("too old"))),
        ];
        let totals = Totals::of(&verdicts);
        assert_eq!(totals, Totals { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(totals.line(), "lab: 1 passed, 1 failed, 1 skipped");
        let expected = "\n       6.1      6.12\nboots  4.2 s    FAILED\nchurn  skipped  –\n";
        assert_eq!(table(&verdicts, &["boots", "churn"], &["6.1", "6.12"]), expected);
    }

    #[test]
    fn a_scenario_that_was_skipped_on_each_kernel_has_failed() {
        let mut verdicts = [
            verdict("attacks", "6.1", Ok(Outcome::skipped("no headers"))),
            verdict("churn", "6.1", Ok(Outcome::skipped("too old"))),
            verdict("churn", "6.12", Ok(Outcome::passed("2,000 passes"))),
        ];
        fail_what_was_skipped_everywhere(&mut verdicts);
        assert_eq!(Totals::of(&verdicts), Totals { passed: 1, failed: 1, skipped: 1 });
        assert!(matches!(&verdicts[0].outcome, Err(why) if why.contains("no headers")));
    }

    #[test]
    fn kernels_that_do_not_fit_beside_each_other_come_below() {
        let names = ["a", "b", "c", "d", "e"];
        let text = table(&[], &["boots"], &names);
        assert_eq!(text.matches("boots").count(), 2, "{text}");
    }
}
