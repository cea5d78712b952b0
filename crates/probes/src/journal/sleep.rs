// SPDX-License-Identifier: Apache-2.0
//! Whether the machine slept since one last asked.
//!
//! All processors but one are taken offline for that and brought back (`freeze_secondary_cpus` and
//! `thaw_secondary_cpus`, kernel/cpu.c), which the kernel tells nobody. CLOCK_BOOTTIME goes on meanwhile and
//! CLOCK_MONOTONIC does not.

use rustix::time::{ClockId, clock_gettime};

/// How far the two clocks were apart at most, in nanoseconds.
#[derive(Debug)]
pub(super) struct Sleep {
    apart: i128,
}

impl Sleep {
    /// From now on.
    pub(super) fn now() -> Self {
        let [before, with_sleep, _] = clocks();
        Self { apart: with_sleep - before }
    }

    /// Whether it slept since the last time. A nap shorter than it takes to read the clocks is not seen.
    pub(super) fn slept(&mut self) -> bool {
        self.slept_by(clocks())
    }

    fn slept_by(&mut self, [before, with_sleep, after]: [i128; 3]) -> bool {
        let at_least = with_sleep - after;
        at_least > std::mem::replace(&mut self.apart, with_sleep - before)
    }
}

/// CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_MONOTONIC again.
fn clocks() -> [i128; 3] {
    [ClockId::Monotonic, ClockId::Boottime, ClockId::Monotonic].map(|clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_awake_did_not_sleep() {
        let mut sleep = Sleep::now();
        assert!((0..1000).all(|_| !sleep.slept()));
    }

    #[test]
    fn what_only_one_clock_counts_is_sleep_and_a_slow_reading_is_none() {
        let mut sleep = Sleep { apart: 5 };
        assert!(!sleep.slept_by([100, 105, 200]), "it was held up after the second reading");
        assert!(!sleep.slept_by([200, 305, 300]), "or before it");
        assert!(!sleep.slept_by([400, 405, 400]));
        assert!(sleep.slept_by([500, 1505, 500]));
        assert!(!sleep.slept_by([2000, 3005, 2000]));
    }
}
