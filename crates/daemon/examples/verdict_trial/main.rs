// SPDX-License-Identifier: Apache-2.0
//! Tries verdicts on what becomes part of the kernel and on the opening of files, through a
//! `ringfenced` that runs: in the lab, as root.
//!
//! ```text
//! verdict_trial MODULE KERNEL      all of it, a line for each thing that holds
//! verdict_trial decide ...         a client, which the trial starts as the user nobody
//! ```
//!
//! MODULE is the file of a module that is not loaded, KERNEL that of a kernel for kexec. The grants
//! are in crates/lab/src/scenarios/verdicts.rs: those who are called strict have everything denied
//! that they do not answer, those who are called lax have it allowed.

#[path = "../client_process/mod.rs"]
mod client_process;
mod decider;
mod deeds;
mod steps;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().context("usage: verdict_trial MODULE KERNEL")?;
    let rest: Vec<String> = arguments.collect();
    if first == "decide" {
        return decider::run(&rest);
    }
    let [kernel] = rest.as_slice() else { anyhow::bail!("usage: verdict_trial MODULE KERNEL") };
    steps::run(&first, kernel)
}
