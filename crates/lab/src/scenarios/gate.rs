// SPDX-License-Identifier: Apache-2.0
//! Programs in hooks of the kernel wait for verdicts of user space, and never for longer than they should.
//!
//! What is tried, and what must hold, is in crates/probes/examples/gate_trial. It runs twice, for what holds
//! and for what a question costs, on a machine whose clock counts instructions. Kernels before 6.12 must say
//! that they cannot, and what they lack.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::trial;
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "gate",
    about: "exec and mapping wait for verdicts, and go on when the daemon is late, stopped or dead",
    // The other flavour of a series has the same hooks.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    timed: true,
    run,
};

const TRIAL: &str = "/lab/gate_trial";
const LIMIT: Duration = Duration::from_secs(180);
/// What it ends with where there can be no gate.
const NO_GATE: i32 = 3;

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let boot = Boot::new().file(cell.programs().other("gate_trial")?, TRIAL);
    if cell.kernel().series() < (6, 12) {
        let vm = cell.boot(&boot)?;
        let tried = vm.try_run_within(&[TRIAL, "support"], LIMIT)?;
        expect_same("the code of what cannot be had", tried.code, NO_GATE)?;
        let reason = tried.text();
        ensure!(reason.contains("no bpf_get_file_xattr"), "another reason: {reason}");
        vm.power_off();
        return Ok(Outcome::passed("none, and says why"));
    }
    // What else the host has to do must not look like waiting.
    let vm = cell.boot(&boot.counted())?;
    let held = trial::held_as_said(&trial::run(cell, &vm, "trial", &[TRIAL], LIMIT)?)?;
    let cost = trial::run(cell, &vm, "cost", &[TRIAL, "cost"], LIMIT)?;
    vm.power_off();
    let cost = cost.trim().strip_prefix("cost of a mapping, ns: ").context("no cost")?.to_owned();
    Ok(Outcome::passed(format!("{held} things hold; instructions: {cost}")))
}
