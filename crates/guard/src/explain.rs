// SPDX-License-Identifier: Apache-2.0
//! What is known about one address: for `ringfence explain`.

use kernel_memory::Kernel;
use serde::Serialize;

use crate::baseline::{BaselineKind, Region, RegionKind};
use crate::check::{Missing, System};
use crate::code::{self, Line};
use crate::compare::{Account, Differences, Place, account, places};
use crate::confirm::all_keys;
use crate::evidence;
use crate::journal::Change;
use crate::owners::Owners;
use crate::recover::Recovered;
use crate::sites::{Site, SiteKind, Sites, State, Verdict};
use crate::watch::describe_journal_entry;

/// How much is shown from the address on.
const SHOWN: u64 = 32;

/// A function longer than this is not compared as a whole.
const FUNCTION_LIMIT: u64 = 1 << 20;

/// Everything known about one address.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The address asked for.
    pub address: u64,
    /// The symbol that holds it.
    pub symbol: Option<String>,
    /// Bytes from that symbol to the address.
    pub offset: u64,
    /// `text` or `rodata`.
    pub region: &'static str,
    /// Where the expected bytes came from.
    pub baseline: BaselineKind,
    /// What should be there: instructions in text, rows of bytes in data.
    pub expected: Vec<Shown>,
    /// What is there.
    pub seen: Vec<Shown>,
    /// The sites of the kernel's own patching in what is shown.
    pub sites: Vec<SiteExplanation>,
    /// Where the whole function differs from the baseline, one line each.
    pub differences: Vec<String>,
    /// The journal's entries about what is shown, one line each.
    pub journal: Vec<String>,
    /// What follows from all that, in a sentence.
    pub verdict: String,
}

/// An instruction, or a row of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its address.
    pub address: u64,
    /// Its bytes in hexadecimal.
    pub bytes: String,
    /// What it does; empty for data.
    pub text: String,
    /// Whether any of its bytes differs between expected and seen.
    pub differs: bool,
}

/// A site, and what it may hold.
#[derive(Clone, Debug, Serialize)]
pub struct SiteExplanation {
    /// Its address.
    pub address: u64,
    /// How many bytes it has.
    pub length: u8,
    /// What kind it is.
    pub kind: SiteKind,
    /// The kernel's table that allows it.
    pub table: &'static str,
    /// Whose state decides: the address and state of its key, where it has one.
    pub decided_by: Option<String>,
    /// What it may hold, each with its bytes.
    pub legal: Vec<LegalShown>,
    /// What its table says of what it holds.
    pub verdict: &'static str,
}

/// Bytes that a site may hold.
#[derive(Clone, Debug, Serialize)]
pub struct LegalShown {
    /// In hexadecimal.
    pub bytes: String,
    /// What they do.
    pub text: String,
    /// Whether the site holds them now.
    pub now: bool,
}

/// Explains an address of the text or of read-only data.
pub fn explain(system: &System<'_>, address: u64) -> Result<Explanation, Missing> {
    let System { kernel, baseline, .. } = system;
    let region = baseline.region_of(address).ok_or_else(|| {
        Missing(format!(
            "{address:#x} is in neither the kernel's text nor its read-only data; only these have \
             expected bytes"
        ))
    })?;
    let end = address.saturating_add(SHOWN).min(region.end());
    let window = evidence::window(kernel, baseline, address, end);
    if window.seen.is_empty() {
        return Err(Missing(format!("{address:#x} cannot be read by {}", kernel.memory.name())));
    }
    let seen = window.seen.get(..window.expected.len()).unwrap_or(&window.seen);
    let show = |bytes: &[u8], other: &[u8]| match region.kind {
        RegionKind::Text => instructions(system, window.address, bytes, other),
        RegionKind::Rodata => rows(window.address, bytes, other),
    };
    let end = window.address + window.expected.len() as u64;
    let (sites, differences) = match region.kind {
        RegionKind::Text => of_text(system, &region, address, (window.address, end))?,
        RegionKind::Rodata => (Vec::new(), Vec::new()),
    };
    let (symbol, offset) = evidence::place(kernel.symbols, address);
    Ok(Explanation {
        address,
        symbol,
        offset,
        region: region.kind.name(),
        baseline: baseline.kind(),
        expected: show(&window.expected, seen),
        seen: show(seen, &window.expected),
        verdict: verdict(seen == window.expected, &sites, region.kind),
        sites,
        differences,
        journal: journal(system, window.address, end),
    })
}

fn instructions(system: &System<'_>, at: u64, bytes: &[u8], other: &[u8]) -> Vec<Shown> {
    let text = evidence::text_of(system.baseline);
    let lines = code::disassemble(bytes, at, system.kernel.symbols, text);
    lines
        .into_iter()
        .map(|Line { address, bytes: line, text }| {
            let from = (address - at) as usize;
            let differs = other.get(from..from + line.len()) != Some(&line);
            Shown { address, bytes: code::hexadecimal(&line), text, differs }
        })
        .collect()
}

fn rows(at: u64, bytes: &[u8], other: &[u8]) -> Vec<Shown> {
    let rows = bytes.chunks(16).zip((at..).step_by(16));
    rows.map(|(row, address)| {
        let from = (address - at) as usize;
        let differs = other.get(from..from + row.len()) != Some(row);
        Shown { address, bytes: code::hexadecimal(row), text: String::new(), differs }
    })
    .collect()
}

/// The sites in what is shown, and what differs in the whole function.
fn of_text(
    system: &System<'_>,
    text: &Region<'_>,
    address: u64,
    shown: (u64, u64),
) -> Result<(Vec<SiteExplanation>, Vec<String>), Missing> {
    let System { kernel, baseline, .. } = system;
    let sites = baseline.sites(kernel);
    let mut state = State::of_symbols(kernel.symbols);
    state.follow(system.journal);
    state.learn(&Owners::gather(kernel, &mut Recovered::default()));
    state.read_functions(kernel, all_keys(sites))?;
    state.read_enabled(kernel, sites.jump_labels.entries().iter().map(|entry| entry.key))?;

    let mut explained = Vec::new();
    let mut at = shown.0;
    while let Some(site) = sites.first_after(at).filter(|site| site.address < shown.1) {
        explained.push(of_site(system, sites, &state, &site));
        at = site.end();
    }

    let start = kernel.symbols.containing(address).map_or(address, |(symbol, _)| symbol.address);
    let start = start.max(text.start);
    let end = kernel.symbols.next_address(address).unwrap_or(text.end()).min(text.end());
    let length = (end - start).min(FUNCTION_LIMIT) as usize;
    let expected = baseline.bytes_at(start, length).unwrap_or_default();
    let seen = kernel.bytes_at(start, length).map_err(Missing::because)?;
    let mut differences = Differences::default();
    differences.compare(start, &seen, expected);
    let lines = places(differences.runs(), sites)
        .iter()
        .map(|place| difference(kernel, sites, &state, (start, &seen, expected), place))
        .collect();
    Ok((explained, lines))
}

fn difference(
    kernel: &Kernel<'_>,
    sites: &Sites,
    state: &State,
    (start, seen, expected): (u64, &[u8], &[u8]),
    place: &Place,
) -> String {
    let cut = |bytes: &[u8]| {
        let from = place.start.checked_sub(start)? as usize;
        Some(bytes.get(from..from + place.length())?.to_vec())
    };
    let seen = cut(seen).unwrap_or_default();
    let expected = cut(expected).unwrap_or_default();
    let what = match account(place, &seen, &expected, sites, state) {
        Account::Same => "as expected",
        Account::Explained(_) => "explained",
        Account::Poking => "a text poke under way, or an int3 that nobody owns",
        Account::Unexplained => "not explained",
    };
    let kind = place.site.map_or("no site", |site| site.kind.name());
    let (symbol, offset) = evidence::place(kernel.symbols, place.start);
    format!(
        "{}+{offset:#x}, {kind}: {} became {}, {what}",
        symbol.unwrap_or_default(),
        code::hexadecimal(&expected),
        code::hexadecimal(&seen),
    )
}

fn of_site(system: &System<'_>, sites: &Sites, state: &State, site: &Site) -> SiteExplanation {
    let System { kernel, baseline, .. } = system;
    let text = evidence::text_of(baseline);
    let seen = kernel.bytes_at(site.address, usize::from(site.length)).unwrap_or_default();
    let legal = sites
        .legal(site, state)
        .into_iter()
        .map(|legal| {
            let lines = code::disassemble(&legal.bytes, site.address, kernel.symbols, text);
            let shown: Vec<String> = lines.into_iter().map(|line| line.text).collect();
            LegalShown {
                now: legal.bytes == seen,
                bytes: code::hexadecimal(&legal.bytes),
                text: shown.join("; "),
            }
        })
        .collect();
    SiteExplanation {
        address: site.address,
        length: site.length,
        kind: site.kind,
        table: site.kind.table(),
        decided_by: decided_by(system, sites, state, site),
        legal,
        verdict: match sites.judge(site, &seen, state) {
            Verdict::Expected(_) => "as the kernel's data asks for",
            Verdict::OutOfStep(_) => "legal, but not what the kernel's data asks for now",
            Verdict::Poking => "a text poke under way, or an int3 that nobody owns",
            Verdict::Illegal => "nothing that the kernel would put there",
        },
    }
}

fn decided_by(system: &System<'_>, sites: &Sites, state: &State, site: &Site) -> Option<String> {
    let function = |key: u64| match state.function_of(key) {
        Some(0) => format!("static call key at {key:#x}, points nowhere"),
        Some(to) => {
            let text = evidence::text_of(system.baseline);
            let name = code::name(system.kernel.symbols, text, to);
            format!("static call key at {key:#x}, points at {name}")
        }
        None => format!("static call key at {key:#x}, not readable"),
    };
    match site.kind {
        SiteKind::JumpLabel => {
            let entry = sites.jump_labels.entry(site)?;
            let count = state
                .enabled_count(entry.key)
                .map_or("not readable".to_owned(), |count| format!("enabled {count} times"));
            let sense = if entry.branch { "falls through" } else { "jumps" };
            Some(format!("static key at {:#x}, {count}; {sense} when it is on", entry.key))
        }
        SiteKind::StaticCall => sites.static_calls.entry(site).map(|entry| function(entry.key)),
        SiteKind::StaticCallTrampoline => {
            sites.trampolines.entry(site).and_then(|entry| entry.key).map(function)
        }
        SiteKind::Ftrace | SiteKind::FtraceCall | SiteKind::Padding => None,
    }
}

fn journal(system: &System<'_>, start: u64, end: u64) -> Vec<String> {
    let sites = system.baseline.sites(&system.kernel);
    system
        .journal
        .entries()
        .filter(|entry| match &entry.change {
            Change::TextPoke { address, old, new } => {
                let length = old.len().max(new.len()) as u64;
                *address < end && start < address.saturating_add(length)
            }
            Change::Symbol { .. } | Change::Module { .. } => false,
        })
        .map(|entry| describe_journal_entry(entry, &system.kernel, sites))
        .collect()
}

fn verdict(same: bool, sites: &[SiteExplanation], kind: RegionKind) -> String {
    let bad = sites.iter().find(|site| site.verdict.starts_with("nothing"));
    match (same, kind, bad) {
        (_, _, Some(site)) => {
            format!(
                "the {} at {:#x} holds what its table does not allow",
                site.kind.name(),
                site.address
            )
        }
        (true, _, None) => "all bytes shown are as expected".to_owned(),
        (false, RegionKind::Text, None) if !sites.is_empty() => {
            "bytes differ where the kernel may patch itself; see the sites and differences"
                .to_owned()
        }
        (false, _, None) => "bytes differ and no table of the kernel allows it".to_owned(),
    }
}
