// SPDX-License-Identifier: Apache-2.0
//! What became of a client's records, as the programs have counted it.

use libbpf_rs::{MapCore, MapFlags};

use super::Hooks;
use super::shared::{ClientCounters, Plain, TYPES};
use crate::error::ProbeError;
use crate::object;

const WHAT: &str = "reading the counters of a client";

/// What became of a client's records since it was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// In its ring, records of loss among them.
    pub written: u64,
    /// Not in its ring: what `ringfence_header.lost` says.
    pub lost: u64,
    /// Of those, how many records of loss told of.
    pub told: u64,
    /// Lost by the number of the type because the ring was full.
    pub ring_full: [u32; TYPES],
    /// Lost by the number of the type because there was no buffer to make them in.
    pub no_buffer: [u32; TYPES],
    /// Lost by the number of the type because the kernel ran no program: see [`Hooks::missed`].
    pub missed: [u32; TYPES],
}

impl Hooks {
    /// What became of a client's records.
    ///
    /// # Errors
    /// When the slot is not taken.
    pub fn statistics(&self, slot: u32) -> Result<Statistics, ProbeError> {
        self.check(slot)?;
        let map = self.objects.map("counters")?;
        let found = object::with_libbpf(WHAT, || map.lookup(&slot.to_ne_bytes(), MapFlags::ANY))?;
        let counters = found.as_deref().and_then(ClientCounters::from_bytes);
        let counters = counters.ok_or_else(|| ProbeError::Malformed {
            what: "the counters of a client".into(),
            reason: "they have another size".into(),
        })?;
        let ClientCounters { written, lost, told, lost_by, .. } = counters;
        let [ring_full, no_buffer, missed, _] = lost_by;
        Ok(Statistics { written, lost, told, ring_full, no_buffer, missed })
    }
}
