// SPDX-License-Identifier: Apache-2.0
//! `ringfence-lab scenarios`: scenarios on kernels, and a table of how they came out.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use lab::scenarios::{closing, usual_seconds};
use lab::{Programs, Scenario, Totals, kernels, schedule, table};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only kernels that are called so: 7.3, 6.12-cloud-amd64, the beginning of a release
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,

    /// Only this scenario
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,

    /// Only what `make test` runs
    #[arg(long)]
    core: bool,

    /// How many guests run at once [default: as many as there are processors, without --core two more]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// The command that is tested [default: target/release/ringfence in the repository]
    #[arg(long, value_name = "FILE")]
    ringfence: Option<PathBuf>,

    /// List the scenarios and what they show, and run none
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let scenarios = wanted(&arguments.scenario)?;
    if arguments.list {
        for scenario in scenarios {
            println!("{:<20} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let cache = kernels::cache();
    let mut kernels = kernels::all(&cache)?;
    if !arguments.kernel.is_empty() {
        for name in &arguments.kernel {
            kernels::called(&cache, name)?;
        }
        kernels.retain(|kernel| arguments.kernel.iter().any(|name| kernel.is_called(name)));
    }
    let ringfence = arguments.ringfence.clone();
    let ringfence =
        ringfence.unwrap_or_else(|| kernels::repository().join("target/release/ringfence"));
    let programs = Programs::new(&ringfence)?;

    let both_named = !arguments.kernel.is_empty() && !arguments.scenario.is_empty();
    let mut cells = Vec::new();
    for scenario in &scenarios {
        for kernel in &kernels {
            let wanted = if arguments.core { scenario.core } else { scenario.kernels };
            if wanted(kernel) || (both_named && !arguments.core) {
                cells.push((*scenario, kernel.clone()));
            }
        }
    }
    if cells.is_empty() {
        bail!("nothing to run: the core set has no such scenario on such a kernel");
    }
    schedule::longest_first(&mut cells, usual_seconds);
    let started = Instant::now();
    let mut verdicts = {
        let logs = lab::logs();
        // What is about time waits for most of it, and what is not gives way to it, so three guests more keep
        // all processors busy (with two a quarter of them was idle); a core set is over too soon for that
        // to be worth it.
        let processors = available_parallelism().map_or(1, NonZero::get);
        let more = if arguments.core { 0 } else { 3 };
        let jobs = arguments.jobs.unwrap_or(processors + more);
        schedule::run(&cells, &programs, jobs, &logs, arguments.core)
    };
    let rows: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
    let columns: Vec<_> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    table::fail_what_was_skipped_everywhere(&mut verdicts);
    let mut problems = Vec::new();
    for closing in rows.iter().filter_map(|name| closing(name, &lab::logs(), &kernels)) {
        println!("{}", closing.text);
        problems.extend(closing.problems);
    }
    println!("{}", table::table(&verdicts, &rows, &columns));
    let took = started.elapsed().as_secs_f64() / 60.0;
    let guests: f64 = verdicts.iter().map(|one| one.processor.as_secs_f64()).sum();
    println!("took {took:.1} min, guests {:.1} min of processor time", guests / 60.0);
    let mut totals = Totals::of(&verdicts);
    for problem in &problems {
        println!("FAILED: {problem}");
    }
    totals.failed += problems.len();
    println!("{}", totals.line());
    Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wanted(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let all = lab::scenarios::all();
    for name in names {
        if !all.iter().any(|scenario| scenario.name == name) {
            let there: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
            bail!("no scenario is called {name}; there are {}", there.join(", "));
        }
    }
    let wanted =
        all.into_iter().filter(|one| names.is_empty() || names.iter().any(|n| n == one.name));
    Ok(wanted.collect())
}
