// SPDX-License-Identifier: Apache-2.0
//! Every byte of each loaded module's text and read-only data, against its file on disk.
//!
//! The file is relocated to where the module is, and patched as the kernel patches a module when it
//! loads it. What differs then must be a place that the kernel patches at run time, with bytes that
//! its table allows there, as in the kernel's own text; or it is a finding.
//!
//! Making what a module should hold takes its file to be decompressed, so it is done once for each:
//! what it gave is kept, up to some megabytes. Of modules beyond that digests of what was found in
//! order are kept, and the rest made anew only when one differs.

mod each;
mod expected;
mod patched;
mod subject;

use std::collections::HashMap;
use std::time::Instant;

pub use each::{Module, each};
use expected::{Expected, Exports};
use kernel_image::module::Part;
use kernel_image::patching::Machine;
use kernel_memory::Kernel;
use subject::Subject;

use super::modules::loaded::{self, Loaded};
use super::text;
use crate::baseline::{Baseline, RegionKind};
use crate::check::{About, Check, Missing, Outcome, Pace, System};
use crate::compare::{Place, places};
use crate::confirm::{Confirmed, confirm};
use crate::digest::{Digest, Key};
use crate::evidence;
use crate::finding::{ModulesSummary, TextSummary};
use crate::known_pages::{KnownPages, WHOLE};
use crate::kprobes;
use crate::owners::Owners;
use crate::patience::Patience;
use crate::recover::Recovered;
use crate::sites::{SiteKind, State};

/// More findings of one module say nothing more.
const FINDINGS: usize = 16;

/// How much of what modules should hold is kept between passes.
const KEPT: usize = 12 << 20;

/// A module that was looked at before.
struct Known {
    subject: Subject,
    name: String,
    bytes: usize,
    /// What it came to when all of it was explained.
    summary: TextSummary,
    /// What it should hold, where there is room for that.
    baseline: Option<Baseline>,
    /// Of what was in memory when all of it was explained.
    digests: Option<Vec<Digest>>,
    /// Pages of text and of read-only data that were found equal to what they should hold.
    pages: [KnownPages; 2],
    doubts: Vec<String>,
}

/// See the module.
#[derive(Default)]
pub struct ModuleText {
    recovered: Recovered,
    state: Option<State>,
    known: HashMap<u64, Known>,
    keys: Keys,
    patience: Patience,
}

/// The keys of digests.
struct Keys {
    /// Of pages that were compared; drawn anew, and all bytes compared, in each [`WHOLE`]th pass.
    pages: Key,
    passes: u32,
    /// Of what is known by digests alone. These last, so there are two for each page.
    lasting: [Key; 2],
}

impl Default for Keys {
    fn default() -> Self {
        Self { pages: Key::default(), passes: 0, lasting: [Key::draw(), Key::draw()] }
    }
}

impl Keys {
    /// Digests of what memory holds of a module; none if a part cannot be read.
    fn of(&self, kernel: &Kernel<'_>, subject: &Subject) -> Option<Vec<Digest>> {
        let mut digests = Vec::new();
        for part in [Part::Text, Part::Rodata] {
            for key in &self.lasting {
                key.digests_of(kernel.memory, subject.part(part), &mut digests).ok()?;
            }
        }
        Some(digests)
    }
}

/// What is needed to make what modules should hold, read at most once in a pass.
struct Pass<'p> {
    modules: &'p [Loaded],
    exports: Exports,
    machine: Option<Machine>,
    /// Whether what the kernel is changing is waited for, and how many sites were left.
    waits: bool,
    left: usize,
}

/// What one module came to.
#[derive(Default)]
struct Judged {
    confirmed: Confirmed,
    summary: TextSummary,
}

impl Check for ModuleText {
    fn name(&self) -> &'static str {
        "module_text"
    }

    fn about(&self) -> About {
        About {
            needs: "the list of modules, and the file of each (/lib/modules, or --modules)",
            reads: "text and read-only data of each module on the list, where its sections are, and \
                    what modules export; what differs is read again",
            means: "code or constants of a module are not what its file has, and no table of the \
                    kernel allows it",
            blind_to: "modules that are not on the list (the check modules finds these) or whose \
                       file is not there; data that a module may write, and what is read-only only \
                       after it has started; a file that was changed before it was loaded",
        }
    }

    fn pace(&self) -> Pace {
        Pace::EachPass
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        if let Some(missing) = loaded::cannot_load(kernel) {
            return Err(missing);
        }
        let modules = loaded::on_list(kernel, &mut self.recovered)?;
        let (live, others): (Vec<_>, Vec<_>) = modules.into_iter().partition(Loaded::is_live);
        if !others.is_empty() {
            let names: Vec<&str> = others.iter().map(|one| one.name.as_str()).collect();
            outcome.reduced.push(format!(
                "not compared, because the kernel says that they are being loaded or unloaded: {}",
                names.join(", ")
            ));
        }
        if live.is_empty() {
            outcome.reduced.push("no modules loaded".to_owned());
            return Ok(());
        }
        self.known.retain(|address, _| live.iter().any(|one| one.address == *address));
        if self.keys.passes.is_multiple_of(WHOLE) {
            self.keys.pages = Key::draw();
            let pages = self.known.values_mut().flat_map(|known| &mut known.pages);
            pages.for_each(|pages| pages.renew(&self.keys.pages));
        }
        self.keys.passes = self.keys.passes.wrapping_add(1);
        let (exports, waits) = (Exports::default(), self.patience.waits(Instant::now()));
        let mut pass = Pass { modules: &live, exports, machine: None, waits, left: 0 };
        let mut total = ModulesSummary::default();
        for module in &live {
            let before = outcome.findings.len();
            let judged = self.one(system, module, &mut pass, outcome);
            if outcome.findings.len() > before && !self.still_there(kernel, module) {
                // What was taken away with it changed nobody's code.
                outcome.findings.truncate(before);
                continue;
            }
            match judged {
                Ok(summary) => {
                    total.compared += 1;
                    add(&mut total.text, &summary);
                }
                // One that went meanwhile is no loss.
                Err(_) if !self.still_there(kernel, module) => {}
                Err(missing) => {
                    total.not_compared += 1;
                    let reason = missing.0;
                    outcome
                        .reduced
                        .push(format!("module {} is not explained: {reason}", module.name));
                }
            }
        }
        outcome.reduced.extend(self.patience.left(Instant::now(), pass.left));
        outcome.module_text = Some(total);
        Ok(())
    }
}

impl ModuleText {
    /// Whether a module is on the list still, and live.
    fn still_there(&mut self, kernel: &Kernel<'_>, module: &Loaded) -> bool {
        loaded::on_list(kernel, &mut self.recovered).is_ok_and(|now| now.contains(module))
    }

    /// Looks at one module.
    fn one(
        &mut self,
        system: &System<'_>,
        module: &Loaded,
        pass: &mut Pass<'_>,
        outcome: &mut Outcome,
    ) -> Result<TextSummary, Missing> {
        let kernel = &system.kernel;
        let subject = Subject::read(kernel, module.address)?;
        let same = |known: &&mut Known| known.subject == subject && known.name == module.name;
        let mut changed = None;
        if let Some(known) = self.known.get_mut(&module.address).filter(same) {
            let (state, recovered, doubts) = (&mut self.state, &mut self.recovered, &known.doubts);
            let fine = match (&known.baseline, &known.digests) {
                (Some(baseline), _) => {
                    let waits = pass.waits;
                    let judged =
                        judge(system, baseline, &mut known.pages, state, recovered, waits)?;
                    pass.left += judged.confirmed.left.len();
                    let summary = judged.summary;
                    let fine = judged.confirmed.unexplained.is_empty();
                    changed = (!fine).then_some(judged);
                    fine.then_some(summary)
                }
                (None, Some(digests))
                    if self.keys.of(kernel, &subject).as_ref() == Some(digests) =>
                {
                    Some(known.summary)
                }
                (None, _) => None,
            };
            if let Some(summary) = fine {
                outcome.reduced.extend(doubts.iter().map(|doubt| told(module, doubt)));
                return Ok(summary);
            }
        }
        // New, or not as it was: what it uses may have moved since, so nothing kept is relied on.
        let Expected { baseline, doubts } = match expected::make(system, module, &subject, pass) {
            Ok(expected) => expected,
            Err(missing) => return self.as_before(system, module, changed, missing, outcome),
        };
        self.known.remove(&module.address);
        let mut pages: [KnownPages; 2] = Default::default();
        pages.iter_mut().for_each(|pages| pages.renew(&self.keys.pages));
        let (state, recovered) = (&mut self.state, &mut self.recovered);
        let judged = judge(system, &baseline, &mut pages, state, recovered, pass.waits)?;
        pass.left += judged.confirmed.left.len();
        outcome.reduced.extend(doubts.iter().map(|doubt| told(module, doubt)));
        if self.tell(system, module, &subject, &baseline, &judged, outcome) == 0 {
            let expected = Expected { baseline, doubts };
            self.keep(kernel, module, subject, judged.summary, expected, pages);
        }
        Ok(judged.summary)
    }

    /// A module that was explained by its file, differs now, and whose file cannot be had any more or
    /// is not the one that it says it was loaded from: what it held before is what it is held to.
    fn as_before(
        &mut self,
        system: &System<'_>,
        module: &Loaded,
        changed: Option<Judged>,
        missing: Missing,
        outcome: &mut Outcome,
    ) -> Result<TextSummary, Missing> {
        let Some(judged) = changed else { return Err(missing) };
        let Some(known) = self.known.get(&module.address) else { return Err(missing) };
        let Known { subject, baseline: Some(baseline), .. } = known else { return Err(missing) };
        let before = outcome.findings.len();
        self.tell(system, module, subject, baseline, &judged, outcome);
        for finding in outcome.findings.iter_mut().skip(before) {
            finding.evidence.push(format!(
                "it was explained by its file before, which cannot be had now: {}",
                missing.0
            ));
        }
        Ok(judged.summary)
    }

    /// Tells of what nothing explains, and gives how much that is.
    fn tell(
        &self,
        system: &System<'_>,
        module: &Loaded,
        subject: &Subject,
        baseline: &Baseline,
        judged: &Judged,
        outcome: &mut Outcome,
    ) -> usize {
        let kernel = &system.kernel;
        let changes = evidence::join(&judged.confirmed.unexplained, kernel.symbols);
        for change in changes.iter().take(FINDINGS) {
            let in_text = subject.text.contains(&change.start);
            let mut finding = match in_text {
                true => evidence::of_text(self.name(), kernel, baseline, change),
                false => evidence::of_data(
                    self.name(),
                    kernel,
                    baseline,
                    change,
                    "read-only data of a module changed",
                ),
            };
            let base = if in_text { subject.text.start } else { subject.rodata.start };
            finding.evidence.push(format!(
                "{:#x} bytes into the {} of module {}",
                change.start - base,
                if in_text { "text" } else { "read-only data" },
                module.name
            ));
            finding.owner = Some(format!("module {}", module.name));
            outcome.findings.push(finding);
        }
        if changes.len() > FINDINGS {
            let more = changes.len() - FINDINGS;
            outcome
                .reduced
                .push(format!("{more} more changes of module {} are not shown", module.name));
        }
        changes.len()
    }

    /// Remembers a module that is in order.
    fn keep(
        &mut self,
        kernel: &Kernel<'_>,
        module: &Loaded,
        subject: Subject,
        summary: TextSummary,
        expected: Expected,
        pages: [KnownPages; 2],
    ) {
        let Expected { baseline, doubts } = expected;
        let bytes: usize = baseline.regions().map(|region| region.bytes.len()).sum();
        let kept = |known: &Known| if known.baseline.is_some() { known.bytes } else { 0 };
        let kept: usize = self.known.values().map(kept).sum();
        let room = kept + bytes <= KEPT;
        let digests = if room { None } else { self.keys.of(kernel, &subject) };
        let baseline = room.then_some(baseline);
        let name = module.name.clone();
        let known = Known { subject, name, bytes, summary, baseline, digests, pages, doubts };
        self.known.insert(module.address, known);
    }
}

fn told(module: &Loaded, doubt: &str) -> String {
    format!("module {}: {doubt}", module.name)
}

fn add(total: &mut TextSummary, one: &TextSummary) {
    total.bytes += one.bytes;
    total.pinned += one.pinned;
    total.mutable += one.mutable;
    total.explained_changes += one.explained_changes;
    total.unexplained += one.unexplained;
}

/// Compares a module with what it should hold.
fn judge(
    system: &System<'_>,
    baseline: &Baseline,
    pages: &mut [KnownPages; 2],
    state: &mut Option<State>,
    recovered: &mut Recovered,
    waits: bool,
) -> Result<Judged, Missing> {
    let kernel = &system.kernel;
    let sites = baseline.sites(kernel);
    let state = state.get_or_insert_with(|| State::of_symbols(kernel.symbols));
    let mut judged = Judged::default();
    let mut open: Vec<Place> = Vec::new();
    let mut unreadable = Vec::new();
    for (region, known) in baseline.regions().zip(pages) {
        let (differences, missing) = text::read(system, &region, known)?;
        unreadable.extend(missing);
        judged.summary.bytes += region.bytes.len() as u64;
        match region.kind {
            RegionKind::Text => open.extend(places(differences.runs(), sites)),
            RegionKind::Rodata => open.extend(differences.runs().iter().map(|run| Place {
                start: run.start,
                end: run.end,
                site: None,
            })),
        }
        judged.summary.unexplained += differences.dropped();
    }
    if !open.is_empty() {
        let probed = kprobes::explain(kernel, recovered, baseline, &mut open);
        state.follow(system.journal);
        let traced = |place: &Place| place.site.is_some_and(|site| site.kind == SiteKind::Ftrace);
        if open.iter().any(traced) {
            state.learn(&Owners::gather(kernel, recovered));
        }
        judged.confirmed = confirm(kernel, baseline, sites, state, &open, waits)?;
        judged.confirmed.explained.extend(probed);
    }
    judged.confirmed.unexplained.extend(unreadable);
    judged.confirmed.unexplained.sort_by_key(|one| one.place.start);
    judged.summary.mutable = sites.mutable_bytes();
    judged.summary.pinned = judged.summary.bytes.saturating_sub(judged.summary.mutable);
    judged.summary.explained_changes = judged.confirmed.explained.len() as u64;
    judged.summary.unexplained += judged.confirmed.unexplained.len() as u64;
    Ok(judged)
}

#[cfg(test)]
mod tests;
