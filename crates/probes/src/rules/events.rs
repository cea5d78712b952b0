// SPDX-License-Identifier: Apache-2.0
//! Which clients have rules for which type of event: the map rules_events, written in place.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::MapHandle;
use rules::abi::Event;

use crate::error::ProbeError;
use crate::mapping::Mapping;

/// `RINGFENCE_TYPES`
const TYPES: usize = 64;

#[derive(Debug)]
pub(super) struct Events {
    mapping: Mapping,
}

impl Events {
    /// The map, with the seed of all hashes written to each type.
    pub(super) fn new(map: &MapHandle, seed: u64) -> Result<Self, ProbeError> {
        let failed = |error: std::io::Error| ProbeError::Failed {
            what: "mapping a map of the rules",
            reason: error.to_string(),
        };
        let mapping =
            Mapping::new(map.as_fd(), TYPES * size_of::<Event>(), true).map_err(failed)?;
        let events = Self { mapping };
        for number in 0..TYPES {
            events.word(number * 2 + 1).store(seed, Ordering::SeqCst);
        }
        Ok(events)
    }

    /// A word of the map: clients and seed of each type in turn.
    fn word(&self, index: usize) -> &AtomicU64 {
        let index = index % (TYPES * 2);
        // SAFETY: the map has two words for each type, page-aligned, and the mapping lives as long as
        // `self`. Programs read them whole.
        unsafe { &*self.mapping.start().cast::<AtomicU64>().as_ptr().add(index) }
    }

    /// Adds a client to the types of a set.
    pub(super) fn add(&self, slot: u32, events: u64) {
        for number in (0..TYPES).filter(|number| events >> number & 1 == 1) {
            self.word(number * 2).fetch_or(1 << slot, Ordering::SeqCst);
        }
    }

    /// Takes a client from all other types.
    pub(super) fn keep(&self, slot: u32, events: u64) {
        for number in (0..TYPES).filter(|number| events >> number & 1 == 0) {
            self.word(number * 2).fetch_and(!(1 << slot), Ordering::SeqCst);
        }
    }
}
