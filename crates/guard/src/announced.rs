// SPDX-License-Identifier: Apache-2.0
//! Whether the kernel announced the changes that were seen.
//!
//! Each change of a site since the pass before must have its text poke in the journal. The journal
//! is emptied before a pass, so a change during the pass may be announced only in the next one:
//! a change counts as not announced when neither the pass that saw it nor the one after had the
//! poke. The first pass knows nothing of what came before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::baseline::Baseline;
use crate::compare::Place;
use crate::confirm::Explained;
use crate::journal::{Change, Journal};
use crate::patience::holds;
use crate::sites::Verdict;

/// What a finding about such a change is called.
pub(crate) const TECHNIQUE: &str = "change not announced by the kernel";

/// For how many passes a poke is remembered.
const REMEMBERED: u64 = 2;

#[derive(Debug)]
struct Poke {
    pass: u64,
    new: Vec<u8>,
}

/// What the passes before saw.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    pass: u64,
    /// Whether there was one that came to its end.
    begun: bool,
    /// In order of address.
    seen: Vec<Explained>,
    pokes: BTreeMap<u64, Vec<Poke>>,
    pending: BTreeMap<u64, (Place, Vec<u8>)>,
    /// Sites that the kernel was just changing in the last of them: what they were before that is in
    /// `seen`, and what is announced of them is remembered until they have been judged.
    left: Vec<Place>,
    /// Entries that the journal lost since the last pass that came to its end.
    lost: u64,
}

/// What a pass says.
#[derive(Debug, Default)]
pub(crate) struct Unannounced {
    /// Changes without an entry in the journal.
    pub(crate) findings: Vec<Explained>,
    /// Why it could not be told, where it could not.
    pub(crate) reduced: Option<String>,
}

impl Announced {
    /// A pass begins: takes what the journal holds. A pass that comes to no end has heard it all the same,
    /// because the next one's journal begins anew.
    pub(crate) fn hear(&mut self, journal: &Journal) {
        self.pass += 1;
        self.lost += journal.lost();
        self.remember(journal);
    }

    /// Holds the explained differences of this pass, in order of address, against those of the one before
    /// that came to its end. What was `left` to the next pass, in order of address too, is judged then.
    pub(crate) fn pass(
        &mut self,
        journal: &Journal,
        baseline: &Baseline,
        explained: Vec<Explained>,
        left: Vec<Place>,
    ) -> Unannounced {
        let before = std::mem::take(&mut self.seen);
        let begun = std::mem::replace(&mut self.begun, true);
        let lost = std::mem::take(&mut self.lost);
        // Padding is written without a word (text_poke_copy).
        let is_padding = |place: &Place| {
            place.site.is_some_and(|site| site.kind == crate::sites::SiteKind::Padding)
        };
        self.seen = explained;
        self.seen.retain(|one| !is_padding(&one.place));
        self.left = left;
        if !self.left.is_empty() {
            self.seen.retain(|one| !holds(&self.left, one.place.start));
            let as_before = before.iter().filter(|one| holds(&self.left, one.place.start));
            self.seen.extend(as_before.cloned());
            self.seen.sort_by_key(|one| one.place.start);
        }
        let mut unannounced = Unannounced::default();
        if let Err(reason) = journal.text_pokes() {
            self.pending.clear();
            unannounced.reduced =
                begun.then(|| format!("changes are not held against a journal: {reason}"));
            return unannounced;
        }
        if lost > 0 {
            self.pending.clear();
            unannounced.reduced =
                begun.then(|| format!("{lost} entries of the journal were lost in this pass"));
            return unannounced;
        }
        if begun {
            unannounced.findings = self.judge(baseline, &before);
        }
        unannounced
    }

    fn remember(&mut self, journal: &Journal) {
        for entry in journal.entries() {
            let Change::TextPoke { address, new, .. } = &entry.change else { continue };
            let pokes = self.pokes.entry(*address).or_default();
            // A site that goes on and off has two encodings, however often it does.
            match pokes.iter_mut().find(|poke| poke.new == *new) {
                Some(poke) => poke.pass = self.pass,
                None => pokes.push(Poke { pass: self.pass, new: new.clone() }),
            }
        }
        let (pass, left) = (self.pass, &self.left);
        self.pokes.retain(|address, pokes| {
            let lasts = holds(left, *address);
            pokes.retain(|poke| lasts || poke.pass + REMEMBERED > pass);
            !pokes.is_empty()
        });
    }

    fn judge(&mut self, baseline: &Baseline, before: &[Explained]) -> Vec<Explained> {
        let mut findings = Vec::new();
        let late = std::mem::take(&mut self.pending);
        let mut touched = changed(before, &self.seen);
        touched.extend(late.keys());
        for address in touched {
            let seen = at(&self.seen, address).or_else(|| at(before, address));
            let place = seen.map(|one| one.place);
            let Some(place) = place.or_else(|| late.get(&address).map(|(place, _)| *place)) else {
                continue;
            };
            let resting = baseline.bytes_at(address, place.length()).unwrap_or_default();
            let was = at(before, address).map_or(resting, |one| &one.seen);
            let is = at(&self.seen, address).map_or(resting, |one| &one.seen).to_vec();
            if holds(&self.left, address) {
                self.pending.extend(late.get(&address).map(|late| (address, late.clone())));
                continue;
            }
            if self.poked_to(address, &is) {
                continue;
            }
            if late.get(&address).is_some_and(|(_, late)| *late == is) {
                findings.push(self.as_seen(address, place, is));
            } else if was != is {
                self.pending.insert(address, (place, is));
            }
        }
        findings
    }

    fn poked_to(&self, address: u64, bytes: &[u8]) -> bool {
        let pokes = self.pokes.get(&address).map(Vec::as_slice).unwrap_or_default();
        pokes.iter().any(|poke| poke.new.starts_with(bytes))
    }

    fn as_seen(&self, address: u64, place: Place, seen: Vec<u8>) -> Explained {
        at(&self.seen, address).cloned().unwrap_or(Explained {
            place,
            seen,
            verdict: Verdict::Illegal,
        })
    }
}

/// Where two passes saw something else. Thousands of sites stay as they are from one to the next, and
/// few do not.
fn changed(before: &[Explained], now: &[Explained]) -> BTreeSet<u64> {
    let mut changed = BTreeSet::new();
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let start = |one: &&Explained| one.place.start;
        let address = match (before.peek().map(start), now.peek().map(start)) {
            (Some(was), Some(is)) => was.min(is),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return changed,
        };
        let was = before.next_if(|one| one.place.start == address);
        let is = now.next_if(|one| one.place.start == address);
        if was.map(|one| &one.seen) != is.map(|one| &one.seen) {
            changed.insert(address);
        }
    }
}

/// What a pass saw at an address.
fn at(seen: &[Explained], address: u64) -> Option<&Explained> {
    let found = seen.binary_search_by_key(&address, |one| one.place.start).ok()?;
    seen.get(found)
}
