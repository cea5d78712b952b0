// SPDX-License-Identifier: Apache-2.0
//! Points in time, as all of the API counts them.

use std::time::Duration;

/// CLOCK_BOOTTIME in nanoseconds, as in `header.time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Later than everything that happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// So much later; [`Time::NEVER`] where that cannot be written.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(span))
    }

    /// How long ago `earlier` was; zero if it was not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
