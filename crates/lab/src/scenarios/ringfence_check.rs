// SPDX-License-Identifier: Apache-2.0
//! A kernel that nobody touched has no findings, and no check is left out.

use anyhow::ensure;

use crate::scenario::{Cell, Outcome, Scenario, everywhere};
use crate::scenarios::check::clean_report;
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "ringfence-check",
    about: "`ringfence check` runs all its checks and finds nothing on a kernel that nobody touched",
    kernels: everywhere,
    core: |_| true,
    timed: false,
    run,
};

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let vm = cell.boot(&Boot::new().file(cell.programs().ringfence(), "/usr/bin/ringfence"))?;
    let report = clean_report(cell, &vm)?;
    let checks = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(!checks.is_empty(), "no check ran");
    for check in checks {
        let status = check["status"].as_str().unwrap_or_default();
        ensure!(["ok", "reduced"].contains(&status), "a check that could not run: {check}");
    }
    vm.power_off();
    Ok(Outcome::passed(format!("{} checks ok", checks.len())))
}
