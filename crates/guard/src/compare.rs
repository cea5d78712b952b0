// SPDX-License-Identifier: Apache-2.0
//! Memory against the baseline, byte by byte, and what a difference is part of.
//!
//! This is the one place where the two are compared: the live check, `explain` and the mutation
//! test all come through here. The whole text passes through every second, so equal bytes must
//! cost no more than reading them: slices are compared first, bytes only where slices differ.

use crate::sites::{Site, SiteKind, Sites, State, Verdict};

/// Equal stretches are skipped in steps of this many bytes. A page or two stay in the first-level
/// cache while both sides are read.
const STRIDE: usize = 4096;
const BLOCK: usize = 64;

/// Bytes that differ, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The address of the first.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
}

/// Where memory differs from the baseline.
#[derive(Clone, Debug)]
pub struct Differences {
    runs: Vec<Run>,
    limit: usize,
    dropped: u64,
}

impl Default for Differences {
    fn default() -> Self {
        // Every site of a kernel at once, and some: more runs say nothing more.
        Self { runs: Vec::new(), limit: 1 << 17, dropped: 0 }
    }
}

impl Differences {
    /// The runs, in the order in which memory was compared.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many there are, with those that were not kept.
    pub fn count(&self) -> u64 {
        self.runs.len() as u64 + self.dropped
    }

    /// How many runs were not kept because there were too many.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Compares `seen`, which was read at `address`, with what was expected there. What is longer
    /// than the other differs.
    pub fn compare(&mut self, address: u64, seen: &[u8], expected: &[u8]) {
        let common = seen.len().min(expected.len());
        let pairs = seen.chunks(STRIDE).zip(expected.chunks(STRIDE));
        for ((seen, expected), at) in pairs.zip((address..).step_by(STRIDE)) {
            if seen != expected {
                self.compare_blocks(at, seen, expected);
            }
        }
        let longer = seen.len().max(expected.len());
        if longer > common {
            self.add(address + common as u64, address + longer as u64);
        }
    }

    fn compare_blocks(&mut self, address: u64, seen: &[u8], expected: &[u8]) {
        let pairs = seen.chunks(BLOCK).zip(expected.chunks(BLOCK));
        for ((seen, expected), at) in pairs.zip((address..).step_by(BLOCK)) {
            if seen == expected {
                continue;
            }
            for ((seen, expected), at) in seen.iter().zip(expected).zip(at..) {
                if seen != expected {
                    self.add(at, at + 1);
                }
            }
        }
    }

    /// Adds runs that were found before.
    pub fn add_all(&mut self, runs: &[Run]) {
        for run in runs {
            self.add(run.start, run.end);
        }
    }

    fn add(&mut self, start: u64, end: u64) {
        if let Some(last) = self.runs.last_mut()
            && last.end == start
        {
            last.end = end;
        } else if self.runs.len() < self.limit {
            self.runs.push(Run { start, end });
        } else {
            self.dropped += 1;
        }
    }
}

/// A place that has to be explained as one: a whole site, or bytes outside of all sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address of its first byte.
    pub start: u64,
    /// The address after its last byte.
    pub end: u64,
    /// The site that it is.
    pub site: Option<Site>,
}

impl Place {
    /// A whole site.
    pub fn of_site(site: Site) -> Self {
        Self { start: site.address, end: site.end(), site: Some(site) }
    }

    /// How many bytes it has.
    pub fn length(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Cuts differences along the sites they touch. Each site is there once, whole; what is outside of
/// sites is there as it differs.
pub fn places(runs: &[Run], sites: &Sites) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for run in runs {
        let mut at = run.start;
        while at < run.end {
            let site = sites.first_after(at).filter(|site| site.address < run.end);
            let Some(site) = site else {
                places.push(Place { start: at, end: run.end, site: None });
                break;
            };
            if at < site.address {
                places.push(Place { start: at, end: site.address, site: None });
            }
            places.push(Place::of_site(site));
            at = site.end();
        }
    }
    places.sort_by_key(|place| place.start);
    places.dedup();
    places
}

/// What a place turned out to be when it was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// As the baseline has it.
    Same,
    /// Another encoding that the site's table allows.
    Explained(Verdict),
    /// An int3 at a site: perhaps a text poke under way.
    Poking,
    /// Nothing explains it.
    Unexplained,
}

/// Explains `seen` at a place where `expected` should be.
pub fn account(
    place: &Place,
    seen: &[u8],
    expected: &[u8],
    sites: &Sites,
    state: &State,
) -> Account {
    let Some(site) = place.site else {
        return if seen == expected { Account::Same } else { Account::Unexplained };
    };
    // An ftrace site is judged even when nothing changed: what it called when the baseline was
    // taken may have been a rootkit's.
    let may_rest = !matches!(site.kind, SiteKind::Ftrace | SiteKind::FtraceCall);
    match sites.judge(&site, seen, state) {
        Verdict::Illegal if seen == expected && may_rest => Account::Same,
        Verdict::Illegal => Account::Unexplained,
        Verdict::Poking => Account::Poking,
        _ if seen == expected => Account::Same,
        legal => Account::Explained(legal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(seen: &[u8], expected: &[u8]) -> Vec<(u64, u64)> {
        let mut differences = Differences::default();
        differences.compare(0x1000, seen, expected);
        differences.runs().iter().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn equal_bytes_give_no_run() {
        assert!(runs(&[7; 10_000], &[7; 10_000]).is_empty());
    }

    #[test]
    fn a_run_across_a_block_is_one() {
        let mut seen = vec![7; 10_000];
        seen[4090..4100].fill(8);
        seen[9999] = 8;
        assert_eq!(runs(&seen, &[7; 10_000]), [(0x1000 + 4090, 0x1000 + 4100), (0x370f, 0x3710)]);
    }

    #[test]
    fn what_is_missing_differs() {
        assert_eq!(runs(&[7; 4], &[7; 6]), [(0x1004, 0x1006)]);
    }

    #[test]
    fn every_single_byte_counts() {
        let expected = vec![0; 300];
        for index in 0..expected.len() {
            let mut seen = expected.clone();
            seen[index] = 1;
            let at = 0x1000 + index as u64;
            assert_eq!(runs(&seen, &expected), [(at, at + 1)]);
        }
    }
}
