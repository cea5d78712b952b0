// SPDX-License-Identifier: Apache-2.0
//! What rules deny fails in the caller with their errno, on each hook of the kernel that takes them.
//!
//! The tests themselves are crates/probes/tests/rules_enforced.rs, rules_conditions.rs, rules_indirect.rs and, through the daemon with a client
//! of the user nobody, crates/daemon/tests/rules_live.rs. On a host that takes no LSM programs they show
//! only that such rules are refused there.

use super::tests_in_guest::Tests;
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "rules-enforced",
    about: "what a client's rules deny fails with their errno, and what they tell of reaches it",
    // The other flavour of a series has the same hooks.
    kernels: Kernel::is_for_clouds,
    core: |kernel| {
        matches!(&*kernel.name, "6.1-cloud-amd64" | "6.12-cloud-amd64" | "7-cloud-amd64")
    },
    timed: true,
    run,
};

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let programs = cell.programs();
    let boot = Boot::new()
        .module("binfmt_misc")
        .file(programs.other("rules_enforced")?, "/lab/rules_enforced")
        .file(programs.other("rules_conditions")?, "/lab/rules_conditions")
        .file(programs.other("rules_indirect")?, "/lab/rules_indirect")
        .file(programs.other("rules_live")?, "/lab/rules_live");
    let vm = cell.boot(&boot)?;
    // Questions need the gate, which came with 6.12.
    let has_gate = cell.kernel().series() >= (6, 12);
    let lacking = usize::from(!has_gate);
    let enforced = Tests { program: "rules_enforced", lacking, ..Tests::default() };
    // A million digests take an emulated processor a minute to read, and the host's own a second.
    let without: &[&str] = &["--skip", "million"];
    let live = Tests { program: "rules_live", arguments: without, ..Tests::default() };
    let conditions = Tests { program: "rules_conditions", ..Tests::default() };
    let mut passed = 0;
    let indirect = Tests { program: "rules_indirect", lacking, ..Tests::default() };
    for tests in [enforced, conditions, indirect, live] {
        passed += tests.run(cell, &vm)?.count;
    }
    vm.power_off();
    Ok(Outcome::passed(format!("{passed} tests")))
}
