// SPDX-License-Identifier: Apache-2.0
//! The daemon is killed or stopped while 100 programs wait, and killed while rules deny one.
//!
//! What is tried is in crates/daemon/examples/killed.

use std::time::Duration;

use super::{grants, trial};
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "killed",
    about: "as the daemon is killed 100 programs that wait go on as declared, and what rules deny stays denied",
    // The other flavour of a series has the same hooks.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "7-cloud-amd64",
    timed: true,
    run,
};

const KILLED: &str = "/lab/killed";
const LIMIT: Duration = Duration::from_secs(600);

fn grant(client: &str, altitude: u32, event: &str) -> String {
    format!(
        "client = \"org.example.{client}\"\naltitude = \"{altitude}\"\n[identity]\n\
         executable = \"{KILLED}\"\nuser = \"nobody\"\n[limits]\nmax_pending = 200\n\
         [events.process_exec]\n{event}"
    )
}

/// A grant for being asked about execs. What is not answered in time comes to `policy`.
fn asked(policy: &str) -> String {
    format!(
        "classes = [\"ask\"]\ndeadline_ms = 60000\n[events.process_exec.failure]\n\
         deadline_missed = \"{policy}\"\nqueue_full = \"{policy}\"\nclient_died = \"{policy}\"\n\
         not_connected = \"allow\"\nringfenced_gone = \"{policy}\"\n"
    )
}

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let programs = cell.programs();
    let boot = Boot::new()
        .file(programs.other("ringfenced")?, "/usr/bin/ringfenced")
        .file(programs.other("killed")?, KILLED);
    let vm = cell.boot(&boot)?;
    let ruling = grant("ruling", 300_000, "classes = [\"rule\"]\n");
    let waiting = [("killed-allow", 310_000, "allow"), ("killed-deny", 320_000, "deny")]
        .map(|(client, altitude, policy)| (client, grant(client, altitude, &asked(policy))));
    grants::install(&vm, [("ruling", ruling)].into_iter().chain(waiting))?;
    // Without a gate nobody waits.
    let has_gate = cell.kernel().series() >= (6, 12);
    let parts: &[&str] = if has_gate { &["ruled", "waiting"] } else { &["ruled"] };
    let mut held = 0;
    for part in parts {
        held += trial::held(&trial::run(cell, &vm, part, &[KILLED, part], LIMIT)?)?;
    }
    vm.power_off();
    Ok(Outcome::passed(format!("{held} things hold")))
}
