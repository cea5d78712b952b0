// SPDX-License-Identifier: Apache-2.0
//! Tries the gate on the kernel that it runs on: in the lab, as root.
//!
//! ```text
//! gate_trial support    whether there can be a gate here; 3 and the reason if not
//! gate_trial            all of it, a line for each thing that holds
//! gate_trial cost       what a question costs
//! gate_trial daemon     the daemon's part, which the others start
//! ```
//!
//! Three parts. The *trial* loads bpf/gate_trial.bpf.c, whose scope are its own descendants, and starts
//! tasks, which do what is asked about. The *daemon*, a child of its own so that it can be stopped and
//! killed, opens the gate and answers as it is told to. Programs and maps are the trial's, as in a
//! product they are pinned: they outlive the daemon.

mod cost;
mod daemon;
mod programs;
mod remote;
mod steps;
mod tasks;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let part = std::env::args().nth(1).unwrap_or_default();
    match part.as_str() {
        "daemon" => daemon::run()?,
        "support" | "" | "cost" => {
            if let Err(reason) = probes::gate_support() {
                println!("no gate: {reason}");
                return Ok(ExitCode::from(3));
            }
            match part.as_str() {
                "support" => println!("there is a gate"),
                "cost" => cost::run()?,
                _ => steps::run()?,
            }
        }
        other => anyhow::bail!("{other} is none of support, cost, daemon"),
    }
    Ok(ExitCode::SUCCESS)
}
