// SPDX-License-Identifier: Apache-2.0
//! Executable memory that is about to be given back.
//!
//! The kernel takes a module, or a page of slots of kprobes, off its list first, then waits until no
//! processor can be in it any more, and then frees it (`free_module`, kernel/module/main.c;
//! `collect_one_slot`, kernel/kprobes.c; 6.1 to 7.3). A busy machine, or one whose processors come and
//! go, takes a second for that. So what had an owner at the look before is told of only when it is still
//! there after some looks. What never had one is told of at once, and nobody is kept waiting.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long memory may stay executable that has lost its owner.
pub(super) const FREEING: Duration = Duration::from_secs(3);

/// What had owners.
#[derive(Debug, Default)]
pub(super) struct Freeing {
    /// Ranges with an owner at the last look; none before the first.
    owned: Option<Vec<Range<u64>>>,
    /// Since when what lost its owner is nobody's, by the address where it begins.
    lost: BTreeMap<u64, Instant>,
}

impl Freeing {
    /// Whether nothing is known of an earlier look.
    pub(super) fn is_first(&self) -> bool {
        self.owned.is_none()
    }

    /// Which of the addresses of executable memory without an owner may still be about to be freed, and
    /// from now on `owned` is what has one.
    pub(super) fn excused(
        &mut self,
        now: Instant,
        unowned: impl Iterator<Item = u64>,
        owned: Vec<Range<u64>>,
    ) -> Vec<u64> {
        let before = self.owned.replace(owned).unwrap_or_default();
        let known = std::mem::take(&mut self.lost);
        let mut excused = Vec::new();
        for address in unowned {
            let had_owner = || before.iter().any(|range| range.contains(&address));
            let since = match known.get(&address) {
                Some(since) => *since,
                None if had_owner() => now,
                None => continue,
            };
            // Also when its time is over: it is not to begin anew.
            self.lost.insert(address, since);
            if now.saturating_duration_since(since) < FREEING {
                excused.push(address);
            }
        }
        excused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: Range<u64> = 0xffff_ffff_c000_0000..0xffff_ffff_c000_4000;

    fn excused(freeing: &mut Freeing, now: Instant, unowned: &[u64]) -> Vec<u64> {
        freeing.excused(now, unowned.iter().copied(), vec![])
    }

    #[test]
    fn what_lost_its_owner_has_time_and_what_never_had_one_has_none() {
        let start = Instant::now();
        let mut freeing = Freeing::default();
        assert!(freeing.is_first());
        freeing.excused(start, [].into_iter(), vec![MODULE]);
        assert!(!freeing.is_first());
        let (lost, hidden) = (MODULE.start + 0x1000, MODULE.end);
        assert_eq!(excused(&mut freeing, start, &[lost, hidden]), [lost]);
        let later = start + FREEING / 2;
        assert_eq!(excused(&mut freeing, later, &[lost, hidden]), [lost]);
    }

    #[test]
    fn its_time_ends_and_does_not_begin_anew() {
        let start = Instant::now();
        let mut freeing = Freeing::default();
        freeing.excused(start, [].into_iter(), vec![MODULE]);
        for (seconds, count) in [(0, 1), (2, 1), (3, 0), (4, 0), (100, 0)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(excused(&mut freeing, now, &[MODULE.start]).len(), count, "{seconds} s");
        }
    }

    #[test]
    fn what_was_freed_and_is_there_again_without_an_owner_is_told_at_once() {
        let start = Instant::now();
        let mut freeing = Freeing::default();
        freeing.excused(start, [].into_iter(), vec![MODULE]);
        assert_eq!(excused(&mut freeing, start, &[MODULE.start]).len(), 1);
        assert_eq!(excused(&mut freeing, start, &[]).len(), 0);
        assert_eq!(excused(&mut freeing, start, &[MODULE.start]).len(), 0);
    }
}
