// SPDX-License-Identifier: Apache-2.0
//! `ringfence bench mutations`: random changes of the live text, put through the comparison that
//! runs live, none of them made in the kernel itself.

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use guard::baseline::Baseline;
use guard::confirm::all_keys;
use guard::journal::Journal;
use guard::mutation::{Tally, mutate};
use guard::sites::{Sites, State};
use kernel_memory::Kernel;

use super::guard::StateDirectory;
use super::{Bench, Goal};
use crate::live::Host;
use crate::report_text::duration;
use crate::screen::{Style, grouped};

/// Most of the text that may be mutable, in percent.
const MUTABLE_PERCENT: f64 = 1.8;

/// Random changes to a copy of the live text: how many are found
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How many changes, half of one byte and half of five
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// The same seed makes the same changes
    #[arg(long, value_name = "N", default_value = "24301")]
    seed: u64,
}

/// Makes the changes and counts.
pub(super) fn run(arguments: &Arguments, _: Style) -> anyhow::Result<Bench> {
    let directory = StateDirectory::new()?;
    let host = Host::open(&directory.place().into())?;
    let journal = Journal::unavailable("nothing is changed in the kernel");
    let started = Instant::now();
    let tally = host.with_system(&journal, |system| {
        let sites = system.baseline.sites(&system.kernel);
        let state = state(&system.kernel, sites)?;
        let mut oracle =
            |_: &_, start: u64, seen: &[u8]| is_listed(start, seen, system.baseline, sites, &state);
        let how = (arguments.count, arguments.seed);
        mutate(system.baseline, sites, &state, how, &mut oracle)
    });
    let tally = match tally {
        Ok(tally) => tally,
        Err(missing) => bail!("the changes could not be made: {}", missing.0),
    };
    let mut text =
        format!("{} changes in {}\n\n", grouped(tally.changes), duration(started.elapsed()));
    let illegal = tally.changes - tally.legal;
    for (what, figure) in [
        ("text bytes", grouped(tally.bytes)),
        (
            "  of which mutable",
            format!("{} ({:.2} %)", grouped(tally.mutable), tally.mutable_percent()),
        ),
        ("sites", grouped(tally.sites)),
        ("  legal encodings a site, mean", format!("{:.2}", tally.mean_encodings())),
        ("changes to a legal encoding", grouped(tally.legal)),
        ("changes outside legal encodings", grouped(illegal)),
        ("  found", format!("{} of {}", grouped(found(&tally)), grouped(illegal))),
    ] {
        text.push_str(&format!("{what:<34}  {figure:>20}\n"));
    }
    for missed in tally.missed.iter().take(10) {
        text.push_str(&format!("missed at {:#x}: {:02x?}\n", missed.address, missed.bytes));
    }
    let share = 100.0 * found(&tally) as f64 / (illegal as f64).max(1.0);
    let goals = vec![
        Goal::at_least("found of what is outside legal encodings", share, 100.0, " %"),
        Goal::at_most("mutable share of text", tally.mutable_percent(), MUTABLE_PERCENT, " %"),
    ];
    Ok(Bench { text, goals })
}

/// Changes outside legal encodings that were found.
fn found(tally: &Tally) -> u64 {
    tally.changes - tally.legal - tally.missed.len() as u64
}

fn state(kernel: &Kernel<'_>, sites: &Sites) -> Result<State, guard::Missing> {
    let mut state = State::of_symbols(kernel.symbols);
    state.read_functions(kernel, all_keys(sites))?;
    state.read_enabled(kernel, sites.jump_labels.entries().iter().map(|entry| entry.key))?;
    Ok(state)
}

/// Whether each byte that differs lies in a site, and each such site holds one of the encodings that
/// are listed for it. Listing them is other code than judging bytes, which is what is measured.
fn is_listed(start: u64, seen: &[u8], baseline: &Baseline, sites: &Sites, state: &State) -> bool {
    let expected = baseline.bytes_at(start, seen.len()).unwrap_or_default();
    let pairs = seen.iter().zip(expected).zip(start..);
    let mut differing = pairs.filter(|((seen, expected), _)| seen != expected).map(|(_, at)| at);
    differing.all(|at| {
        let Some(site) = sites.at(at) else { return false };
        let from = site.address.checked_sub(start).map(|from| from as usize);
        let bytes = from.and_then(|from| seen.get(from..from + usize::from(site.length)));
        sites.legal(&site, state).iter().any(|legal| Some(&*legal.bytes) == bytes)
    })
}
