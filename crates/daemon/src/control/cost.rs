// SPDX-License-Identifier: Apache-2.0
//! What a client costs the tasks that wait for it, as api/ringfence.varlink has it.

use broker::Counts;
use broker::cost::Cost;
use broker::event::EventType;
use serde::Serialize;

use super::types::nanoseconds;

#[derive(Debug, Serialize)]
pub(super) struct Questions {
    asked: u64,
    cached: u64,
    missed: u64,
    queue_full: u64,
    died: u64,
}

impl From<Counts> for Questions {
    fn from(counts: Counts) -> Self {
        let Counts { asked, cached, missed, queue_full, died } = counts;
        Self { asked, cached, missed, queue_full, died }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct VerdictTimes {
    event: &'static str,
    count: u64,
    missed: u64,
    median: u64,
    p99: u64,
    longest: u64,
    total: u64,
}

pub(super) fn times(event: EventType, cost: &Cost) -> VerdictTimes {
    let quantile = |of_a_thousand| nanoseconds(cost.quantile(of_a_thousand).unwrap_or_default());
    VerdictTimes {
        event: event.name(),
        count: cost.count,
        missed: cost.misses,
        median: quantile(500),
        p99: quantile(990),
        longest: nanoseconds(cost.longest),
        total: nanoseconds(cost.total),
    }
}
