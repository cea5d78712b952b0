// SPDX-License-Identifier: Apache-2.0
//! Each static call and trampoline, against where its key points, and each key, against the
//! functions of the kernel.

use std::time::Instant;

use kernel_memory::Kernel;

use crate::baseline::Baseline;
use crate::batch::Places;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::code;
use crate::confirm::{all_keys, changes_static_calls};
use crate::evidence;
use crate::finding::Finding;
use crate::keys::Keys;
use crate::owners::Owners;
use crate::patience::Patience;
use crate::recover::Recovered;
use crate::sites::state::counted_before;
use crate::sites::{INT3, Site, SiteKind, Sites, State, Verdict};

use super::settle::{Settled, settle};

/// The check.
#[derive(Debug, Default)]
pub struct StaticCalls {
    recovered: Recovered,
    plan: Option<Plan>,
    patience: Patience,
}

/// What is read in each pass, and what of it was in order in the last.
#[derive(Debug, Default)]
struct Plan {
    sites: Vec<Site>,
    places: Places,
    keys: Keys<8>,
    /// Where the keys pointed when what is known of the sites was found.
    state: State,
    known: Vec<Known>,
    /// By key: the function that it pointed at when that was found to be one.
    good: Vec<u64>,
}

/// A site that was judged: with the same bytes, and all keys as they were, it is judged alike.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    bytes: [u8; 6],
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Not judged, or not in order.
    #[default]
    Open,
    /// It does what its key asks for.
    InStep,
    /// A trampoline whose key is not known, as it always was.
    Keyless,
}

impl Plan {
    fn of(kernel: &Kernel<'_>, sites: &Sites) -> Result<Self, Missing> {
        let function = kernel.offset_of("static_call_key", "func")?;
        let keys = Keys::of(all_keys(sites), function);
        let ours = |site: &Site| {
            matches!(site.kind, SiteKind::StaticCall | SiteKind::StaticCallTrampoline)
        };
        let sites: Vec<Site> = sites.iter().filter(ours).collect();
        let places = Places::of(sites.iter().map(|site| (site.address, site.length.into())));
        let known = vec![Known::default(); sites.len()];
        Ok(Self { sites, places, good: vec![0; keys.len()], keys, state: State::default(), known })
    }

    /// Looks at all sites once. Gives those that disagree with their keys, and how many trampolines
    /// can only be held against the baseline.
    ///
    /// A verdict follows from a site's bytes, from where the keys point, from whether calls are
    /// counted, and from tables that stay as they are; so only what changed of these is judged.
    fn look(
        &mut self,
        kernel: &Kernel<'_>,
        baseline: &Baseline,
        sites: &Sites,
    ) -> Result<(Vec<Site>, usize), Missing> {
        let padding = counted_before(kernel).unwrap_or(0);
        if self.keys.read(kernel.memory)? || self.state.padding() != padding {
            let functions = self.keys.iter();
            let functions = functions.map(|(_, key, value)| (key, u64::from_le_bytes(value)));
            self.state = State::of_functions(functions, padding);
            self.known.fill(Known::default());
        }
        let (mut left, mut keyless) = (Vec::new(), 0);
        self.places.visit(kernel.memory, &mut |index, bytes| {
            let (Some(site), Some(known)) = (self.sites.get(index), self.known.get_mut(index))
            else {
                return;
            };
            if known.standing == Standing::Open || known.bytes.get(..bytes.len()) != Some(bytes) {
                *known = Known::default();
                if let Some(into) = known.bytes.get_mut(..bytes.len()) {
                    into.copy_from_slice(bytes);
                    known.standing = standing(baseline, sites, &self.state, site, bytes);
                }
            }
            match known.standing {
                Standing::InStep => {}
                Standing::Keyless => keyless += 1,
                Standing::Open => left.push(*site),
            }
        })?;
        Ok((left, keyless))
    }
}

/// What a site's bytes are by where the keys point.
fn standing(
    baseline: &Baseline,
    sites: &Sites,
    state: &State,
    site: &Site,
    bytes: &[u8],
) -> Standing {
    if matches!(sites.judge(site, bytes, state), Verdict::Expected(_)) {
        return Standing::InStep;
    }
    let keyless = site.kind == SiteKind::StaticCallTrampoline
        && sites.trampolines.entry(site).is_some_and(|entry| entry.key.is_none());
    let as_ever = baseline.bytes_at(site.address, bytes.len()) == Some(bytes);
    if keyless && as_ever { Standing::Keyless } else { Standing::Open }
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
        let plan = match self.plan.take() {
            Some(plan) => plan,
            None => Plan::of(kernel, sites)?,
        };
        let plan = self.plan.insert(plan);
        let (open, unknown) = plan.look(kernel, baseline, sites)?;
        let mut state = State::default();
        let disagreed = settle(
            open,
            || changes_static_calls(kernel),
            self.patience.waits(Instant::now()),
            |open| {
                state.read_functions(kernel, all_keys(sites))?;
                disagreeing(system, sites, &state, open)
            },
        )?;
        outcome.reduced.extend(self.patience.left(Instant::now(), disagreed.left.len()));
        for Settled { item, readings } in disagreed.settled {
            outcome.findings.push(finding(system, sites, &state, &item, readings));
        }
        if unknown > 0 {
            outcome.reduced.push(format!(
                "{unknown} trampolines have no key that is known here; they are held against the \
                 baseline only"
            ));
        }
        targets(system, plan, &mut self.recovered, outcome);
        Ok(())
    }
}

/// Keys must point at the beginning of functions.
fn targets(system: &System<'_>, plan: &mut Plan, recovered: &mut Recovered, outcome: &mut Outcome) {
    let symbols = system.kernel.symbols;
    let text = evidence::text_of(system.baseline);
    let mut owners = None;
    for (index, key, value) in plan.keys.iter() {
        let function = u64::from_le_bytes(value);
        let Some(good) = plan.good.get_mut(index) else { continue };
        if function == 0 || *good == function {
            continue;
        }
        let inside = (text.0..text.1).contains(&function);
        if inside && symbols.containing(function).is_some_and(|(_, offset)| offset == 0) {
            *good = function;
            continue;
        }
        // Beyond the text it is a module's, which the check of hooks tells of, or a BPF image.
        if !inside {
            let owners = owners.get_or_insert_with(|| Owners::gather(&system.kernel, recovered));
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
            *good = function;
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

/// Those of the sites that are left whose bytes are not what their keys ask for.
fn disagreeing(
    system: &System<'_>,
    sites: &Sites,
    state: &State,
    open: &[Site],
) -> Result<Vec<Site>, Missing> {
    let places = Places::of(open.iter().map(|site| (site.address, u32::from(site.length))));
    let mut left = Vec::new();
    places.visit(system.kernel.memory, &mut |index, bytes| {
        let Some(site) = open.get(index) else { return };
        if standing(system.baseline, sites, state, site, bytes) == Standing::Open {
            left.push(*site);
        }
    })?;
    Ok(left)
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
