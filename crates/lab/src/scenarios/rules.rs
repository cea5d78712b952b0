// SPDX-License-Identifier: Apache-2.0
//! Rules are decided by the kernel as going through them one by one does, by each kernel's verifier.
//!
//! The test itself is that of the probes, crates/probes/tests/rules_kernel, with fewer rounds. Times are
//! not compared here: a guest that is interpreted says nothing of them.

use super::tests_in_guest::Tests;
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "rules",
    about: "the kernel decides by random rules as going through them does, and swaps them whole",
    // The other flavour of a series has the same hooks.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    timed: false,
    run,
};

/// Random sets of rules, each with sixty records. On this host's own kernel there are many more.
const ROUNDS: u32 = 10;
/// What is measured, and what takes a million digests and so more memory than a guest has.
const NOT_HERE: &str = "speed";

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let boot = Boot::new().file(cell.programs().other("rules_kernel")?, "/lab/rules_kernel");
    let vm = cell.boot(&boot)?;
    let rounds = format!("RINGFENCE_RULES_ROUNDS={ROUNDS}");
    let tests = Tests {
        program: "rules_kernel",
        environment: &[&rounds],
        arguments: &["--skip", NOT_HERE],
        ..Tests::default()
    };
    let passed = tests.run(cell, &vm)?;
    expect_same("tests that ran", passed.count, 7)?;
    let records = passed.said.lines().find_map(|line| Some(line.split_once(" records:")?.0));
    let records = records.and_then(|text| text.split_whitespace().last()).unwrap_or_default();
    vm.power_off();
    Ok(Outcome::passed(format!("{records} records decided as expected")))
}
