// SPDX-License-Identifier: Apache-2.0
//! What rules deny fails in the caller with their errno, on each hook of the kernel that takes them.
//!
//! The tests themselves are crates/probes/tests/rules_enforced.rs and, through the daemon with a client
//! of the user nobody, crates/daemon/tests/rules_live.rs. On a host that takes no LSM programs they show
//! only that such rules are refused there.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::{Boot, Vm};

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

const LIMIT: Duration = Duration::from_secs(500);

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let programs = cell.programs();
    let boot = Boot::new()
        .file(programs.other("rules_enforced")?, "/lab/rules_enforced")
        .file(programs.other("rules_live")?, "/lab/rules_live");
    let vm = cell.boot(&boot)?;
    // Questions need the gate, which came with 6.12.
    let has_gate = cell.kernel().series() >= (6, 12);
    let mut passed = tried(cell, &vm, "rules_enforced", usize::from(!has_gate))?;
    passed += tried(cell, &vm, "rules_live", 0)?;
    vm.power_off();
    Ok(Outcome::passed(format!("{passed} tests")))
}

/// Runs the tests of a program, which may say of so many things that they cannot be looked for.
fn tried(cell: &Cell<'_>, vm: &Vm, program: &str, lacking: usize) -> anyhow::Result<u32> {
    // Processors are emulated, beside other guests: what is measured there is the host.
    let path = format!("/lab/{program}");
    let test = ["/bin/env", "RINGFENCE_SLOW=1", &path, "--ignored", "--nocapture"];
    let ran = vm.try_run_within(&[&test[..], &["--test-threads=1"]].concat(), LIMIT)?;
    cell.keep(&format!("{program}.out"), &ran.out)?;
    cell.keep(&format!("{program}.err"), &ran.err)?;
    let (said, errors) = (ran.text(), ran.errors());
    let failed: Vec<_> = said.lines().filter(|line| line.ends_with("FAILED")).collect();
    ensure!(ran.code == 0, "{program}: exit code {}: {failed:?}: {errors}", ran.code);
    let lines = said.lines().chain(errors.lines());
    let missing: Vec<_> = lines.filter(|line| line.contains("not looked for")).collect();
    ensure!(missing.len() <= lacking, "the kernel does not take all: {missing:?}");
    let count = said.lines().find_map(|line| {
        line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u32>().ok()
    });
    let count = count.filter(|count| *count > 0);
    count.with_context(|| format!("{program}: no test ran"))
}
