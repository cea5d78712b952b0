// SPDX-License-Identifier: Apache-2.0
//! How much the guard would miss: random changes of text or read-only data, put through the comparison
//! that runs live. They are made to a copy of what memory holds, and compared with what it should hold.
//!
//! Whether a change is legal is decided twice: by the code that is under test, and by an oracle of
//! the caller's that must know nothing of it. Half of the changes are of one byte and half of five;
//! a third of them aim at sites, some of these with an encoding that is legal there or nearly so,
//! because blind chance hardly ever meets one.

use crate::baseline::{Baseline, RegionKind};
use crate::check::Missing;
use crate::compare::{Account, Differences, Place, account, places};
use crate::sites::{LONGEST, Site, Sites, State};

/// Bytes around a change that are compared with it: more than two sites on each side.
const AROUND: u64 = 4 * LONGEST as u64;

/// One random change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Where.
    pub address: u64,
    /// The new bytes; at least one differs from what was there.
    pub bytes: Vec<u8>,
}

/// What became of the changes.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many were made.
    pub changes: u64,
    /// How many of them the oracle calls legal.
    pub legal: u64,
    /// How many the guard found.
    pub found: u64,
    /// Those that the oracle calls illegal and the guard did not find.
    pub missed: Vec<Mutation>,
    /// Those that the oracle calls legal and the guard found.
    pub false_alarms: Vec<Mutation>,
    /// Bytes of text.
    pub bytes: u64,
    /// Bytes of text in sites.
    pub mutable: u64,
    /// Sites.
    pub sites: u64,
    /// Encodings that are legal at the sites, together.
    pub encodings: u64,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.legal += other.legal;
        self.found += other.found;
        self.missed.extend(other.missed);
        self.false_alarms.extend(other.false_alarms);
        self.bytes += other.bytes;
        self.mutable += other.mutable;
        self.sites += other.sites;
        self.encodings += other.encodings;
    }

    /// Changes outside of what is legal.
    pub fn illegal(&self) -> u64 {
        self.changes - self.legal
    }

    /// Those of them that were found.
    pub fn illegal_found(&self) -> u64 {
        self.illegal() - self.missed.len() as u64
    }

    /// The share of the text that is mutable, in percent.
    pub fn mutable_percent(&self) -> f64 {
        100.0 * self.mutable as f64 / (self.bytes as f64).max(1.0)
    }

    /// How many encodings are legal at a site, on average.
    pub fn mean_encodings(&self) -> f64 {
        self.encodings as f64 / (self.sites as f64).max(1.0)
    }
}

/// What changes are made to.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The address of the first byte.
    pub start: u64,
    /// What memory holds.
    pub seen: &'a [u8],
    /// What it should hold; as long as what it holds.
    pub expected: &'a [u8],
    /// The places in it that the kernel itself patches.
    pub sites: &'a Sites,
    /// The kernel's data that decides about them.
    pub state: &'a State,
}

impl Subject<'_> {
    fn end(&self) -> u64 {
        self.start + self.seen.len() as u64
    }

    /// Both contents of a range.
    fn contents(&self, start: u64, end: u64) -> Option<(&[u8], &[u8])> {
        let range = start.checked_sub(self.start)? as usize..end.checked_sub(self.start)? as usize;
        Some((self.seen.get(range.clone())?, self.expected.get(range)?))
    }

    /// Places where memory differs already: those that a table explains, and those that none does.
    pub fn differing(&self) -> (Vec<Place>, Vec<Place>) {
        let mut differences = Differences::default();
        differences.compare(self.start, self.seen, self.expected);
        places(differences.runs(), self.sites).into_iter().partition(|place| {
            let contents = self.contents(place.start, place.end);
            contents.is_some_and(|(seen, expected)| {
                !is_noticed(account(place, seen, expected, self.sites, self.state))
            })
        })
    }

    /// Whether a site of it holds one of the encodings that are listed for it. Listing them is other code
    /// than judging bytes.
    pub fn is_listed(&self, site: &Site) -> bool {
        let legal = self.sites.legal(site, self.state);
        self.contents(site.address, site.end())
            .is_some_and(|(seen, _)| legal.iter().any(|legal| legal.bytes == seen))
    }
}

/// Makes `count` changes to the text of a baseline, each by itself. The same `seed` makes the same
/// changes. `oracle` is given the change, and the bytes around it as they would be with the address
/// of the first.
pub fn mutate(
    baseline: &Baseline,
    sites: &Sites,
    state: &State,
    how: (u64, u64),
    oracle: &mut dyn FnMut(&Mutation, u64, &[u8]) -> bool,
) -> Result<Tally, Missing> {
    let text = baseline
        .region(RegionKind::Text)
        .ok_or_else(|| Missing::because("the baseline holds no text"))?;
    let (seen, expected) = (text.bytes, text.bytes);
    Ok(mutate_copy(&Subject { start: text.start, seen, expected, sites, state }, how, oracle))
}

/// The same to a copy of what memory holds.
pub fn mutate_copy(
    subject: &Subject<'_>,
    (count, seed): (u64, u64),
    oracle: &mut dyn FnMut(&Mutation, u64, &[u8]) -> bool,
) -> Tally {
    let Subject { start: first, sites, state, .. } = *subject;
    let all: Vec<Site> = sites.iter().collect();
    let encodings = all.iter().map(|site| sites.legal(site, state).len() as u64).sum();
    let mut tally = Tally {
        bytes: subject.seen.len() as u64,
        mutable: sites.mutable_bytes(),
        sites: all.len() as u64,
        encodings,
        ..Tally::default()
    };
    // Where there is no room for a change, none can be made.
    if subject.seen.len() < 8 || subject.seen.len() != subject.expected.len() {
        return tally;
    }
    let mut random = Random(seed | 1);
    while tally.changes < count {
        let length = if tally.changes.is_multiple_of(2) { 1 } else { 5 };
        let mutation = match all.get(random.below(all.len() as u64 * 3) as usize) {
            Some(site) => at_site(&mut random, sites, state, site, length),
            None => {
                Mutation { address: first + random.below(tally.bytes), bytes: random.bytes(length) }
            }
        };
        let end = mutation.address + mutation.bytes.len() as u64;
        match subject.contents(mutation.address, end) {
            Some((resting, _)) if resting != mutation.bytes => {}
            _ => continue,
        }
        let start = mutation.address.saturating_sub(AROUND).max(first);
        let around = (end + AROUND).min(subject.end());
        let Some((resting, expected)) = subject.contents(start, around) else { continue };
        let mut seen = resting.to_vec();
        let at = (mutation.address - start) as usize;
        if let Some(place) = seen.get_mut(at..at + mutation.bytes.len()) {
            place.copy_from_slice(&mutation.bytes);
        }
        let found = is_found(&mutation, start, &seen, expected, sites, state);
        let legal = oracle(&mutation, start, &seen);
        tally.changes += 1;
        tally.legal += u64::from(legal);
        tally.found += u64::from(found);
        match (legal, found) {
            (false, false) => tally.missed.push(mutation),
            (true, true) => tally.false_alarms.push(mutation),
            (true, false) | (false, true) => {}
        }
    }
    tally
}

/// What the check of the text does with bytes, without the reading again: a change made by hand
/// stays. So an int3 that stays counts as found. What differs elsewhere was there before the change and
/// tells nothing of it.
fn is_found(
    mutation: &Mutation,
    start: u64,
    seen: &[u8],
    expected: &[u8],
    sites: &Sites,
    state: &State,
) -> bool {
    let mut differences = Differences::default();
    differences.compare(start, seen, expected);
    let end = mutation.address + mutation.bytes.len() as u64;
    let mut places = places(differences.runs(), sites);
    places.retain(|place| place.start < end && mutation.address < place.end);
    places.iter().any(|place| {
        let cut = |bytes: &[u8]| {
            let from = place.start.checked_sub(start)? as usize;
            bytes.get(from..from + place.length()).map(<[u8]>::to_vec)
        };
        let (Some(seen), Some(expected)) = (cut(seen), cut(expected)) else { return true };
        is_noticed(account(place, &seen, &expected, sites, state))
    })
}

fn is_noticed(account: Account) -> bool {
    matches!(account, Account::Unexplained | Account::Poking)
}

fn at_site(
    random: &mut Random,
    sites: &Sites,
    state: &State,
    site: &Site,
    length: usize,
) -> Mutation {
    let legal = sites.legal(site, state);
    let chosen = legal.get(random.below(legal.len().max(1) as u64) as usize);
    match (random.below(3), chosen) {
        (0, Some(chosen)) => Mutation { address: site.address, bytes: chosen.bytes.clone() },
        (1, Some(chosen)) => {
            let mut bytes = chosen.bytes.clone();
            let at = random.below(bytes.len() as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
            Mutation { address: site.address, bytes }
        }
        _ => {
            let near = site.address.saturating_sub(5) + random.below(11);
            Mutation { address: near, bytes: random.bytes(length) }
        }
    }
}

/// xorshift64*: good enough to spread changes, and the same on each machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.next().to_le_bytes().into_iter().take(length).collect()
    }
}
