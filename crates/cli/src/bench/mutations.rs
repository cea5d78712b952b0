// SPDX-License-Identifier: Apache-2.0
//! `ringfence bench mutations`: random changes of a copy of the kernel's text and read-only data and of
//! those of its modules, put through the comparison that the checks use. Nothing is changed in the kernel
//! itself: what it holds is read from the running kernel, or from a dump or a guest's memory.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use guard::baseline::{Region, RegionKind};
use guard::checks::module_text;
use guard::confirm::all_keys;
use guard::journal::Journal;
use guard::mutation::{Mutation, Subject, Tally, mutate_copy};
use guard::owners::Owners;
use guard::recover::Recovered;
use guard::sites::{Sites, State};
use guard::{Missing, System};
use kernel_memory::{Kernel, Piece};

use super::guard::StateDirectory;
use super::{Bench, Goal};
use crate::baseline;
use crate::live::Host;
use crate::outside::{self, Outside};
use crate::report_text::duration;
use crate::screen::{Style, Table, grouped};

/// Most of the text that may be mutable, in percent.
const MUTABLE_PERCENT: f64 = 1.8;

/// Random changes to a copy of text and read-only data: how many are found
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How many changes, half of one byte and half of five, spread over memory by size
    #[arg(long, alias = "count", value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..))]
    changes: u64,

    /// The same seed makes the same changes
    #[arg(long, value_name = "N", default_value = "24301")]
    seed: u64,

    /// Take what a dump holds instead of the running kernel
    #[arg(long, value_name = "FILE")]
    core: Option<PathBuf>,

    /// The image of the kernel in the dump
    #[arg(long, value_name = "FILE", requires = "core")]
    image: Option<PathBuf>,

    /// Where the files of the modules in the dump are
    #[arg(long, value_name = "DIR", requires = "core")]
    modules: Option<PathBuf>,
}

/// Makes the changes and counts.
pub(super) fn run(arguments: &Arguments, style: Style) -> anyhow::Result<Bench> {
    let started = Instant::now();
    let how = (arguments.changes, arguments.seed);
    let changed = match &arguments.core {
        None => {
            let directory = StateDirectory::new()?;
            let host = Host::open(&directory.place().into())?;
            let journal = Journal::unavailable("nothing is changed in the kernel");
            host.with_system(&journal, |system| change(system, how))
        }
        Some(core) => {
            let baselines =
                baseline::Arguments::of_files(arguments.image.clone(), arguments.modules.clone());
            let outside = Outside::open(&outside::Arguments::of_core(core), &baselines)?;
            outside.with_system(|system| change(system, how))
        }
    };
    match changed {
        Ok(changed) => Ok(told(&changed, started.elapsed(), style)),
        Err(missing) => bail!("the changes could not be made: {}", missing.0),
    }
}

/// Kinds of memory, in the order of the table.
const KINDS: [&str; 4] = ["text", "read-only data", "text of modules", "read-only data of modules"];

/// What became of the changes.
#[derive(Default)]
struct Changed {
    /// By kind of memory.
    tallies: [Tally; KINDS.len()],
    modules: usize,
    /// Places that differ from what they should hold as a table allows.
    explained: u64,
    /// Bytes that were put into order before the first change.
    restored: u64,
    /// What could not be looked at, and why.
    notices: Vec<String>,
    changing: Duration,
}

/// A stretch of memory with what it should hold.
struct Part<'a> {
    kind: usize,
    region: Region<'a>,
    sites: &'a Sites,
    state: &'a State,
    seen: Vec<u8>,
}

/// Reads all of it, and makes the changes to the copy.
fn change(system: &System<'_>, (changes, seed): (u64, u64)) -> Result<Changed, Missing> {
    let System { kernel, baseline, .. } = system;
    let mut changed = Changed::default();
    let none = (Sites::default(), State::default());
    let sites = baseline.sites(kernel);
    let owners = Owners::gather(kernel, &mut Recovered::default());
    let state = state_of(kernel, sites, &owners)?;
    let mut modules = Vec::new();
    match module_text::each(system) {
        Ok(each) => {
            for (name, made) in each {
                match made {
                    Ok(baseline) => modules.push(baseline),
                    Err(missing) => {
                        changed.notices.push(format!("module {name} is left out: {}", missing.0));
                    }
                }
            }
        }
        Err(missing) => changed.notices.push(format!("modules are left out: {}", missing.0)),
    }
    changed.modules = modules.len();
    let states = modules.iter().map(|module| state_of(kernel, module.sites(kernel), &owners));
    let states = states.collect::<Result<Vec<State>, Missing>>()?;

    let mut parts = Vec::new();
    let mut add = |kind, region, (sites, state)| -> Result<(), Missing> {
        let seen = read(kernel, region, sites, state, &mut changed)?;
        parts.push(Part { kind, region, sites, state, seen });
        Ok(())
    };
    for region in baseline.regions() {
        match region.kind {
            RegionKind::Text => add(0, region, (sites, &state))?,
            RegionKind::Rodata => add(1, region, (&none.0, &none.1))?,
        }
    }
    for (module, state) in modules.iter().zip(&states) {
        for region in module.regions() {
            match region.kind {
                RegionKind::Text => add(2, region, (module.sites(kernel), state))?,
                RegionKind::Rodata => add(3, region, (&none.0, &none.1))?,
            }
        }
    }

    let started = Instant::now();
    let all: u64 = parts.iter().map(|part| part.seen.len() as u64).sum();
    let share = |bytes: u64| {
        let share = u128::from(changes) * u128::from(bytes) / u128::from(all.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    let mut before = 0;
    for (part, seed) in parts.iter().zip(seed..) {
        let Part { kind, region, sites, state, seen } = part;
        let after = before + seen.len() as u64;
        let count = share(after) - share(before);
        before = after;
        let subject = Subject { start: region.start, seen, expected: region.bytes, sites, state };
        let mut oracle =
            |change: &Mutation, start: u64, seen: &[u8]| is_listed(change, start, seen, &subject);
        let tally = mutate_copy(&subject, (count, seed), &mut oracle);
        if let Some(sum) = changed.tallies.get_mut(*kind) {
            sum.add(tally);
        }
    }
    changed.changing = started.elapsed();
    Ok(changed)
}

/// What memory holds of a region. Where that cannot be read, or is something that only more than the
/// tables explains (a kprobe) or nothing at all, what it should hold is taken, and its bytes are counted.
fn read(
    kernel: &Kernel<'_>,
    region: Region<'_>,
    sites: &Sites,
    state: &State,
    changed: &mut Changed,
) -> Result<Vec<u8>, Missing> {
    let mut seen = region.bytes.to_vec();
    kernel.memory.visit(region.start, region.bytes.len() as u64, &mut |piece| {
        match piece {
            Piece::Bytes { address, bytes } => {
                let from = address.wrapping_sub(region.start) as usize;
                if let Some(place) = seen.get_mut(from..from.saturating_add(bytes.len())) {
                    place.copy_from_slice(bytes);
                }
            }
            Piece::Unreadable { length, .. } => changed.restored += length,
        }
        ControlFlow::Continue(())
    })?;
    let expected = region.bytes;
    let subject = Subject { start: region.start, seen: &seen, expected, sites, state };
    let (explained, unexplained) = subject.differing();
    changed.explained += explained.len() as u64;
    for site in explained.iter().filter_map(|place| place.site) {
        if !subject.is_listed(&site) {
            let (kind, at) = (site.kind.name(), site.address);
            changed.notices.push(format!("the {kind} at {at:#x} holds what is not listed for it"));
        }
    }
    for place in unexplained {
        let from = place.start.wrapping_sub(region.start) as usize;
        let range = from..from.saturating_add(place.length());
        if let (Some(to), Some(expected)) = (seen.get_mut(range.clone()), expected.get(range)) {
            to.copy_from_slice(expected);
        }
        changed.restored += place.end - place.start;
    }
    Ok(seen)
}

fn state_of(kernel: &Kernel<'_>, sites: &Sites, owners: &Owners) -> Result<State, Missing> {
    let mut state = State::of_symbols(kernel.symbols);
    state.learn(owners);
    state.read_functions(kernel, all_keys(sites))?;
    state.read_enabled(kernel, sites.jump_labels.entries().iter().map(|entry| entry.key))?;
    Ok(state)
}

/// Whether each byte of the change that differs from what should be there lies in a site, and each site
/// that it touches holds what it should or one of the encodings that are listed for it. Listing them is
/// other code than judging bytes, which is what is measured.
fn is_listed(change: &Mutation, start: u64, seen: &[u8], subject: &Subject<'_>) -> bool {
    let Subject { sites, state, .. } = subject;
    let cut = |bytes: &[u8], from: u64, at: u64, length: usize| {
        let at = usize::try_from(at.checked_sub(from)?).ok()?;
        bytes.get(at..at.checked_add(length)?).map(<[u8]>::to_vec)
    };
    let both = |at, length| {
        let expected = cut(subject.expected, subject.start, at, length)?;
        Some((cut(seen, start, at, length)?, expected))
    };
    (change.address..).take(change.bytes.len()).all(|at| match sites.at(at) {
        None => both(at, 1).is_some_and(|(seen, expected)| seen == expected),
        Some(site) => {
            both(site.address, usize::from(site.length)).is_some_and(|(seen, expected)| {
                let mut legal = sites.legal(&site, state).into_iter().map(|legal| legal.bytes);
                seen == expected || legal.any(|bytes| bytes == seen)
            })
        }
    })
}

fn told(changed: &Changed, elapsed: Duration, style: Style) -> Bench {
    let mut all = Tally::default();
    let mut table = Table::new(&[
        "memory",
        ">bytes",
        ">mutable",
        ">sites",
        ">encodings",
        ">changes",
        ">legal",
        ">outside",
        ">found",
    ]);
    let row = |name: &str, tally: &Tally| {
        vec![
            name.to_owned(),
            grouped(tally.bytes),
            format!("{:.2} %", tally.mutable_percent()),
            grouped(tally.sites),
            if tally.sites == 0 {
                "–".to_owned()
            } else {
                format!("{:.2}", tally.mean_encodings())
            },
            grouped(tally.changes),
            grouped(tally.legal),
            grouped(tally.illegal()),
            grouped(tally.illegal_found()),
        ]
    };
    for (name, tally) in KINDS.iter().zip(&changed.tallies) {
        table.row(row(name, tally));
        all.add(tally.clone());
    }
    table.row(row("all", &all));
    let mut text = format!(
        "{} changes in {}, {} with all that they need; {} modules\n\n{}\n\
         encodings: legal ones of a site, mean; legal: changes to one of them; outside: all others\n",
        grouped(all.changes),
        duration(changed.changing),
        duration(elapsed),
        changed.modules,
        table.render(style, 0)
    );
    text.push_str(&format!(
        "{} places differed before, as a table allows\n",
        grouped(changed.explained)
    ));
    if changed.restored > 0 {
        text.push_str(&format!(
            "{} bytes that the tables alone do not explain were taken as they should be\n",
            grouped(changed.restored)
        ));
    }
    for notice in changed.notices.iter().take(20) {
        text.push_str(&format!("{notice}\n"));
    }
    for missed in all.missed.iter().take(10) {
        text.push_str(&format!("missed at {:#x}: {:02x?}\n", missed.address, missed.bytes));
    }
    let share = 100.0 * all.illegal_found() as f64 / (all.illegal() as f64).max(1.0);
    let [of_text, ..] = &changed.tallies;
    let goals = vec![
        Goal::at_least("found of what is outside legal encodings", share, 100.0, " %"),
        Goal::at_most("mutable share of text", of_text.mutable_percent(), MUTABLE_PERCENT, " %"),
    ];
    Bench { text, goals }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_missed_is_listed_and_fails_the_goal() {
        let missed = Mutation { address: 0x1234, bytes: vec![0x90] };
        let mut changed = Changed::default();
        changed.tallies[1] =
            Tally { changes: 4, found: 3, bytes: 100, missed: vec![missed], ..Tally::default() };
        let bench = told(&changed, Duration::from_secs(1), Style::plain());
        assert!(bench.text.contains("missed at 0x1234: [90]"), "{}", bench.text);
        assert_eq!(bench.goals.iter().map(|goal| goal.met).collect::<Vec<_>>(), [false, true]);
    }
}
