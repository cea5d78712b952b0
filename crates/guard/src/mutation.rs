// SPDX-License-Identifier: Apache-2.0
//! How much the guard would miss: random changes of a text, put through the comparison that runs
//! live.
//!
//! Whether a change is legal is decided twice: by the code that is under test, and by an oracle of
//! the caller's that must know nothing of it. Half of the changes are of one byte and half of five;
//! a third of them aim at sites, some of these with an encoding that is legal there or nearly so,
//! because blind chance hardly ever meets one.

use crate::baseline::{Baseline, RegionKind};
use crate::check::Missing;
use crate::compare::{Account, Differences, account, places};
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
    /// The share of the text that is mutable, in percent.
    pub fn mutable_percent(&self) -> f64 {
        100.0 * self.mutable as f64 / (self.bytes as f64).max(1.0)
    }

    /// How many encodings are legal at a site, on average.
    pub fn mean_encodings(&self) -> f64 {
        self.encodings as f64 / (self.sites as f64).max(1.0)
    }
}

/// Makes `count` changes to the text of a baseline, each by itself. The same `seed` makes the same
/// changes. `oracle` is given the change, and the bytes around it as they would be with the address
/// of the first.
pub fn mutate(
    baseline: &Baseline,
    sites: &Sites,
    state: &State,
    (count, seed): (u64, u64),
    oracle: &mut dyn FnMut(&Mutation, u64, &[u8]) -> bool,
) -> Result<Tally, Missing> {
    let text = baseline
        .region(RegionKind::Text)
        .ok_or_else(|| Missing::because("the baseline holds no text"))?;
    let all: Vec<Site> = sites.iter().collect();
    let encodings = all.iter().map(|site| sites.legal(site, state).len() as u64).sum();
    let mut tally = Tally {
        bytes: text.bytes.len() as u64,
        mutable: sites.mutable_bytes(),
        sites: all.len() as u64,
        encodings,
        ..Tally::default()
    };
    let mut random = Random(seed | 1);
    while tally.changes < count {
        let length = if tally.changes.is_multiple_of(2) { 1 } else { 5 };
        let mutation = match all.get(random.below(all.len() as u64 * 3) as usize) {
            Some(site) => at_site(&mut random, sites, state, site, length),
            None => Mutation {
                address: text.start + random.below(tally.bytes),
                bytes: random.bytes(length),
            },
        };
        let end = mutation.address + mutation.bytes.len() as u64;
        let resting = baseline.bytes_at(mutation.address, mutation.bytes.len());
        if end > text.end() || resting == Some(&mutation.bytes) {
            continue;
        }
        let start = mutation.address.saturating_sub(AROUND).max(text.start);
        let around = (end + AROUND).min(text.end());
        let expected = baseline.bytes_at(start, (around - start) as usize).unwrap_or_default();
        let mut seen = expected.to_vec();
        let at = (mutation.address - start) as usize;
        if let Some(place) = seen.get_mut(at..at + mutation.bytes.len()) {
            place.copy_from_slice(&mutation.bytes);
        }
        let found = is_found(start, &seen, expected, sites, state);
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
    Ok(tally)
}

/// What the check of the text does with bytes, without the reading again: a change made by hand
/// stays. So an int3 that stays counts as found.
fn is_found(start: u64, seen: &[u8], expected: &[u8], sites: &Sites, state: &State) -> bool {
    let mut differences = Differences::default();
    differences.compare(start, seen, expected);
    places(differences.runs(), sites).iter().any(|place| {
        let cut = |bytes: &[u8]| {
            let from = place.start.checked_sub(start)? as usize;
            bytes.get(from..from + place.length()).map(<[u8]>::to_vec)
        };
        let (Some(seen), Some(expected)) = (cut(seen), cut(expected)) else { return true };
        let account = account(place, &seen, &expected, sites, state);
        matches!(account, Account::Unexplained | Account::Poking)
    })
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
