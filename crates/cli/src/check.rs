// SPDX-License-Identifier: Apache-2.0
//! `ringfence check`: one pass of all checks over the running kernel, and a report.

use std::time::Instant;

use clap::Args;

use crate::Ending;
use crate::live::{self, Live};
use crate::report::CheckReport;
use crate::report_text;
use crate::screen::{Output, Style};

/// Check the running kernel once and report
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print the report as JSON (docs/check-report.schema.json)
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    live: live::Arguments,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let started = Instant::now();
    let mut live = Live::open(&arguments.live)?;
    let pass = live.check();
    let host = live.host();
    let report = CheckReport {
        kernel: host.identity.clone(),
        baseline: host.baseline_used.clone(),
        reader: host.reader_in_words(),
        notices: host.notices.clone(),
        pass,
        elapsed: started.elapsed(),
    };
    let text = if arguments.json {
        report.to_json()?
    } else {
        report_text::render(&report, Style::of_stdout())
    };
    Output::stdout().put(&text)?;
    ending(&report)
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
