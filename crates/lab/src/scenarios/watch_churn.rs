// SPDX-License-Identifier: Apache-2.0
//! Hundreds of legitimate changes while `ringfence watch` runs: none is a finding, and each is
//! journaled with the process behind it.
//!
//! The test itself is the command's own, crates/cli/tests/watch_churn.rs, with fewer rounds than its
//! thousand: each waits for grace periods, which are long where processors are slow. Hosts that are themselves
//! virtual often do not announce text pokes; guests do.

use super::tests_in_guest::Tests;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
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
    let tests = Tests {
        program: "watch_churn",
        environment: &[&rounds, command],
        arguments: &[TEST],
        ..Tests::default()
    };
    let passed = tests.run(cell, &vm)?;
    expect_same("tests that ran", passed.count, 1)?;
    let rounds = passed.said.lines().find(|line| line.contains("rounds in")).unwrap_or_default();
    vm.power_off();
    Ok(Outcome::passed(rounds.split(';').next().unwrap_or_default()))
}
