// SPDX-License-Identifier: Apache-2.0
//! Events of the kernel reach clients' rings: each by its doors and by nothing else.
//!
//! The tests are those of crates/probes/tests, which run on the host too as far as it takes programs:
//! here it takes all of them, LSM programs among them. Those of `calls` do without, as on a host that
//! refuses them.

use super::tests_in_guest::Tests;
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "events",
    about: "each event is told of by its doors and by nothing else, and clients read it in their rings",
    // The other flavour of a series has the same hooks.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "6.12-cloud-amd64" || kernel.name == "7-cloud-amd64",
    timed: true,
    run,
};

/// Programs of tests.
const TESTS: [&str; 7] =
    ["events", "rings", "lsm_events", "doors", "nothing_else", "files", "calls"];
/// A module that does nothing, and is unloaded to be told of.
const MODULE: &str = "dummy";

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let mut boot = Boot::new().module(MODULE).module("binfmt_misc");
    for test in TESTS {
        boot = boot.file(cell.programs().other(test)?, format!("/lab/{test}"));
    }
    let vm = cell.boot(&boot)?;
    let mut passed = 0;
    let module = format!("RINGFENCE_MODULE={MODULE}");
    for test in TESTS {
        // Of what is modified nothing tells before 6.9, which two tests say.
        let lacking = if test == "files" && cell.kernel().series() < (6, 9) { 2 } else { 0 };
        passed += Tests { program: test, environment: &[&module], lacking, ..Tests::default() }
            .run(cell, &vm)?
            .count;
    }
    vm.power_off();
    Ok(Outcome::passed(format!("{passed} tests")))
}
