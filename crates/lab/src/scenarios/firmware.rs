// SPDX-License-Identifier: Apache-2.0
//! Firmware is told of and denied, where a driver can be had to ask for some whenever it is told to.
//!
//! The tests are those of crates/probes/tests/firmware.rs, which say what that driver is.

use super::tests_in_guest::Tests;
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "firmware",
    about: "firmware that a driver asks for is told of, and denied with the errno of a rule",
    // Kernels for clouds have no driver that asks for firmware without a device.
    kernels: |kernel| !kernel.is_for_clouds(),
    core: |kernel| kernel.name == "7-amd64",
    timed: true,
    run,
};

const TEST: &str = "firmware";

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let test = cell.programs().other(TEST)?;
    let boot = Boot::new()
        .module("cfg80211")
        .file(test, format!("/lab/{TEST}"))
        // Any file will do that is none of that driver's.
        .file(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "/lib/firmware/regulatory.db");
    let vm = cell.boot(&boot)?;
    let passed = Tests { program: TEST, ..Tests::default() }.run(cell, &vm)?;
    vm.power_off();
    Ok(Outcome::passed(format!("{} tests", passed.count)))
}
