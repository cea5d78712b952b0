// SPDX-License-Identifier: Apache-2.0
//! Many products at once, some of which misbehave.
//!
//! What is tried is in crates/daemon/examples/crowd.

use std::time::Duration;

use super::{grants, trial};
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "crowd",
    about: "26 clients, one slow, one dead, one flooding, one hostile, do not feel each other",
    // The other flavour of a series has the same hooks.
    kernels: |kernel| kernel.is_for_clouds() && kernel.series() >= (6, 12),
    core: |kernel| kernel.name == "7-cloud-amd64",
    timed: true,
    run,
};

const CROWD: &str = "/lab/crowd";
const CLIENTS: u32 = 26;
const LIMIT: Duration = Duration::from_secs(600);

/// A grant for being told of execs and asked about them.
fn grant(number: u32) -> String {
    format!(
        "client = \"org.example.crowd{number}\"\naltitude = \"{}\"\n[identity]\n\
         executable = \"{CROWD}\"\nuser = \"nobody\"\n[events.process_exec]\n\
         classes = [\"notify\", \"ask\"]\ndeadline_ms = 2000\n",
        300_000 + number
    )
}

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let programs = cell.programs();
    let boot = Boot::new()
        .file(programs.other("ringfenced")?, "/usr/bin/ringfenced")
        .file(programs.other("crowd")?, CROWD);
    let vm = cell.boot(&boot)?;
    grants::install(&vm, (0..CLIENTS).map(|number| (format!("crowd{number}"), grant(number))))?;
    let held = trial::held(&trial::run(cell, &vm, "together", &[CROWD, "together"], LIMIT)?)?;
    vm.power_off();
    Ok(Outcome::passed(format!("{held} things hold")))
}
