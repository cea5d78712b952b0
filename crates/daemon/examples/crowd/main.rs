// SPDX-License-Identifier: Apache-2.0
//! Many products at once, some of which misbehave: in the lab, as root.
//!
//! ```text
//! crowd together       26 clients, one of them slow, one dead, one flooding, one hostile
//! crowd be ROLE CLIENT a client, which the others start as the user nobody
//! ```
//!
//! Each thing that holds is a line. The grants are in crates/lab/src/scenarios/crowd.rs.

#[path = "../client_process/mod.rs"]
mod client_process;
mod host;
mod roles;
mod together;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["together"] => together::run(),
        ["be", role, client] => roles::run(role, client),
        other => anyhow::bail!("{other:?} is none of together, be ROLE CLIENT"),
    }
}
