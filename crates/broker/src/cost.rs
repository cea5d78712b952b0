// SPDX-License-Identifier: Apache-2.0
//! How long a client lets tasks wait: for `ringfence slow`.

use std::time::Duration;

/// Four for each doubling, from 1 µs to more than a minute; the last has all that is longer.
const BUCKETS: usize = 27 * 4;

/// What the answers of one client to one type of event took.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Answers, and deadlines that passed without one.
    pub count: u64,
    /// All of them together.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
    /// Deadlines that passed.
    pub misses: u64,
    buckets: [u32; BUCKETS],
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            count: 0,
            total: Duration::ZERO,
            longest: Duration::ZERO,
            misses: 0,
            buckets: [0; BUCKETS],
        }
    }
}

impl Cost {
    pub(crate) fn add(&mut self, took: Duration, missed: bool) {
        self.count += 1;
        self.misses += u64::from(missed);
        self.total = self.total.saturating_add(took);
        self.longest = self.longest.max(took);
        let bucket = &mut self.buckets[bucket(took)];
        *bucket = bucket.saturating_add(1);
    }

    /// So many of a thousand took no longer: 500 for the median, 990 for p99. At most a quarter
    /// too long, as it is told by buckets; `None` if there was nothing yet.
    #[must_use]
    pub fn quantile(&self, of_a_thousand: u32) -> Option<Duration> {
        let all: u64 = self.buckets.iter().map(|count| u64::from(*count)).sum();
        // How many there must be, rounded up.
        let wanted = (all * u64::from(of_a_thousand.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        Some(end(bucket).min(self.longest))
    }
}

/// What is below a microsecond is in the first; from there on the two bits behind the first one say
/// which quarter of a doubling it is.
fn bucket(took: Duration) -> usize {
    // In quarters of microseconds, so that the first doubling has four whole numbers too.
    let scaled = u64::try_from(took.as_nanos() / 250).unwrap_or(u64::MAX).max(4);
    let doubling = scaled.ilog2() as usize;
    let quarter = (scaled >> (doubling - 2) & 3) as usize;
    ((doubling - 2) * 4 + quarter).min(BUCKETS - 1)
}

/// Nothing in the bucket is longer.
fn end(bucket: usize) -> Duration {
    if bucket == BUCKETS - 1 {
        return Duration::MAX;
    }
    let (doubling, quarter) = (bucket / 4, bucket as u64 % 4);
    // In quarters of microseconds.
    let next = (5 + quarter) << doubling;
    Duration::from_nanos(next * 250)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_the_ends_of_buckets() {
        let mut cost = Cost::default();
        assert_eq!(cost.quantile(500), None);
        (1..=99).for_each(|_| cost.add(Duration::from_micros(100), false));
        cost.add(Duration::from_millis(500), true);
        assert_eq!((cost.count, cost.misses), (100, 1));
        assert_eq!(cost.longest, Duration::from_millis(500));
        assert_eq!(cost.total, Duration::from_micros(9900 + 500_000));
        assert_eq!(cost.quantile(500), Some(Duration::from_micros(112)));
        assert_eq!(cost.quantile(990), Some(Duration::from_micros(112)));
        assert_eq!(cost.quantile(991), Some(Duration::from_millis(500)));
    }

    #[test]
    fn what_takes_for_ever_has_a_bucket_too() {
        let mut cost = Cost::default();
        cost.add(Duration::MAX, false);
        cost.add(Duration::MAX, true);
        assert_eq!(cost.quantile(1000), Some(Duration::MAX));
    }

    proptest! {
        #[test]
        fn a_bucket_says_at_most_a_quarter_too_much(nanos in 1000_u64..60_000_000_000) {
            let took = Duration::from_nanos(nanos);
            let said = end(bucket(took));
            prop_assert!(said >= took, "{said:?}");
            prop_assert!(said <= took * 5 / 4, "{said:?}");
        }
    }
}
