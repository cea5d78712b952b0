// SPDX-License-Identifier: Apache-2.0
//! When a client that misses its deadlines is not asked any more, and when again.
//!
//! After so many misses within a minute a client loses `ask` for a while; what it would be asked is
//! decided as its grant says for a missed deadline, without waiting for it. So demotion changes how
//! long things take and never how they end.
//!
//! It gets `ask` back when the time is over, or with a new session: a product that hung is
//! restarted, and should not stay blind for a minute. A product that hangs again and again would
//! escape by that, so a new session helps only the first time, and then comes a probation as long
//! as the demotion was, in which one more miss is enough, for twice as long. A probation without a
//! miss clears it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::grant::{DemotionLimits, limits::DEMOTION_MISSES};
use crate::time::Time;

/// Misses count for so long.
pub const MISS_WINDOW: Duration = Duration::from_secs(60);
/// Nobody is demoted for longer at once.
pub const LONGEST_DEMOTION: Duration = Duration::from_secs(3600);

/// Whether a client is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    #[default]
    Asked,
    /// It is, and one miss before then ends that.
    Probation {
        /// When it is cleared.
        until: Time,
    },
    /// It is not.
    Demoted {
        /// When it is asked again.
        until: Time,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Demotion {
    /// When it missed, from the earliest; no more than a grant can allow.
    misses: VecDeque<Time>,
    standing: Standing,
    /// How often in a row, without a probation that went well between.
    times: u32,
}

/// What a miss leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    /// How many there were within the last minute.
    pub(crate) misses: u32,
    /// Whether it is not asked (any more).
    pub(crate) demoted: bool,
}

impl Demotion {
    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    pub(crate) fn is_demoted(&self) -> bool {
        matches!(self.standing, Standing::Demoted { .. })
    }

    /// When `pass` is to be called.
    pub(crate) fn due(&self) -> Time {
        match self.standing {
            Standing::Asked => Time::NEVER,
            Standing::Probation { until } | Standing::Demoted { until } => until,
        }
    }

    /// Lets time pass; whether it is asked again.
    pub(crate) fn pass(&mut self, now: Time, limits: &DemotionLimits) -> bool {
        if now < self.due() {
            return false;
        }
        match self.standing {
            Standing::Asked => false,
            Standing::Probation { .. } => {
                self.standing = Standing::Asked;
                self.times = 0;
                false
            }
            Standing::Demoted { .. } => {
                self.probation(now, limits);
                true
            }
        }
    }

    /// A new session; whether it is asked again because of that.
    pub(crate) fn new_session(&mut self, now: Time, limits: &DemotionLimits) -> bool {
        let helps = self.is_demoted() && self.times == 1;
        if helps {
            self.probation(now, limits);
        }
        helps
    }

    /// A deadline was missed.
    pub(crate) fn miss(&mut self, now: Time, limits: &DemotionLimits) -> Missed {
        self.pass(now, limits);
        while self.misses.front().is_some_and(|earliest| now.since(*earliest) >= MISS_WINDOW) {
            self.misses.pop_front();
        }
        if self.misses.len() >= DEMOTION_MISSES.most as usize {
            self.misses.pop_front();
        }
        self.misses.push_back(now);
        let misses = u32::try_from(self.misses.len()).unwrap_or(u32::MAX);
        let enough = match self.standing {
            Standing::Asked => misses >= limits.misses,
            Standing::Probation { .. } => true,
            // A question from before.
            Standing::Demoted { .. } => false,
        };
        if enough {
            self.times = self.times.saturating_add(1);
            self.standing = Standing::Demoted { until: now.after(self.period(limits)) };
        }
        Missed { misses, demoted: self.is_demoted() }
    }

    fn probation(&mut self, now: Time, limits: &DemotionLimits) {
        self.misses.clear();
        self.standing = Standing::Probation { until: now.after(self.period(limits)) };
    }

    /// Doubled each time.
    fn period(&self, limits: &DemotionLimits) -> Duration {
        let doublings = self.times.saturating_sub(1).min(16);
        limits.period.saturating_mul(1 << doublings).min(LONGEST_DEMOTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DemotionLimits = DemotionLimits { misses: 3, period: Duration::from_secs(60) };

    fn at(seconds: u64) -> Time {
        Time::default().after(Duration::from_secs(seconds))
    }

    fn demoted_at(seconds: u64) -> Demotion {
        let mut demotion = Demotion::default();
        (0..3).for_each(|_| {
            demotion.miss(at(seconds), &LIMITS);
        });
        assert!(demotion.is_demoted());
        demotion
    }

    #[test]
    fn so_many_misses_within_a_minute_are_enough_and_fewer_are_not() {
        let mut demotion = Demotion::default();
        assert_eq!(demotion.miss(at(0), &LIMITS), Missed { misses: 1, demoted: false });
        assert_eq!(demotion.miss(at(59), &LIMITS), Missed { misses: 2, demoted: false });
        // The first one counts no more.
        assert_eq!(demotion.miss(at(60), &LIMITS), Missed { misses: 2, demoted: false });
        assert_eq!(demotion.miss(at(61), &LIMITS), Missed { misses: 3, demoted: true });
        assert_eq!(demotion.due(), at(121));
    }

    #[test]
    fn it_is_asked_again_when_the_time_is_over() {
        let mut demotion = demoted_at(0);
        assert!(!demotion.pass(at(59), &LIMITS));
        assert!(demotion.pass(at(60), &LIMITS));
        assert_eq!(demotion.standing(), Standing::Probation { until: at(120) });
        demotion.pass(at(120), &LIMITS);
        assert_eq!(demotion.standing(), Standing::Asked);
        assert!(!demotion.miss(at(121), &LIMITS).demoted);
    }

    #[test]
    fn one_miss_on_probation_is_enough_for_twice_as_long() {
        let mut demotion = demoted_at(0);
        demotion.pass(at(60), &LIMITS);
        assert!(demotion.miss(at(61), &LIMITS).demoted);
        assert_eq!(demotion.due(), at(61 + 120));
        demotion.pass(at(181), &LIMITS);
        assert_eq!(demotion.standing(), Standing::Probation { until: at(181 + 120) });
    }

    #[test]
    fn a_new_session_helps_once() {
        let mut demotion = demoted_at(0);
        assert!(demotion.new_session(at(5), &LIMITS));
        assert!(!demotion.is_demoted());
        demotion.miss(at(6), &LIMITS);
        assert!(!demotion.new_session(at(7), &LIMITS));
        assert!(demotion.is_demoted());
    }

    #[test]
    fn nobody_is_demoted_for_more_than_an_hour() {
        let mut demotion = demoted_at(0);
        let mut now = at(0);
        for _ in 0..40 {
            let until = demotion.due();
            assert!(until.since(now) <= LONGEST_DEMOTION);
            demotion.pass(until, &LIMITS);
            now = until.after(Duration::from_secs(1));
            assert!(demotion.miss(now, &LIMITS).demoted);
        }
        assert_eq!(demotion.due().since(now), LONGEST_DEMOTION);
    }

    #[test]
    fn a_miss_of_a_question_from_before_does_not_prolong_it() {
        let mut demotion = demoted_at(0);
        assert_eq!(demotion.miss(at(1), &LIMITS), Missed { misses: 4, demoted: true });
        assert_eq!(demotion.due(), at(60));
    }
}
