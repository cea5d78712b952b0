// SPDX-License-Identifier: Apache-2.0
//! `ringfence check`: one pass of all checks over the running kernel, or one that is seen from outside,
//! and a report.

use std::time::Instant;

use clap::Args;

use crate::Ending;
use crate::live::{self, Live};
use crate::outside::{self, Outside};
use crate::report::{CheckReport, Subject, SubjectKind};
use crate::report_text;
use crate::screen::{Output, Style};

/// Check the running kernel, a guest or a dump once and report
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print the report as JSON (docs/check-report.schema.json)
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    live: live::Arguments,

    #[command(flatten)]
    outside: outside::Arguments,

    /// Halt the guest for about a millisecond to be told where its system calls lead (LSTAR)
    #[arg(long, requires = "qmp")]
    pause: bool,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let started = Instant::now();
    let report = if arguments.outside.are_given() {
        of_outside(arguments, started)?
    } else {
        of_running(arguments, started)?
    };
    let text = if arguments.json {
        report.to_json()?
    } else {
        report_text::render(&report, Style::of_stdout())
    };
    Output::stdout().put(&text)?;
    ending(&report)
}

fn of_running(arguments: &Arguments, started: Instant) -> anyhow::Result<CheckReport> {
    let mut live = Live::open(&arguments.live)?;
    let pass = live.check();
    let host = live.host();
    let kind = SubjectKind::Running;
    Ok(CheckReport {
        kernel: host.identity.clone(),
        subject: Subject { kind, reader: host.reader_in_words(), slide: None },
        baseline: host.baseline_used.clone(),
        notices: host.notices.clone(),
        pass,
        elapsed: started.elapsed(),
    })
}

fn of_outside(arguments: &Arguments, started: Instant) -> anyhow::Result<CheckReport> {
    let mut guard = arguments.live.guard()?;
    let subject = arguments.outside.pausing(arguments.pause);
    let outside = Outside::open(&subject, arguments.live.baseline())?;
    let pass = outside.check(&mut guard);
    Ok(CheckReport {
        kernel: outside.identity,
        subject: outside.subject,
        baseline: outside.baseline_used,
        notices: outside.notices,
        pass,
        elapsed: started.elapsed(),
    })
}

/// A finding counts whatever else could not be looked at; without any check that ran nothing can be
/// said at all.
fn ending(report: &CheckReport) -> anyhow::Result<Ending> {
    match report {
        report if !report.pass.findings.is_empty() => Ok(Ending::Findings),
        report if report.could_check() => Ok(Ending::Clean),
        _ => anyhow::bail!("none of the checks could run; the report says why for each"),
    }
}

#[cfg(test)]
mod tests {
    use guard::Status;

    use super::*;
    use crate::report::tests::with_everything;

    #[test]
    fn the_exit_status_says_clean_found_or_could_not_check() {
        let mut report = with_everything();
        assert_eq!(ending(&report).unwrap(), Ending::Findings);
        report.pass.findings.clear();
        assert_eq!(ending(&report).unwrap(), Ending::Clean);
        report.pass.checks.retain(|check| check.status == Status::Unavailable);
        assert!(ending(&report).is_err());
    }
}
