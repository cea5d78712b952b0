// SPDX-License-Identifier: Apache-2.0
//! Executable memory that is about to be given back.
//!
//! The kernel takes a module, or a page of slots of kprobes, off its list first, then waits until no
//! processor can be in it any more, and then frees it (`free_module`, kernel/module/main.c;
//! `collect_one_slot`, kernel/kprobes.c; 6.1 to 7.3). That wait is a grace period of RCU. A busy machine,
//! or one whose processors come and go, takes seconds for one; the kernel counts them. So what had an
//! owner at the look before is told of only when it is still there some seconds later and after grace
//! periods that began when it had lost its owner. What never had one is told of at once, and nobody is
//! kept waiting.
//!
//! What a module begins with goes the same way as soon as it has begun (`do_free_init`), and can have come
//! and be on its way between two looks: it is where a module says that it began that was not there at the
//! look before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long memory may stay executable that has lost its owner.
pub(super) const FREEING: Duration = Duration::from_secs(3);
/// How long, whatever grace periods take: the kernel itself calls one that takes a third of this stalled
/// (CONFIG_RCU_CPU_STALL_TIMEOUT, 21 seconds).
const LONGEST: Duration = Duration::from_secs(60);

/// `rcu_state.gp_seq` (kernel/rcu/tree.h): how many grace periods have ended, above two bits that say
/// whether one goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GracePeriods(pub(super) u64);

impl GracePeriods {
    /// Whether two whole ones have gone by since it was `then`: the one that was waited for, and one for
    /// the freeing. As `rcu_seq_snap` and `rcu_seq_done`, kernel/rcu/rcu.h.
    fn have_passed_since(self, then: Self) -> bool {
        let over = (then.0.wrapping_add(7) & !3).wrapping_add(4);
        self.0.wrapping_sub(over) < 1 << 63
    }
}

/// When memory lost its owner.
#[derive(Clone, Copy, Debug)]
struct Lost {
    since: Instant,
    grace: Option<GracePeriods>,
}

impl Lost {
    /// Whether it may still be about to be freed.
    fn may_last(self, now: Instant, grace: Option<GracePeriods>) -> bool {
        let waited = now.saturating_duration_since(self.since);
        let waits = match (self.grace, grace) {
            (Some(then), Some(now)) => !now.have_passed_since(then),
            _ => false,
        };
        waited < FREEING || waits && waited < LONGEST
    }
}

/// What one look saw of owners.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Ranges that have one.
    pub(super) owned: Vec<Range<u64>>,
    /// Modules and where they began.
    pub(super) begun: BTreeSet<(u64, u64)>,
}

/// What had owners.
#[derive(Debug, Default)]
pub(super) struct Freeing {
    /// Ranges with an owner at the last look; none before the first.
    owned: Option<Vec<Range<u64>>>,
    /// Modules and where they began, of the last look.
    begun: BTreeSet<(u64, u64)>,
    /// Since when what lost its owner is nobody's, by the address where it begins.
    lost: BTreeMap<u64, Lost>,
}

impl Freeing {
    /// Whether nothing is known of an earlier look.
    pub(super) fn is_first(&self) -> bool {
        self.owned.is_none()
    }

    /// Which of the addresses of executable memory without an owner, each with the stretch that it is in, may
    /// still be about to be freed, and from now on `seen` is what has one. Where grace periods are not known,
    /// by time alone.
    pub(super) fn excused(
        &mut self,
        now: Instant,
        grace: Option<GracePeriods>,
        unowned: impl Iterator<Item = (u64, Range<u64>)>,
        seen: Seen,
    ) -> Vec<u64> {
        let is_first = self.is_first();
        let before = self.owned.replace(seen.owned).unwrap_or_default();
        let new = seen.begun.difference(&self.begun).map(|(_, start)| *start);
        let new: Vec<u64> = if is_first { Vec::new() } else { new.collect() };
        self.begun = seen.begun;
        let known = std::mem::take(&mut self.lost);
        let mut excused = Vec::new();
        for (address, stretch) in unowned {
            let had_owner = || {
                before.iter().any(|range| range.contains(&address))
                    || new.iter().any(|start| stretch.contains(start))
            };
            let lost = match known.get(&address) {
                Some(lost) => *lost,
                None if had_owner() => Lost { since: now, grace },
                None => continue,
            };
            // Also when its time is over: it is not to begin anew.
            self.lost.insert(address, lost);
            if lost.may_last(now, grace) {
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

    fn page(address: u64) -> (u64, Range<u64>) {
        (address, address..address + 0x1000)
    }

    fn excused(freeing: &mut Freeing, now: Instant, unowned: &[u64]) -> Vec<u64> {
        let unowned = unowned.iter().map(|address| page(*address));
        freeing.excused(now, None, unowned, Seen::default())
    }

    fn see(freeing: &mut Freeing, start: Instant, seen: Seen) {
        freeing.excused(start, None, [].into_iter(), seen);
    }

    fn module() -> Seen {
        Seen { owned: vec![MODULE], ..Seen::default() }
    }

    #[test]
    fn where_a_new_module_began_is_excused_and_where_one_of_before_did_is_not() {
        let start = Instant::now();
        let (old, new) = ((0x10, 0xffff_ffff_c100_0010), (0x20, 0xffff_ffff_c200_0010));
        let begun = |all: &[(u64, u64)]| Seen { begun: all.iter().copied().collect(), ..module() };
        let mut freeing = Freeing::default();
        see(&mut freeing, start, begun(&[old]));
        let pages = [page(old.1 - 0x10), page(new.1 - 0x10), page(new.1 + 0xff0)];
        let look = |freeing: &mut Freeing, now| {
            freeing.excused(now, None, pages.iter().cloned(), begun(&[old, new]))
        };
        assert_eq!(look(&mut freeing, start), [pages[1].0]);
        // It has its time, which does not begin anew.
        assert_eq!(look(&mut freeing, start + FREEING / 2), [pages[1].0]);
        assert_eq!(look(&mut freeing, start + FREEING).len(), 0);
        // At the first look nothing is new.
        assert_eq!(look(&mut Freeing::default(), start).len(), 0);
    }

    #[test]
    fn what_lost_its_owner_has_time_and_what_never_had_one_has_none() {
        let start = Instant::now();
        let mut freeing = Freeing::default();
        assert!(freeing.is_first());
        see(&mut freeing, start, module());
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
        see(&mut freeing, start, module());
        for (seconds, count) in [(0, 1), (2, 1), (3, 0), (4, 0), (100, 0)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(excused(&mut freeing, now, &[MODULE.start]).len(), count, "{seconds} s");
        }
    }

    #[test]
    fn what_was_freed_and_is_there_again_without_an_owner_is_told_at_once() {
        let start = Instant::now();
        let mut freeing = Freeing::default();
        see(&mut freeing, start, module());
        assert_eq!(excused(&mut freeing, start, &[MODULE.start]).len(), 1);
        assert_eq!(excused(&mut freeing, start, &[]).len(), 0);
        assert_eq!(excused(&mut freeing, start, &[MODULE.start]).len(), 0);
    }

    #[test]
    fn who_waits_for_a_grace_period_has_time_until_it_has_passed() {
        let start = Instant::now();
        let at = |seconds: u64, sequence: u64, freeing: &mut Freeing| {
            let now = start + Duration::from_secs(seconds);
            let grace = Some(GracePeriods(sequence));
            freeing.excused(now, grace, [page(MODULE.start)].into_iter(), Seen::default()).len()
        };
        // One goes on, which may have begun before: two more must end.
        let sequence = 4 * 1000 + 1;
        let fresh = || {
            let mut freeing = Freeing::default();
            see(&mut freeing, start, module());
            freeing
        };
        let mut freeing = fresh();
        assert_eq!(at(0, sequence, &mut freeing), 1);
        assert_eq!(at(4, sequence, &mut freeing), 1);
        assert_eq!(at(8, sequence + 3, &mut freeing), 1, "that one has ended");
        assert_eq!(at(9, sequence + 3 + 4, &mut freeing), 1, "one more has");
        assert_eq!(at(10, sequence + 3 + 8, &mut freeing), 0);

        let mut freeing = fresh();
        assert_eq!(at(0, sequence, &mut freeing), 1);
        assert_eq!(at(2, sequence + 400, &mut freeing), 1, "it has three seconds all the same");
        assert_eq!(at(3, sequence + 400, &mut freeing), 0);

        let mut freeing = fresh();
        assert_eq!(at(0, u64::MAX - 2, &mut freeing), 1);
        assert_eq!(at(5, 1, &mut freeing), 1, "numbers go on at zero");
        assert_eq!(at(59, 1, &mut freeing), 1);
        assert_eq!(at(60, 1, &mut freeing), 0, "no grace period takes so long");
    }
}
