// SPDX-License-Identifier: Apache-2.0
//! The `ringfence` command. One file for each subcommand; here they are only wired together.
//!
//! Exit status of every subcommand: 0 when all is well, 1 when there is a finding or a goal is
//! missed, 2 when it could not be said, with the reason on standard error.

mod baseline;
mod bench;
mod check;
mod clients;
mod clock;
mod control;
mod coverage;
mod doctor;
mod documentation;
mod events;
mod explain;
mod explain_event;
mod image;
mod live;
mod outside;
mod report;
mod report_text;
mod rules;
mod running_image;
mod save;
#[cfg(test)]
mod schema;
mod screen;
mod signals;
mod slow;
mod status;
mod store;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Kernel patch protection for Linux: every byte of the running kernel accounted for
#[derive(Debug, Parser)]
#[command(name = "ringfence", bin_name = "ringfence", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
struct Command {
    #[command(subcommand)]
    subcommand: Subcommands,
}

const AFTER_HELP: &str = "\
Exit status: 0 when all is well, 1 when there is a finding or a goal is missed, 2 when it could
not be said; the reason is on standard error. Colours are left out when NO_COLOR is set.";

#[derive(Debug, Subcommand)]
enum Subcommands {
    Check(check::Arguments),
    Watch(watch::Arguments),
    Explain(explain::Arguments),
    Doctor(doctor::Arguments),
    Events(events::Arguments),
    Status(status::Arguments),
    Clients(clients::Arguments),
    Slow(slow::Arguments),
    Rules(rules::Arguments),
    ExplainEvent(explain_event::Arguments),
    Image(image::Arguments),
    Save(save::Arguments),
    Bench(bench::Arguments),
    #[command(hide = true)]
    Documentation(documentation::Arguments),
}

/// How a subcommand ended that could do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// All is well.
    Clean,
    /// There is a finding, or a goal was missed.
    Findings,
}

fn main() -> ExitCode {
    let ended = match Command::parse().subcommand {
        Subcommands::Check(arguments) => check::run(&arguments),
        Subcommands::Watch(arguments) => watch::run(&arguments),
        Subcommands::Explain(arguments) => explain::run(&arguments),
        Subcommands::Doctor(arguments) => doctor::run(&arguments),
        Subcommands::Events(arguments) => events::run(&arguments),
        Subcommands::Status(arguments) => status::run(&arguments),
        Subcommands::Clients(arguments) => clients::run(&arguments),
        Subcommands::Slow(arguments) => slow::run(&arguments),
        Subcommands::Rules(arguments) => rules::run(&arguments),
        Subcommands::ExplainEvent(arguments) => explain_event::run(&arguments),
        Subcommands::Image(arguments) => image::run(&arguments),
        Subcommands::Save(arguments) => save::run(&arguments),
        Subcommands::Bench(arguments) => bench::run(&arguments),
        Subcommands::Documentation(arguments) => documentation::run(&arguments, Command::command()),
    };
    match ended {
        Ok(Ending::Clean) => ExitCode::SUCCESS,
        Ok(Ending::Findings) => ExitCode::from(1),
        Err(error) => {
            use std::io::Write;
            // Nobody is left to be told when standard error is gone too.
            let _ = writeln!(std::io::stderr(), "ringfence: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_of_the_arguments_hold_together() {
        Command::command().debug_assert();
    }
}
