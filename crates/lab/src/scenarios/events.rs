// SPDX-License-Identifier: Apache-2.0
//! Events of the kernel reach clients' rings: each by its doors and by nothing else.
//!
//! The tests are those of crates/probes/tests, which run on the host too as far as it takes programs:
//! here it takes all of them, LSM programs among them.

use std::time::Duration;

use anyhow::ensure;

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
const TESTS: [&str; 4] = ["events", "rings", "lsm_events", "doors"];
/// A module that does nothing, and is unloaded to be told of.
const MODULE: &str = "dummy";
const LIMIT: Duration = Duration::from_secs(600);

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let mut boot = Boot::new().module(MODULE);
    for test in TESTS {
        boot = boot.file(cell.programs().other(test)?, format!("/lab/{test}"));
    }
    let vm = cell.boot(&boot)?;
    let mut passed = 0;
    for test in TESTS {
        let program = format!("/lab/{test}");
        let module = format!("RINGFENCE_MODULE={MODULE}");
        // Processors are emulated, beside other guests: what is measured there is the host.
        let slow = "RINGFENCE_SLOW=1";
        let ran = [
            "/usr/bin/env",
            &module,
            slow,
            &program,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ];
        let ran = vm.try_run_within(&ran, LIMIT)?;
        cell.keep(&format!("{test}.out"), &ran.out)?;
        cell.keep(&format!("{test}.err"), &ran.err)?;
        let (said, errors) = (ran.text(), ran.errors());
        let failed: Vec<_> = said.lines().filter(|line| line.ends_with("FAILED")).collect();
        ensure!(ran.code == 0, "{test}: exit code {}: {failed:?}: {errors}", ran.code);
        ensure!(!errors.contains("not looked for"), "the kernel does not take all: {errors}");
        let count = said.lines().find_map(|line| {
            line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u32>().ok()
        });
        passed += count.unwrap_or(0);
    }
    ensure!(passed > 0, "no test ran");
    vm.power_off();
    Ok(Outcome::passed(format!("{passed} tests")))
}
