// SPDX-License-Identifier: Apache-2.0
//! Hundreds of legitimate changes while `ringfence watch` runs: none is a finding, and each is
//! journaled with the process behind it.
//!
//! The test itself is the command's own, crates/cli/tests/watch_churn.rs, with fewer rounds than its
//! thousand: each waits for grace periods, which are long where processors are slow. Hosts that are themselves
//! virtual often do not announce text pokes; guests do.

use std::time::Duration;

use anyhow::ensure;

use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "watch-churn",
    about: "`ringfence watch` journals hundreds of legitimate changes and finds nothing",
    // The other flavour has long churn, which is more.
    kernels: |kernel| !kernel.is_for_clouds(),
    core: |kernel| kernel.name == "6.12-amd64",
    timed: false,
    run,
};

const TEST: &str = "a_thousand_rounds_of_tracing_are_journaled_with_their_owner_and_are_no_finding";
const ROUNDS: usize = 150;
const LIMIT: Duration = Duration::from_secs(600);

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    if cell.kernel().series() < (6, 12) {
        return Ok(Outcome::skipped("text pokes are watched from 6.12 on"));
    }
    let boot = Boot::new()
        .file(cell.programs().other("watch_churn")?, "/lab/watch_churn")
        .file(cell.programs().ringfence(), "/usr/bin/ringfence");
    let vm = cell.boot(&boot)?;
    let rounds = format!("RINGFENCE_CHURN_ROUNDS={ROUNDS}");
    let command = "RINGFENCE_COMMAND=/usr/bin/ringfence";
    let test = ["/bin/env", &rounds, command, "/lab/watch_churn", "--ignored", "--nocapture", TEST];
    let ran = vm.try_run_within(&test, LIMIT)?;
    cell.keep("watch_churn.out", &ran.out)?;
    cell.keep("watch_churn.err", &ran.err)?;
    let tail = |text: &str| text.chars().rev().take(2000).collect::<Vec<_>>();
    let end: String = tail(&ran.errors()).into_iter().rev().collect();
    ensure!(ran.code == 0, "exit code {}: {end}", ran.code);
    let summary = ran.text();
    ensure!(summary.contains("1 passed"), "the test did not run: {summary}");
    ensure!(!summary.contains("not looked for"), "the guest announces no text pokes: {summary}");
    let rounds = summary.lines().find(|line| line.contains("rounds in")).unwrap_or_default();
    vm.power_off();
    Ok(Outcome::passed(rounds.split(';').next().unwrap_or_default()))
}
