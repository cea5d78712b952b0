// SPDX-License-Identifier: Apache-2.0
//! What an exec costs while clients listen and while they are asked, in instructions.
//!
//! What is measured is in crates/daemon/examples/figures.rs, on a machine whose clock counts instructions.
//! All processors of such a guest share one clock, so what is done at the same time on two of them counts
//! twice: it is the work that is measured and not the wait.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::{grants, trial, verity};
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

pub(crate) const NAME: &str = "figures";

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: NAME,
    about: "prints what an exec costs with observers, rules and askers, in instructions",
    // Instructions are counted, so one kernel is enough to compare.
    kernels: |kernel| kernel.name == "6.12-cloud-amd64",
    core: |_| false,
    timed: false,
    run,
};

const FIGURES: &str = "/lab/figures";
const ASKERS: u32 = 8;
const LIMIT: Duration = Duration::from_secs(600);

fn grant(number: u32) -> String {
    format!(
        "client = \"org.example.asker{number}\"\naltitude = \"{}\"\n[identity]\n\
         executable = \"{FIGURES}\"\nuser = \"nobody\"\n[events.process_exec]\nclasses = [\"ask\"]\n\
         deadline_ms = 10000\n",
        500_000 + number
    )
}

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    if cell.kernel().series() < (6, 12) {
        return Ok(Outcome::skipped("nobody can be asked by the gate before 6.12"));
    }
    let programs = cell.programs();
    let boot = Boot::new()
        .file(programs.other("ringfenced")?, "/usr/bin/ringfenced")
        .file(programs.other("figures")?, FIGURES);
    let vm = cell.boot(&verity::with_file_system(boot).counted())?;
    vm.shell(verity::FILE_SYSTEM)?;
    grants::install(&vm, (0..ASKERS).map(|number| (format!("asker{number}"), grant(number))))?;
    let verity = format!("RINGFENCE_VERITY={}", verity::PLACE);
    let measure = |part| trial::run(cell, &vm, part, &["env", &verity, FIGURES, part], LIMIT);
    let told = [measure("observers")?, measure("ruled")?];
    let daemon = vm.start(&["ringfenced"], LIMIT * 2)?;
    let wait = "i=0; until [ -S /run/ringfence/control ]; do i=$((i+1)); [ $i -lt 600 ] || exit 1; \
                sleep 0.1; done";
    vm.shell(wait)?;
    let text = [told.join("\n"), measure("asked")?].join("\n");
    drop(daemon);
    vm.power_off();
    cell.keep("figures.txt", text.as_bytes())?;
    let figures = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.with_context(|| format!("nothing of {name} in\n{text}"))
    };
    // With what the exec itself costs.
    let cost = |name: &str| -> anyhow::Result<u64> {
        Ok(figures(name)?.split(' ').next().context("no number")?.parse()?)
    };
    let (few, many) = (cost("10 rules, 10 digests")?, cost("10,000 rules, a million digests")?);
    ensure!(many < few + few / 50, "many rules cost {many}, and few {few}");
    ensure!(text.contains("a million digests and the program's own deny it"), "{text}");
    // What clients do with what they are asked is their own.
    let base = cost("nobody asks")?;
    let added = |name: &str| -> anyhow::Result<u64> {
        let clients = figures(name)?.rsplit_once(", of which clients ");
        let clients = clients.with_context(|| format!("nothing of clients of {name}"))?.1;
        Ok(cost(name)?.saturating_sub(base + clients.parse::<u64>()?))
    };
    let (one, eight) = (added("1 asker")?, added("8 askers")?);
    // Twice as much, give or take what the scheduler does; asked one after the other it would be eight times.
    ensure!(2 * eight < 5 * one, "8 askers add {eight}, and 1 adds {one}");
    Ok(Outcome::passed(text.trim().replace('\n', "; ")))
}
