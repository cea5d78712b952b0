// SPDX-License-Identifier: Apache-2.0
//! `ringfence-lab`: run a command under a Debian kernel, or all scenarios under all of them.

mod all;
mod run;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Boots real Debian kernels in virtual machines and runs things in them
#[derive(Parser, Debug)]
#[command(name = "ringfence-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Boot a kernel, run a command as root, and end with its exit code
    Run(Box<run::Arguments>),
    /// Run scenarios on kernels, all of them unless told otherwise
    Scenarios(all::Arguments),
    /// Write docs/detection.md, of the attacks that were last carried out
    Detection,
    /// Write docs/coverage.md, of the doors that tests in guests opened last
    Coverage,
    /// List the kernels that were fetched
    Kernels,
    /// The lab's end in a guest
    #[command(hide = true)]
    Agent,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Scenarios(arguments) => all::run(&arguments),
        Command::Detection => detection(),
        Command::Coverage => coverage(),
        Command::Kernels => list(),
        Command::Agent => lab::agent::serve().map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ringfence-lab: {error:#}");
        // Codes below are the command's own.
        ExitCode::from(125)
    })
}

fn detection() -> anyhow::Result<ExitCode> {
    let kernels = lab::kernels::all(&lab::kernels::cache())?;
    let page = lab::detection::page(&lab::logs(), &kernels);
    let page = page.context("no attack was carried out: make lab SCENARIO=attacks")?;
    write("docs/detection.md", &page)
}

fn coverage() -> anyhow::Result<ExitCode> {
    let kernels = lab::kernels::all(&lab::kernels::cache())?;
    let page = lab::coverage::page(&lab::logs(), &kernels);
    let page = page.context("no door was opened: make lab SCENARIO=events, and verdicts")?;
    write("docs/coverage.md", &page)
}

fn write(page: &str, text: &str) -> anyhow::Result<ExitCode> {
    let path = lab::kernels::repository().join(page);
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    println!("{} is written", path.display());
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<ExitCode> {
    for kernel in lab::kernels::all(&lab::kernels::cache())? {
        println!("{:<18} {:<28} {}", kernel.name, kernel.release, kernel.version);
    }
    Ok(ExitCode::SUCCESS)
}
