// SPDX-License-Identifier: Apache-2.0
//! The clock of the whole API.

use broker::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Time(seconds.saturating_mul(1_000_000_000) + u64::try_from(now.tv_nsec).unwrap_or_default())
}
