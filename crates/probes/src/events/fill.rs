// SPDX-License-Identifier: Apache-2.0
//! How full the ring of a client is.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Ring;
use crate::error::ProbeError;
use crate::mapping::Mapping;

impl Ring {
    /// Bytes that its client has not taken yet, each record with the 8 that the kernel puts before it.
    ///
    /// Where the client stands it writes itself. What makes no sense counts as a full ring, as it does
    /// for the kernel.
    ///
    /// # Errors
    /// When the ring cannot be mapped.
    pub fn waiting(&self) -> Result<u32, ProbeError> {
        // A ring begins with the page of the consumer and that of the producer, each with a position
        // at its start that only grows (kernel/bpf/ringbuf.c, 5.8).
        let page = rustix::param::page_size();
        let failed = |error: std::io::Error| ProbeError::Failed {
            what: "looking how full a ring is",
            reason: error.to_string(),
        };
        let positions = Mapping::new(&self.map, 2 * page, false).map_err(failed)?;
        let position = |offset: usize| {
            // SAFETY: the offset is that of the start of one of the two pages that are mapped, which is
            // aligned for a word; the mapping lives until the end of this function, and others write
            // the word as one.
            unsafe { positions.start().add(offset).cast::<AtomicU64>().as_ref() }
                .load(Ordering::Acquire)
        };
        // The consumer first: it may go on meanwhile, and never beyond the producer.
        let (consumer, producer) = (position(0), position(page));
        let waiting = producer.checked_sub(consumer).unwrap_or(u64::MAX);
        Ok(u32::try_from(waiting).unwrap_or(u32::MAX).min(self.bytes))
    }
}
