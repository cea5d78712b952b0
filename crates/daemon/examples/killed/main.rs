// SPDX-License-Identifier: Apache-2.0
//! The daemon is killed: what waited goes on as declared, and what rules deny stays denied. In the lab, as root.
//!
//! ```text
//! killed waiting        100 programs wait for a verdict meanwhile
//! killed ruled          rules deny a program meanwhile
//! killed be ROLE CLIENT a client, which the others start as the user nobody
//! ```
//!
//! Each thing that holds is a line. The grants are in crates/lab/src/scenarios/killed.rs.

#[path = "../client_process/mod.rs"]
mod client_process;
#[path = "../crowd/host.rs"]
mod host;
mod roles;
mod ruled;
mod waiting;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["waiting"] => waiting::run(),
        ["ruled"] => ruled::run(),
        ["be", role, client] => roles::run(role, client),
        other => anyhow::bail!("{other:?} is none of waiting, ruled, be ROLE CLIENT"),
    }
}
