// SPDX-License-Identifier: Apache-2.0
//! Tries verdicts on what becomes part of the kernel and on the opening of files, through a
//! `ringfenced` that runs: in the lab, as root.
//!
//! ```text
//! verdict_trial MODULE KERNEL      all of it, a line for each thing that holds
//! verdict_trial fanotify           what of it can be asked about where there is no gate
//! verdict_trial decide ...         a client, which the trial starts as the user nobody
//! verdict_trial watch CLIENT       one that is asked about nothing
//! verdict_trial resume CLIENT      one that takes its session up again
//! verdict_trial thread             what the trial executes to have a thread of it execute something
//! ```
//!
//! MODULE is the file of a module that is not loaded, KERNEL that of a kernel for kexec. The grants
//! are in crates/lab/src/scenarios/verdicts.rs: those who are called strict have everything denied
//! that they do not answer, those who are called lax have it allowed.

#[path = "../client_process/mod.rs"]
mod client_process;
mod decider;
mod deeds;
mod openings;
mod programs;
mod steps;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: verdict_trial MODULE KERNEL, or verdict_trial fanotify";
    let first = arguments.next().context(usage)?;
    let rest: Vec<String> = arguments.collect();
    match (first.as_str(), rest.as_slice()) {
        ("decide", rest) => decider::run(rest),
        ("resume", [client]) => decider::resume(client),
        ("watch", [client]) => decider::watch(client),
        ("thread", []) => programs::execute_by_thread(),
        ("fanotify", []) => steps::run_through_fanotify(),
        (module, [kernel]) => steps::run(module, kernel),
        _ => anyhow::bail!(usage),
    }
}
