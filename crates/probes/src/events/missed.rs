// SPDX-License-Identifier: Apache-2.0
//! What no program was run for, although it was attached: bpf/lib/again.h.

use super::Hooks;
use super::shared::MissedCall;
use super::types::EventType;
use crate::error::ProbeError;
use crate::test_run::test_run;

/// What no program was run for.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// How many there were when it was looked the last time.
    seen: u64,
    /// How many clients were told of.
    told: u64,
}

impl Missed {
    /// With the count as it is now: how many more are lost for sure, because they were missed before
    /// it was looked the last time and are still not told of.
    fn take(&mut self, count: u64) -> u64 {
        let lost = self.seen.min(count).saturating_sub(self.told);
        self.told += lost;
        self.seen = count;
        lost
    }
}

impl Hooks {
    /// How many events the kernel ran no program for since they were loaded, by the types that the
    /// programs tell of; types that missed nothing are left out. A tracing program is not run while
    /// the same one runs on the same processor already, which can be where a tracepoint can be
    /// preempted: since 7.0; bpf/lib/again.h says what is done against it. An event that is just
    /// being told of may be counted until it is.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn missed(&self) -> Result<Vec<(&'static [EventType], u64)>, ProbeError> {
        self.objects.missed()
    }

    /// Whether [`Hooks::missed`] can be anything here.
    #[must_use]
    pub fn can_miss(&self) -> bool {
        self.can_miss
    }

    /// Counts what was missed before this was called the last time as lost for the clients that
    /// would have been told, and has them told of it. What was missed since then is not counted yet,
    /// because it may still be told of.
    ///
    /// # Errors
    /// When the kernel fails.
    pub fn tell_missed(&mut self) -> Result<(), ProbeError> {
        for (types, count) in self.missed()? {
            let lost = self.missed.entry(types).or_default().take(count);
            let of = |kind: &EventType| self.subscribers.get(usize::from(kind.number()));
            let clients = types.iter().filter_map(of).fold(0, |set, of| set | of.notify | of.ask);
            if let Some(first) = types.first().filter(|_| lost != 0 && clients != 0) {
                self.lose(clients, *first, lost)?;
            }
        }
        Ok(())
    }

    /// Counts events as lost for clients because nobody told of them.
    fn lose(&self, clients: u64, kind: EventType, count: u64) -> Result<(), ProbeError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut call = MissedCall { clients, r#type: kind.number().into(), count };
        let done = self.objects.call("lose_missed", |program| test_run(program, &mut call))?;
        let failed = |error: std::io::Error| ProbeError::Failed {
            what: "counting what was missed",
            reason: error.to_string(),
        };
        done.map(|_| ()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_may_still_be_told_of_is_not_lost_yet() {
        let mut missed = Missed::default();
        assert_eq!(missed.take(3), 0);
        // One of the three was just being told of.
        assert_eq!(missed.take(2), 2);
        assert_eq!(missed.take(2), 0);
        assert_eq!(missed.take(7), 0);
        assert_eq!(missed.take(9), 5);
        assert_eq!(missed.take(9), 2);
    }

    #[test]
    #[ignore = "root: loads BPF programs"]
    fn clients_are_told_of_what_was_missed() {
        let mut hooks = Hooks::load_for(EventType::PROCESS_EXEC.bit()).unwrap();
        let ring = hooks.create_ring(1 << 20).unwrap();
        hooks.admit(7, &ring).unwrap();
        hooks.lose(1 << 7 | 1 << 9, EventType::PROCESS_EXEC, 5).unwrap();
        let started = Instant::now();
        while hooks.statistics(7).unwrap().told == 0 && started.elapsed() < Duration::from_secs(20)
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let statistics = hooks.statistics(7).unwrap();
        assert_eq!((statistics.lost, statistics.told, statistics.written), (5, 5, 1));
        assert_eq!(statistics.missed[usize::from(EventType::PROCESS_EXEC.number())], 5);
        assert_eq!(statistics.missed.iter().sum::<u32>(), 5);
    }
}
