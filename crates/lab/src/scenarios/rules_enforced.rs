// SPDX-License-Identifier: Apache-2.0
//! What rules deny fails in the caller with their errno, on each hook of the kernel that takes them.
//!
//! The test itself is that of the probes, crates/probes/tests/rules_enforced.rs, which on a host that
//! takes no LSM programs shows only that such rules are refused there.

use std::time::Duration;

use anyhow::ensure;

use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "rules-enforced",
    about: "what a client's rules deny fails with their errno, and what they tell of reaches it",
    core: |kernel| {
        matches!(&*kernel.name, "6.1-cloud-amd64" | "6.12-cloud-amd64" | "7-cloud-amd64")
    },
    run,
};

const LIMIT: Duration = Duration::from_secs(500);

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let test = cell.programs().test("rules_enforced")?;
    let vm = cell.boot(&Boot::new().file(test, "/lab/rules_enforced"))?;
    // Processors are emulated, beside other guests: what is measured there is the host.
    let test = ["/bin/env", "RINGFENCE_SLOW=1", "/lab/rules_enforced", "--ignored", "--nocapture"];
    let ran = vm.try_run_within(&[&test[..], &["--test-threads=1"]].concat(), LIMIT)?;
    cell.keep("rules_enforced.out", &ran.out)?;
    cell.keep("rules_enforced.err", &ran.err)?;
    let (said, errors) = (ran.text(), ran.errors());
    let failed: Vec<_> = said.lines().filter(|line| line.ends_with("FAILED")).collect();
    ensure!(ran.code == 0, "exit code {}: {failed:?}: {errors}", ran.code);
    // Questions need the gate, which came with 6.12.
    let has_gate = cell.kernel().series() >= (6, 12);
    let lacking = errors.lines().filter(|line| line.contains("not looked for")).count();
    ensure!(lacking <= usize::from(!has_gate), "the kernel does not take all: {errors}");
    let count = said.lines().find_map(|line| {
        line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u32>().ok()
    });
    ensure!(count.is_some_and(|count| count > 0), "no test ran");
    vm.power_off();
    Ok(Outcome::passed(format!("{} tests", count.unwrap_or(0))))
}
