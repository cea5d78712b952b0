// SPDX-License-Identifier: Apache-2.0
//! `ringfence bench reader`: how fast kernel memory is read, against memcpy in the same run.

use anyhow::bail;
use clap::Args;
use probes::{LiveReader, Path, ReaderBench, bench_readers};

use super::{Bench, Goal};
use crate::report_text::duration;
use crate::screen::{Style, Table, grouped};

/// The reader's least speed by that of memcpy.
const GOAL: f64 = 0.5;

/// How fast kernel memory is read, against memcpy over the same bytes in the same run
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How often each is measured; the median counts
    #[arg(long, value_name = "N", default_value = "51", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
}

/// Measures.
pub(super) fn run(arguments: &Arguments, style: Style) -> anyhow::Result<Bench> {
    let helper = LiveReader::open(Path::Helper)?;
    let inline = LiveReader::open(Path::Inline);
    let symbols = probes::live_symbols()?;
    let bounds = (symbols.address_of("_stext"), symbols.address_of("_etext"));
    let (Some(start), Some(end)) = bounds else {
        bail!("the kernel lists no _stext or no _etext, so there is no text to read");
    };
    let mut readers = vec![&helper];
    readers.splice(0..0, inline.as_ref().ok());
    let bench =
        bench_readers(&readers, start, end.saturating_sub(start), arguments.rounds as usize)?;
    let mut text = table(&bench, style);
    if let Err(error) = inline {
        text.push_str(&format!("\nOnly the helper was measured: {error}\n"));
    }
    Ok(Bench { text, goals: goals(&bench) })
}

fn table(bench: &ReaderBench, style: Style) -> String {
    let mut table = Table::new(&[
        "reading kernel text",
        ">walk",
        ">GB/s",
        ">of memcpy",
        ">64 bytes",
        ">in a batch",
    ]);
    let row = |name: &str, speed: &probes::Speed, ratio: f64| {
        let speeds = format!("{:.2}", speed.gigabytes_per_second);
        vec![name.to_owned(), duration(speed.median), speeds, format!("{ratio:.2}")]
    };
    table.row(row("memcpy", &bench.memcpy, 1.0));
    let steps = &bench.memcpy_in_steps;
    let ratio = bench.memcpy.median.as_secs_f64() / steps.median.as_secs_f64();
    table.row(row(&format!("memcpy, {} KiB at a time", bench.step >> 10), steps, ratio));
    for path in &bench.paths {
        let mut cells = row(path.name, &path.walk, path.ratio);
        cells.extend([nanoseconds(path.small_read), nanoseconds(path.batched_read)]);
        table.row(cells);
    }
    let head = format!("{} bytes, medians of {} rounds", grouped(bench.bytes), bench.rounds);
    format!("{head}\n\n{}", table.render(style, 0))
}

fn nanoseconds(time: std::time::Duration) -> String {
    format!("{} ns", grouped(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
}

/// The path that the guard reads by is the first.
fn goals(bench: &ReaderBench) -> Vec<Goal> {
    let goal = |path: &probes::PathSpeed| {
        Goal::at_least(&format!("{}, speed by memcpy's", path.name), path.ratio, GOAL, "")
    };
    bench.paths.first().map(goal).into_iter().collect()
}
