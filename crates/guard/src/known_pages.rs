// SPDX-License-Identifier: Apache-2.0
//! Pages that were compared, known again by a digest.
//!
//! A pass over the text is bound by memory, not by instructions: what was read lies in the cache,
//! while the expected bytes come from far away and push everything else out. So a page that was
//! compared once leaves a digest behind, and the next pass looks at the digest instead of the expected
//! bytes. Half of what a pass takes from memory is saved by that. Where a page differs is kept with its
//! digest: that is said again, and whoever judges the difference reads its bytes.
//!
//! A page that changed has the digest of the expected one with a probability of at most 2^-32
//! ([`crate::digest`]). The key is drawn anew and all bytes are compared in each [`WHOLE`]th pass, so
//! such luck would not last. Parts of pages are compared as they are.

use std::collections::HashMap;

use crate::compare::{Differences, Run};
use crate::digest::{Digest, Key, PAGE};

/// Passes after which a key is used no longer.
pub(crate) const WHOLE: u32 = 60;

/// See the module. One is for one region.
#[derive(Clone, Debug, Default)]
pub struct KnownPages {
    key: Key,
    /// By page of the region; 0 for one that is not known.
    digests: Vec<Digest>,
    /// Where those of them differ that do.
    differing: HashMap<usize, Vec<Run>>,
    passes: u32,
}

impl KnownPages {
    /// Begins a pass. Before the first, no page is known.
    pub fn begin(&mut self) {
        if self.passes.is_multiple_of(WHOLE) {
            self.key = Key::draw();
            self.digests.clear();
            self.differing.clear();
        }
        self.passes = self.passes.wrapping_add(1);
    }

    /// Uses this key from now on. Nothing is known under it.
    pub(crate) fn renew(&mut self, key: &Key) {
        self.key = key.clone();
        self.digests.clear();
        self.differing.clear();
    }

    /// Compares as [`Differences::compare`] does. `seen` was read at `address`, `offset` bytes after
    /// the start of the region.
    pub fn compare(
        &mut self,
        differences: &mut Differences,
        address: u64,
        offset: usize,
        seen: &[u8],
        expected: &[u8],
    ) {
        if seen.len() != expected.len() || !offset.is_multiple_of(PAGE) {
            return differences.compare(address, seen, expected);
        }
        let pages = (offset / PAGE..).zip(seen.chunks(PAGE).zip(expected.chunks(PAGE)));
        for ((page, (seen, expected)), at) in pages.zip((address..).step_by(PAGE)) {
            if seen.len() != PAGE {
                differences.compare(at, seen, expected);
                continue;
            }
            let digest = self.key.digest(seen);
            if digest != 0 && self.digests.get(page) == Some(&digest) {
                differences.add_all(self.differing.get(&page).map_or(&[], Vec::as_slice));
                continue;
            }
            let mut of_page = Differences::default();
            of_page.compare(at, seen, expected);
            differences.add_all(of_page.runs());
            if of_page.runs().is_empty() {
                self.differing.remove(&page);
            } else {
                self.differing.insert(page, of_page.runs().to_vec());
            }
            if self.digests.len() <= page {
                self.digests.resize(page + 1, 0);
            }
            if let Some(known) = self.digests.get_mut(page) {
                *known = digest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(seed: u64) -> Vec<u8> {
        (0..PAGE as u64).map(|at| (at.wrapping_mul(seed) >> 3) as u8).collect()
    }

    fn pass(known: &mut KnownPages, seen: &[u8], expected: &[u8]) -> Vec<(u64, u64)> {
        let mut differences = Differences::default();
        known.begin();
        known.compare(&mut differences, 0x1000, 0, seen, expected);
        differences.runs().iter().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn what_changes_after_a_pass_is_found_in_the_next_and_gone_when_it_is_changed_back() {
        let expected = [page_of(7919), page_of(31), page_of(101)[..100].to_vec()].concat();
        let mut known = KnownPages::default();
        for at in [0, 1, 7, 8, 4095, 4096, 5000, 8191, 8192, 8291] {
            let mut seen = expected.clone();
            assert!(pass(&mut known, &seen, &expected).is_empty());
            seen[at] ^= 0x80;
            let address = 0x1000 + at as u64;
            assert_eq!(pass(&mut known, &seen, &expected), [(address, address + 1)], "byte {at}");
            assert_eq!(pass(&mut known, &seen, &expected), [(address, address + 1)], "byte {at}");
        }
    }

    #[test]
    fn two_changes_do_not_make_up_for_each_other() {
        // Sums without a key, or with one factor, would not see these.
        let expected = page_of(7919);
        let mut known = KnownPages::default();
        assert!(pass(&mut known, &expected, &expected).is_empty());
        for (a, b) in [(0, 8), (7, 15), (3, 4091), (0, 4)] {
            let mut seen = expected.clone();
            seen.swap(a, b);
            let changed = seen != expected;
            assert_eq!(!pass(&mut known, &seen, &expected).is_empty(), changed);
            let mut seen = expected.clone();
            seen[a] ^= 0x80;
            seen[b] ^= 0x80;
            assert_eq!(pass(&mut known, &seen, &expected).len(), 2);
        }
    }

    #[test]
    fn the_expected_bytes_are_looked_at_again_in_time() {
        // A page is known only while its key lasts: then what should be there counts, not what was.
        let (old, new) = (page_of(7919), page_of(31));
        let mut known = KnownPages::default();
        for _ in 0..WHOLE {
            assert!(pass(&mut known, &old, &old).is_empty());
        }
        assert!(!pass(&mut known, &old, &new).is_empty());
    }

    #[test]
    fn a_part_of_a_page_is_compared_as_it_is() {
        let expected = page_of(7919);
        let mut known = KnownPages::default();
        known.begin();
        for _ in 0..2 {
            let mut differences = Differences::default();
            let mut seen = expected[8..].to_vec();
            seen[0] ^= 1;
            known.compare(&mut differences, 0x1008, 8, &seen, &expected[8..]);
            assert_eq!(differences.runs().len(), 1);
        }
    }
}
