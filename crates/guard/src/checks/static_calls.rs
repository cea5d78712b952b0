// SPDX-License-Identifier: Apache-2.0
//! Each static call and trampoline, against where its key points, and each key, against the
//! functions of the kernel.

use std::collections::HashSet;

use crate::batch;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::code;
use crate::confirm::{all_keys, changes_static_calls};
use crate::evidence;
use crate::finding::Finding;
use crate::owners::Owners;
use crate::recover::Recovered;
use crate::sites::{INT3, Site, SiteKind, Sites, State, Verdict};

use super::settle::{Settled, settle};

/// The check.
#[derive(Debug, Default)]
pub struct StaticCalls {
    good: HashSet<u64>,
    recovered: Recovered,
    sites: Vec<Site>,
}

impl Check for StaticCalls {
    fn name(&self) -> &'static str {
        "static_calls"
    }

    fn about(&self) -> About {
        About {
            needs: "the table of static calls in read-only data, and struct static_call_key in BTF",
            reads: "each key, and the five or six bytes of its calls and trampoline",
            means: "a call of the kernel does not go where its key says, or a key points at \
                    something that is no function of the kernel",
            blind_to: "a key that points at another function of the kernel, with its calls; \
                       trampolines whose key has no name are held against all keys",
        }
    }

    // A site that shows what its table does not allow at all is found by the text, in each pass, and
    // one that was changed by hand by the journal.
    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let System { kernel, baseline, .. } = system;
        let sites = baseline.sites(kernel);
        if sites.static_calls.entries().is_empty() {
            return Err(Missing::because("the table of static calls is not known"));
        }
        if self.sites.is_empty() {
            let ours = |site: &Site| {
                matches!(site.kind, SiteKind::StaticCall | SiteKind::StaticCallTrampoline)
            };
            self.sites = sites.iter().filter(ours).collect();
        }
        let mut state = State::default();
        let mut unknown = 0;
        let left = settle(
            self.sites.clone(),
            || changes_static_calls(kernel),
            |open| {
                state.read_functions(kernel, all_keys(sites))?;
                Ok(disagreeing(system, sites, &state, open, &mut unknown))
            },
        )?;
        for Settled { item, readings } in left {
            outcome.findings.push(finding(system, sites, &state, &item, readings));
        }
        if unknown > 0 {
            outcome.reduced.push(format!(
                "{unknown} trampolines have no key that is known here; they are held against the \
                 baseline only"
            ));
        }
        self.targets(system, sites, &state, outcome);
        Ok(())
    }
}

impl StaticCalls {
    /// Keys must point at the beginning of functions.
    fn targets(
        &mut self,
        system: &System<'_>,
        sites: &Sites,
        state: &State,
        outcome: &mut Outcome,
    ) {
        let symbols = system.kernel.symbols;
        let text = evidence::text_of(system.baseline);
        let mut told = HashSet::new();
        let mut owners = None;
        for key in all_keys(sites) {
            let Some(function) = state.function_of(key).filter(|function| *function != 0) else {
                continue;
            };
            if self.good.contains(&function) || !told.insert(key) {
                continue;
            }
            let inside = (text.0..text.1).contains(&function);
            if inside && symbols.containing(function).is_some_and(|(_, offset)| offset == 0) {
                self.good.insert(function);
                continue;
            }
            // Beyond the text it is a module's, which the check of hooks tells of, or a BPF image.
            if !inside {
                let owners = owners
                    .get_or_insert_with(|| Owners::gather(&system.kernel, &mut self.recovered));
                let is_listed = symbols.containing(function).is_some_and(|(_, offset)| offset == 0);
                if owners.of(&system.kernel, function).is_some()
                    || (!owners.unseen.is_empty() && is_listed)
                {
                    continue;
                }
            }
            // One that came after the symbols were read, such as a BPF dispatcher.
            let announced = system.journal.entries().any(|entry| match &entry.change {
                crate::journal::Change::Symbol { address, registered: true, .. } => {
                    *address == function
                }
                _ => false,
            });
            if announced {
                self.good.insert(function);
                continue;
            }
            outcome.findings.push(Finding {
                check: "static_calls",
                symbol: None,
                offset: 0,
                address: key,
                expected: "a pointer to a function of the kernel".to_owned(),
                seen: code::name(symbols, text, function),
                technique: match inside {
                    true => "static call key points into a function".to_owned(),
                    false => "static call key points outside the text".to_owned(),
                },
                owner: None,
                evidence: vec![format!("struct static_call_key at {key:#x}")],
            });
        }
    }
}

/// The sites whose bytes are not what their keys ask for. A trampoline whose key is not known and
/// that is as it always was only counts as `unknown`.
fn disagreeing(
    system: &System<'_>,
    sites: &Sites,
    state: &State,
    open: &[Site],
    unknown: &mut usize,
) -> Vec<Site> {
    let places: Vec<(u64, u32)> =
        open.iter().map(|site| (site.address, u32::from(site.length))).collect();
    let mut left = Vec::new();
    batch::read_each(system.kernel.memory, &places, &mut |index, bytes| {
        let Some(site) = open.get(index) else { return };
        if matches!(sites.judge(site, bytes, state), Verdict::Expected(_)) {
            return;
        }
        let keyless = site.kind == SiteKind::StaticCallTrampoline
            && sites.trampolines.entry(site).is_some_and(|entry| entry.key.is_none());
        if keyless && system.baseline.bytes_at(site.address, bytes.len()) == Some(bytes) {
            *unknown += 1;
        } else {
            left.push(*site);
        }
    });
    left
}

fn finding(
    system: &System<'_>,
    sites: &Sites,
    state: &State,
    site: &Site,
    readings: u32,
) -> Finding {
    let System { kernel, baseline, .. } = system;
    let text = evidence::text_of(baseline);
    let seen = kernel.bytes_at(site.address, usize::from(site.length)).unwrap_or_default();
    let show =
        |bytes: &[u8]| code::render(&code::disassemble(bytes, site.address, kernel.symbols, text));
    let legal = sites.legal(site, state);
    let expected = legal.first().map(|legal| show(&legal.bytes)).unwrap_or_default();
    let (symbol, offset) = evidence::place(kernel.symbols, site.address);
    let technique = match (sites.judge(site, &seen, state), seen.first()) {
        (verdict, _) if verdict.is_legal() => "static call does not follow its key",
        (_, Some(&INT3)) => "int3 without a kprobe",
        (_, Some(0xe8 | 0xe9)) => "static call retargeted",
        _ => "static call overwritten",
    };
    let key = match site.kind {
        SiteKind::StaticCall => sites.static_calls.entry(site).map(|entry| entry.key),
        _ => sites.trampolines.entry(site).and_then(|entry| entry.key),
    };
    let points_at = key.and_then(|key| state.function_of(key));
    let mut evidence = vec![format!("read {readings} times by {}", kernel.memory.name())];
    evidence.extend(key.zip(points_at).map(|(key, function)| {
        let name = match function {
            0 => "nothing".to_owned(),
            function => code::name(kernel.symbols, text, function),
        };
        format!("struct static_call_key at {key:#x} points at {name}")
    }));
    Finding {
        check: "static_calls",
        symbol,
        offset,
        address: site.address,
        expected,
        seen: show(&seen),
        technique: technique.to_owned(),
        owner: None,
        evidence,
    }
}
