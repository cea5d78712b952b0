// SPDX-License-Identifier: Apache-2.0
//! Every byte of the kernel's text, against the baseline.
//!
//! 98 % of the text must be equal at all times. The rest are sites that the kernel patches, each
//! with a handful of legal encodings; a difference there is explained by its table or it is a
//! finding. Where a journal runs, an explained difference must also have been announced by the
//! kernel when it came: whoever writes a legal encoding by himself is found by that.

use std::ops::ControlFlow;
use std::time::Instant;

use kernel_memory::Piece;

use crate::announced::{Announced, TECHNIQUE};
use crate::baseline::{Baseline, Region, RegionKind};
use crate::check::{About, Check, Missing, Outcome, Pace, System};
use crate::compare::{Differences, Place, places};
use crate::confirm::{Confirmed, Explained, Unexplained, confirm};
use crate::evidence::{self, Change};
use crate::finding::TextSummary;
use crate::known_pages::KnownPages;
use crate::kprobes;
use crate::owners::Owners;
use crate::patience::Patience;
use crate::recover::Recovered;
use crate::sites::{SiteKind, Sites, State};

/// More findings of one pass say nothing more.
const FINDINGS: usize = 64;

/// What a jump to where only kprobes lead is called, if no kprobe of the kernel's table made it.
const HIDDEN_KPROBE: &str = "kprobe hidden from the kernel's table";

/// In which passes the kernel's lists of tracers' trampolines are read anew although every call
/// leads to one that is known: one that went must not stay legal.
const LEARNING: u32 = 5;

/// The check.
#[derive(Debug, Default)]
pub struct Text {
    state: Option<State>,
    announced: Announced,
    recovered: Recovered,
    known: KnownPages,
    passes: u32,
    mutable: Option<u64>,
    patience: Patience,
}

impl Text {
    fn is_ftrace(place: &Place) -> bool {
        place.site.is_some_and(|site| site.kind == SiteKind::Ftrace)
    }
}

impl Check for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn about(&self) -> About {
        About {
            needs: "a baseline, and memory that can be read",
            reads: "all bytes from _stext to _etext; what differs is read again",
            means: "code of the kernel is not what it was, and no table of the kernel allows it",
            blind_to: "with a baseline of the first check, what was changed before it; changes \
                       that were undone between two passes",
        }
    }

    fn pace(&self) -> Pace {
        Pace::EachPass
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let System { kernel, baseline, .. } = system;
        self.announced.hear(system.journal);
        let text = baseline
            .region(RegionKind::Text)
            .ok_or_else(|| Missing::because("the baseline holds no text"))?;
        let sites = baseline.sites(kernel);
        let state = self.state.get_or_insert_with(|| State::of_symbols(kernel.symbols));

        self.known.begin();
        let (differences, mut unreadable) = read(system, &text, &mut self.known)?;
        let mut places = places(differences.runs(), sites);
        let recovered = &mut self.recovered;
        let mut probed = Vec::new();
        if places.iter().any(|place| place.site.is_none()) {
            probed = kprobes::explain(kernel, recovered, baseline, &mut places);
        }
        add_calling(&mut places, sites);
        state.follow(system.journal);
        let calls = places.iter().any(Self::is_ftrace);
        let mut fresh = calls && self.passes.is_multiple_of(LEARNING);
        if fresh {
            state.learn(&Owners::gather(kernel, &mut self.recovered));
        }
        let waits = self.patience.waits(Instant::now());
        let mut confirmed = confirm(kernel, baseline, sites, state, &places, waits)?;
        fresh |= !confirmed.unexplained.iter().any(|one| Self::is_ftrace(&one.place));
        if !fresh {
            // Perhaps a tracer that came since the lists were read.
            state.learn(&Owners::gather(kernel, &mut self.recovered));
            let places: Vec<Place> = confirmed.unexplained.drain(..).map(|one| one.place).collect();
            let again = confirm(kernel, baseline, sites, state, &places, waits)?;
            confirmed.left.extend(again.left);
            confirmed.left.sort_by_key(|place| place.start);
            confirmed.explained.extend(again.explained);
            confirmed.explained.sort_by_key(|one| one.place.start);
            confirmed.unexplained = again.unexplained;
        }
        self.passes = self.passes.wrapping_add(1);
        // Perhaps a kprobe that came or was optimised meanwhile.
        let mut left = confirmed.unexplained.iter().map(|one| one.place).collect();
        probed.extend(kprobes::explain(kernel, &mut self.recovered, baseline, &mut left));
        confirmed.unexplained.retain(|one| left.contains(&one.place));
        confirmed.explained.append(&mut probed);
        confirmed.explained.sort_by_key(|one| one.place.start);
        confirmed.explained.dedup_by_key(|one| one.place.start);

        confirmed.unexplained.append(&mut unreadable);
        confirmed.unexplained.sort_by_key(|one| one.place.start);
        let changes = evidence::join(&confirmed.unexplained, kernel.symbols);
        for change in changes.iter().take(FINDINGS) {
            let mut finding = evidence::of_text(self.name(), kernel, baseline, change);
            let seen = kernel.bytes_at(change.start, 5).unwrap_or_default();
            if kprobes::is_detour(kernel, &mut self.recovered, change.start, &seen) {
                HIDDEN_KPROBE.clone_into(&mut finding.technique);
            }
            outcome.findings.push(finding);
        }
        let explained_changes = confirmed.explained.len() as u64;
        outcome.reduced.extend(self.patience.left(Instant::now(), confirmed.left.len()));
        let Confirmed { explained, unexplained, mut left, .. } = confirmed;
        // Told of already; whether it was announced is asked when it is legal again.
        left.extend(unexplained.iter().map(|one| one.place));
        left.sort_by_key(|place| place.start);
        let unannounced = self.announced.pass(system.journal, baseline, explained, left);
        for one in unannounced.findings.iter().take(FINDINGS) {
            outcome.findings.push(not_announced(self.name(), system, one));
        }
        outcome.reduced.extend(unannounced.reduced);
        outcome.reduced.extend(sites.reduced.iter().cloned());
        let hidden = changes.len().saturating_sub(FINDINGS) as u64 + differences.dropped();
        if hidden > 0 {
            outcome.reduced.push(format!("{hidden} more changes are not shown"));
        }
        let mutable = *self.mutable.get_or_insert_with(|| sites.mutable_bytes());
        let bytes = text.bytes.len() as u64;
        outcome.text = Some(TextSummary {
            bytes,
            pinned: bytes.saturating_sub(mutable),
            mutable,
            explained_changes,
            unexplained: changes.len() as u64 + differences.dropped(),
        });
        Ok(())
    }
}

/// Compares all of a region with memory, but for pages that are `known`. What cannot be read is given
/// apart.
pub(super) fn read(
    system: &System<'_>,
    region: &Region<'_>,
    known: &mut KnownPages,
) -> Result<(Differences, Vec<Unexplained>), Missing> {
    let mut differences = Differences::default();
    let mut unreadable = Vec::new();
    let length = region.bytes.len() as u64;
    system.kernel.memory.visit(region.start, length, &mut |piece| {
        match piece {
            Piece::Bytes { address, bytes } => {
                let offset = address.wrapping_sub(region.start) as usize;
                let end = offset.saturating_add(bytes.len()).min(region.bytes.len());
                let expected = region.bytes.get(offset..end).unwrap_or_default();
                known.compare(&mut differences, address, offset, bytes, expected);
            }
            Piece::Unreadable { address, length } => {
                let place = Place { start: address, end: address + length, site: None };
                unreadable.push(Unexplained { place, seen: Vec::new(), readings: 1 });
            }
        }
        ControlFlow::Continue(())
    })?;
    // What could not be read once may have been a fault of the moment.
    unreadable.retain(|one: &Unexplained| {
        let mut byte = [0];
        system.kernel.memory.read(one.place.start, &mut byte).is_err()
    });
    Ok((differences, unreadable))
}

/// Adds the ftrace sites that held a call when the baseline was taken.
fn add_calling(places: &mut Vec<Place>, sites: &Sites) {
    places.extend(sites.ftrace.calling().map(Place::of_site));
    places.sort_by_key(|place| place.start);
    places.dedup();
}

fn not_announced(
    check: &'static str,
    system: &System<'_>,
    explained: &Explained,
) -> crate::Finding {
    let baseline: &Baseline = system.baseline;
    let change = Change {
        start: explained.place.start,
        end: explained.place.end,
        site: explained.place.site,
        readings: 2,
        readable: true,
    };
    let mut finding = evidence::of_text(check, &system.kernel, baseline, &change);
    TECHNIQUE.clone_into(&mut finding.technique);
    finding.evidence.push(
        "its encoding is legal there, but the kernel's journal of text pokes has no entry for it"
            .to_owned(),
    );
    finding
}
