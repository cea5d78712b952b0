// SPDX-License-Identifier: Apache-2.0
//! Sites that the kernel is changing while a pass looks: who waits for whom.
//!
//! The kernel may take seconds to change thousands of sites one after the other, and until then they
//! and their key disagree. To wait for the end would keep waiting all else that a pass looks at. So such
//! sites are left to the next pass, which the report says; but not for ever. How long the kernel takes
//! says nothing (an emulated processor that others use as well needs a minute), but that it gets on does:
//! a check that had to leave the same number of sites for [`STILL`], or some in each look for [`LONGEST`],
//! waits for the kernel the next time. It judges when the kernel is done, or when nothing has moved for
//! [`STANDSTILL`] and whoever changes them does not wait for somebody else who changes text.

use std::time::{Duration, Instant};

use crate::compare::Place;

/// For how long as many sites as before are left to the next pass.
const STILL: Duration = Duration::from_secs(10);

/// For how long any are.
const LONGEST: Duration = Duration::from_secs(300);

/// For how long the kernel is waited for in a look, from when it last got on.
const STANDSTILL: Duration = Duration::from_secs(30);

/// How often a site is read, in vain, that the kernel is changing before it is left.
pub(crate) const IN_VAIN: u32 = 2;

/// Looks that wait whatever came before: a single `check` has no more of them.
const FIRST: u32 = 2;

/// What a check had to leave. Each check that leaves sites has one.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    looks: u32,
    leaving: Option<Leaving>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    since: Instant,
    sites: usize,
    /// Since when it has been so many.
    still: Instant,
}

impl Patience {
    /// A look begins: whether it waits for what the kernel is changing.
    pub(crate) fn waits(&mut self, now: Instant) -> bool {
        self.looks = self.looks.saturating_add(1);
        let long = |one: Leaving| now >= one.still + STILL || now >= one.since + LONGEST;
        self.looks <= FIRST || self.leaving.is_some_and(long)
    }

    /// It is over, and had to leave so many sites. Gives what the report says of them.
    pub(crate) fn left(&mut self, now: Instant, sites: usize) -> Option<String> {
        let before = self.leaving.take().filter(|_| sites > 0);
        let since = before.map_or(now, |before| before.since);
        let still =
            before.filter(|before| before.sites == sites).map_or(now, |before| before.still);
        self.leaving = (sites > 0).then_some(Leaving { since, sites, still });
        let seconds = now.saturating_duration_since(self.leaving?.since).as_secs();
        let since = if seconds > 0 { format!(", for {seconds} s now") } else { String::new() };
        Some(format!(
            "{sites} sites are just being changed by the kernel and are left to the next pass{since}"
        ))
    }
}

/// What the kernel is doing about sites of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing: they are as they are to be.
    None,
    /// It is changing some.
    Own,
    /// It is about to, and waits for somebody else who changes text.
    Behind,
}

/// How long a look that waits has waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    began: Instant,
    moved: Instant,
    open: usize,
}

impl Waiting {
    /// A look begins.
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, moved: now, open: 0 }
    }

    /// So many sites are open still. Gives whether the kernel is waited for no longer.
    pub(crate) fn is_over(&mut self, now: Instant, open: usize, change: Change) -> bool {
        if open != std::mem::replace(&mut self.open, open) || change == Change::Behind {
            self.moved = now;
        }
        now >= self.moved + STANDSTILL || now >= self.began + LONGEST
    }
}

/// Whether a list of places has one that starts there. They are in order.
pub(crate) fn holds(places: &[Place], address: u64) -> bool {
    places.binary_search_by_key(&address, |place| place.start).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_the_kernel_changes_is_left_for_some_time_and_then_waited_for() {
        let mut patience = Patience::default();
        let start = Instant::now();
        assert!(patience.waits(start), "a single check has no other look");
        assert_eq!(patience.left(start, 0), None);
        assert!(patience.waits(start), "nor one that looks again with its journal");
        let mut now = start;
        while now < start + STILL {
            assert!(!patience.waits(now));
            let told = patience.left(now, 3).unwrap();
            assert!(told.contains("3 sites"), "{told}");
            now += SECOND;
        }
        assert!(patience.waits(now));
        assert!(patience.left(now, 3).unwrap().contains("for 10 s now"));
        // As soon as a look leaves nothing, all begins anew.
        assert_eq!(patience.left(now, 0), None);
        assert!(!patience.waits(now + STILL));
        patience.left(now + STILL, 1);
        assert!(!patience.waits(now + STILL + SECOND));
    }

    #[test]
    fn a_kernel_that_gets_on_has_longer_but_not_for_ever() {
        let start = Instant::now();
        let mut patience = Patience { looks: FIRST, leaving: None };
        let mut waiting = Waiting::new(start);
        for second in 0..LONGEST.as_secs() {
            let now = start + Duration::from_secs(second);
            assert!(
                !patience.waits(now) && !waiting.is_over(now, 1000 - second as usize, Change::Own)
            );
            patience.left(now, 1000 - second as usize);
        }
        assert!(
            patience.waits(start + LONGEST) && waiting.is_over(start + LONGEST, 1, Change::Own)
        );
        let mut waiting = Waiting::new(start);
        for second in 0..STANDSTILL.as_secs() {
            assert!(!waiting.is_over(start + Duration::from_secs(second), 7, Change::Own));
        }
        assert!(waiting.is_over(start + STANDSTILL, 7, Change::Own));
    }

    #[test]
    fn who_waits_for_others_who_change_text_does_not_stand_still_but_not_for_ever() {
        let start = Instant::now();
        let mut waiting = Waiting::new(start);
        for second in 0..LONGEST.as_secs() {
            let now = start + Duration::from_secs(second);
            assert!(!waiting.is_over(now, 1, Change::Behind), "{second}");
        }
        assert!(waiting.is_over(start + LONGEST, 1, Change::Behind));
    }
}
