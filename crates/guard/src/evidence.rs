// SPDX-License-Identifier: Apache-2.0
//! A finding about bytes: old and new code side by side, where the new code leads, and the name of
//! what was done.

use kernel_image::Symbols;
use kernel_memory::Kernel;

use crate::baseline::{Baseline, RegionKind};
use crate::code::{self, LONGEST_INSTRUCTION};
use crate::confirm::Unexplained;
use crate::finding::Finding;
use crate::sites::Site;
use crate::technique;

/// Changes closer than this are one: a patch of twelve bytes may hit some that were there already.
const NEAR: u64 = 8;

/// A function longer than this is decoded from nearby instead of from its start.
const DECODED: u64 = 1 << 16;

/// No more than this of a change is shown.
const SHOWN: u64 = 64;

/// Bytes that differ and that nothing explains.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The address of the first byte.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// The first site that is part of it.
    pub site: Option<Site>,
    /// How often each of its parts was read, at least.
    pub readings: u32,
    /// Whether it could be read.
    pub readable: bool,
}

/// Joins what is close together, as one who patches code leaves it.
pub fn join(unexplained: &[Unexplained], symbols: &Symbols) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for one in unexplained {
        let (start, end) = (one.place.start, one.place.end);
        let readable = !one.seen.is_empty();
        match changes.last_mut() {
            Some(last)
                if start <= last.end + NEAR
                    && readable == last.readable
                    && same_function(symbols, last.start, start) =>
            {
                last.end = last.end.max(end);
                last.site = last.site.or(one.place.site);
                last.readings = last.readings.min(one.readings);
            }
            _ => changes.push(Change {
                start,
                end,
                site: one.place.site,
                readings: one.readings,
                readable,
            }),
        }
    }
    changes
}

fn same_function(symbols: &Symbols, a: u64, b: u64) -> bool {
    let start = |address| symbols.containing(address).map(|(symbol, _)| symbol.address);
    start(a) == start(b)
}

/// The expected and the seen code around a change, whole instructions.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The address of the first instruction.
    pub address: u64,
    /// What should be there.
    pub expected: Vec<u8>,
    /// What is there; a few bytes more, where the last instruction is longer now.
    pub seen: Vec<u8>,
}

/// Reads a change with the whole instructions that it touches.
pub fn window(kernel: &Kernel<'_>, baseline: &Baseline, start: u64, end: u64) -> Window {
    let end = end.min(start.saturating_add(SHOWN));
    let Some(region) = baseline.region_of(start) else { return Window::default() };
    let end = end.min(region.end());
    let mut from = start;
    let mut until = end;
    if region.kind == RegionKind::Text {
        let function = kernel.symbols.containing(start).map_or(start, |(symbol, _)| symbol.address);
        let function = function.max(region.start).max(start.saturating_sub(DECODED));
        let long = (end - function) as usize + LONGEST_INSTRUCTION;
        let long = long.min((region.end() - function) as usize);
        let bytes = baseline.bytes_at(function, long).unwrap_or_default();
        for (at, length) in code::boundaries(bytes, function) {
            if at <= start {
                from = at;
            }
            if at < end {
                until = at + u64::from(length);
            }
        }
    }
    let length = (until - from) as usize;
    let expected = baseline.bytes_at(from, length).unwrap_or_default().to_vec();
    let longer = (length + LONGEST_INSTRUCTION).min((region.end() - from) as usize);
    let seen = kernel.bytes_at(from, longer).or_else(|_| kernel.bytes_at(from, length));
    Window { address: from, expected, seen: seen.unwrap_or_default() }
}

/// The finding for a change of text.
pub fn of_text(
    check: &'static str,
    kernel: &Kernel<'_>,
    baseline: &Baseline,
    change: &Change,
) -> Finding {
    let (symbol, offset) = place(kernel.symbols, change.start);
    if !change.readable {
        return Finding {
            check,
            symbol,
            offset,
            address: change.start,
            expected: format!("{} readable bytes", change.end - change.start),
            seen: "memory that cannot be read".to_owned(),
            technique: "text taken away".to_owned(),
            owner: None,
            evidence: vec![readings(change, kernel)],
        };
    }
    let window = window(kernel, baseline, change.start, change.end);
    let technique = technique::name(&technique::Change {
        symbol: symbol.as_deref(),
        offset,
        site: change.site,
        address: window.address,
        start: change.start,
        end: change.end,
        expected: &window.expected,
        seen: &window.seen,
    });
    let text = text_of(baseline);
    let show = |bytes: &[u8]| {
        code::render(&code::disassemble(bytes, window.address, kernel.symbols, text))
    };
    let mut evidence = vec![readings(change, kernel)];
    let count = change.end - change.start;
    evidence.push(format!("{count} bytes from {:#x}", change.start));
    if let Some(site) = change.site {
        evidence.push(format!(
            "{} of {} at {:#x}",
            site.kind.name(),
            site.kind.table(),
            site.address
        ));
    }
    let exit = code::first_exit(&window.seen, window.address);
    if let Some((_, exit)) = exit.filter(|(at, _)| *at < change.end.max(change.start + NEAR))
        && let Some(target) = exit.target()
    {
        evidence.push(format!("leads to {}", code::name(kernel.symbols, text, target)));
    }
    Finding {
        check,
        symbol,
        offset,
        address: change.start,
        expected: show(&window.expected),
        seen: show(trimmed(&window, change.end)),
        technique: technique.to_owned(),
        owner: None,
        evidence,
    }
}

/// The finding for a change of data that must not change.
pub fn of_data(
    check: &'static str,
    kernel: &Kernel<'_>,
    baseline: &Baseline,
    change: &Change,
    technique: &str,
) -> Finding {
    let (symbol, offset) = place(kernel.symbols, change.start);
    let window = window(kernel, baseline, change.start, change.end);
    let seen = window.seen.get(..window.expected.len()).unwrap_or(&window.seen);
    let mut evidence = vec![readings(change, kernel)];
    evidence.push(format!("{} bytes from {:#x}", change.end - change.start, change.start));
    Finding {
        check,
        symbol,
        offset,
        address: change.start,
        expected: code::hexadecimal(&window.expected),
        seen: if change.readable {
            code::hexadecimal(seen)
        } else {
            "memory that cannot be read".to_owned()
        },
        technique: technique.to_owned(),
        owner: None,
        evidence,
    }
}

/// The bounds of the text.
pub fn text_of(baseline: &Baseline) -> (u64, u64) {
    baseline.region(RegionKind::Text).map_or((0, 0), |text| (text.start, text.end()))
}

/// The symbol that holds an address, and the distance to it.
pub fn place(symbols: &Symbols, address: u64) -> (Option<String>, u64) {
    match symbols.containing(address) {
        Some((symbol, offset)) => (Some(symbol.name.to_owned()), offset),
        None => (None, 0),
    }
}

fn readings(change: &Change, kernel: &Kernel<'_>) -> String {
    format!("read {} times by {}", change.readings + 1, kernel.memory.name())
}

/// What is there now, up to the end of the instruction that holds the last changed byte.
fn trimmed(window: &Window, end: u64) -> &[u8] {
    let lines = code::boundaries(&window.seen, window.address);
    let expected_end = window.address + window.expected.len() as u64;
    let end = end.min(expected_end);
    let last = lines.iter().find(|(at, length)| at + u64::from(*length) >= end);
    let until = last.map_or(window.seen.len(), |(at, length)| {
        (at - window.address) as usize + usize::from(*length)
    });
    window.seen.get(..until).unwrap_or(&window.seen)
}
