// SPDX-License-Identifier: Apache-2.0
//! Runs the checks over a system and gathers what they say.

use std::time::{Duration, Instant};

use crate::check::{Check, CheckResult, Outcome, Status, System};
use crate::checks;
use crate::finding::{Finding, Hook, ModulesSummary, TextSummary};

/// What a pass found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How the text was accounted for, if the check of the text ran.
    pub text: Option<TextSummary>,
    /// The same of the text and read-only data of all modules.
    pub module_text: Option<ModulesSummary>,
    /// Each check that ran in this pass, in order.
    pub checks: Vec<CheckResult>,
    /// What is not as it must be.
    pub findings: Vec<Finding>,
    /// Who hooked what.
    pub hooks: Vec<Hook>,
    /// How long the pass took.
    pub elapsed: Duration,
}

impl Report {
    /// Adds what further checks of the same pass said.
    pub fn add(&mut self, other: Self) {
        self.text = other.text.or(self.text);
        self.module_text = other.module_text.or(self.module_text);
        self.checks.extend(other.checks);
        self.findings.extend(other.findings);
        self.hooks.extend(other.hooks);
        self.elapsed += other.elapsed;
    }
}

/// The checks, in the order in which they run.
///
/// The order matters: what the guard itself relies on to read is checked first.
pub struct Guard {
    checks: Vec<Box<dyn Check>>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { checks: checks::all() }
    }
}

impl Guard {
    /// All checks, or those named. Gives the name that no check has as the error.
    pub fn of(names: &[String]) -> Result<Self, String> {
        let mut guard = Self::default();
        for name in names {
            if !guard.checks.iter().any(|check| check.name() == name) {
                return Err(name.clone());
            }
        }
        if !names.is_empty() {
            guard.checks.retain(|check| names.iter().any(|name| check.name() == name));
        }
        Ok(guard)
    }

    /// The checks it runs.
    pub fn checks(&self) -> impl Iterator<Item = &dyn Check> {
        self.checks.iter().map(AsRef::as_ref)
    }

    /// Runs all checks.
    pub fn pass(&mut self, system: &System<'_>) -> Report {
        let started = Instant::now();
        let mut report = Report::default();
        for check in &mut self.checks {
            run_one(check.as_mut(), system, &mut report);
        }
        report.elapsed = started.elapsed();
        report
    }

    /// Runs the check with this name; an empty report if there is none.
    pub fn look(&mut self, name: &str, system: &System<'_>) -> Report {
        let started = Instant::now();
        let mut report = Report::default();
        if let Some(check) = self.checks.iter_mut().find(|check| check.name() == name) {
            run_one(check.as_mut(), system, &mut report);
        }
        report.elapsed = started.elapsed();
        report
    }

    /// Runs the checks with these names once more, because more is known now than when they ran
    /// (the journal was read), and puts what they say in the place of what `report` holds of them.
    /// Hooks are left as they are.
    pub fn again(&mut self, names: &[&str], system: &System<'_>, report: &mut Report) {
        let started = Instant::now();
        for check in self.checks.iter_mut().filter(|check| names.contains(&check.name())) {
            let mut second = Report::default();
            run_one(check.as_mut(), system, &mut second);
            for result in second.checks {
                if let Some(first) = report.checks.iter_mut().find(|r| r.name == result.name) {
                    let elapsed_us = first.elapsed_us.saturating_add(result.elapsed_us);
                    *first = CheckResult { elapsed_us, ..result };
                }
            }
            report.findings.retain(|finding| finding.check != check.name());
            report.findings.append(&mut second.findings);
            report.text = second.text.or(report.text);
            report.module_text = second.module_text.or(report.module_text);
        }
        report.elapsed += started.elapsed();
    }
}

fn run_one(check: &mut dyn Check, system: &System<'_>, report: &mut Report) {
    let started = Instant::now();
    let mut outcome = Outcome::default();
    let ended = check.run(system, &mut outcome);
    let (status, reason) = match ended {
        Err(missing) => (Status::Unavailable, Some(missing.0)),
        Ok(()) if outcome.findings.is_empty() => (Status::Ok, joined(&outcome.reduced)),
        Ok(()) => (Status::Finding, joined(&outcome.reduced)),
    };
    report.checks.push(CheckResult {
        name: check.name(),
        status,
        reason,
        elapsed_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
    });
    report.findings.append(&mut outcome.findings);
    report.hooks.append(&mut outcome.hooks);
    report.text = report.text.or(outcome.text);
    report.module_text = report.module_text.or(outcome.module_text);
}

fn joined(lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| lines.join("; "))
}
