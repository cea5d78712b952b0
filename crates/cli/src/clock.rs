// SPDX-License-Identifier: Apache-2.0
//! Times of day for output, in UTC: logs of several machines are read side by side.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A moment in UTC, shown as `2026-11-24T12:01:33.125Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Seconds since 1970.
    pub(crate) fn from_unix(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Only the time of day: `12:01:33.125`.
    pub(crate) fn time_of_day(self) -> String {
        let text = self.to_string();
        text.get(11..23).unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        write!(f, ".{:03}Z", self.0.subsec_millis())
    }
}

impl serde::Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Year, month and day of a day counted from 1 January 1970, in the Gregorian calendar.
///
/// Counts in years that begin on 1 March, so that the leap day is the last of its year; an era is
/// the 400 years, 146,097 days, after which the calendar repeats.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Turns times of the kernel into times of day: of CLOCK_MONOTONIC, which the journal uses, or of
/// CLOCK_BOOTTIME, which records of the security API have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What to add to a time of the kernel.
    offset: Duration,
}

impl Clock {
    /// By the difference of both clocks now.
    pub(crate) fn new() -> Self {
        Self { offset: Moment::now().0.saturating_sub(Duration::from_nanos(monotonic_ns())) }
    }

    /// The same for times of CLOCK_BOOTTIME.
    pub(crate) fn of_boot() -> Self {
        let booted = Duration::from_nanos(nanoseconds(ClockId::Boottime));
        Self { offset: Moment::now().0.saturating_sub(booted) }
    }

    /// For tests: the kernel started at this moment.
    #[cfg(test)]
    pub(crate) fn since(moment: Moment) -> Self {
        Self { offset: moment.0 }
    }

    /// The time of day of a time of the kernel in nanoseconds.
    pub(crate) fn moment(self, kernel_ns: u64) -> Moment {
        Moment(self.offset + Duration::from_nanos(kernel_ns))
    }
}

/// Since the machine was started, with the time that it slept: the clock of ringfenced.
pub(crate) fn boot_time_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Nanoseconds of processor time that this process has used, all threads together.
pub(crate) fn cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// Nanoseconds of processor time that this thread has used.
pub(crate) fn thread_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_seconds_give_the_known_dates() {
        // `date -u -d @N +%FT%T` gives the same.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_795_521_693, "2026-11-24T12:01:33.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Moment::from_unix(seconds).to_string(), text);
        }
    }

    #[test]
    fn a_monotonic_time_of_now_is_now() {
        let now = Clock::new().moment(monotonic_ns());
        let difference = now.0.abs_diff(Moment::now().0);
        assert!(difference < Duration::from_secs(1), "{difference:?}");
        assert_eq!(now.time_of_day().len(), "12:01:33.125".len());
    }
}
