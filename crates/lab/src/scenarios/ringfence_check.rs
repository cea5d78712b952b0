// SPDX-License-Identifier: Apache-2.0
//! A kernel that nobody touched has no findings, and no check is left out.

use crate::scenario::{Cell, Outcome, Scenario, only_core};
use crate::scenarios::check::{all_checked, clean_report};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "ringfence-check",
    about: "`ringfence check` runs all its checks and finds nothing on a kernel that nobody touched",
    // The matrix wants the same of each kernel in its first variant.
    kernels: only_core,
    core: |_| true,
    timed: false,
    run,
};

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let vm = cell.boot(&Boot::new().file(cell.programs().ringfence(), "/usr/bin/ringfence"))?;
    let report = clean_report(cell, &vm)?;
    let checks = all_checked(&report)?;
    vm.power_off();
    Ok(Outcome::passed(format!("{checks} checks ok")))
}
