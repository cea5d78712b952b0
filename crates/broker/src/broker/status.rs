// SPDX-License-Identifier: Apache-2.0
//! What `ringfence status` and `ringfence slow` show.

use super::Broker;
use crate::client::Counts;
use crate::cost::Cost;
use crate::demotion::Standing;
use crate::effect::Masks;
use crate::event::EventType;
use crate::grant::Grant;
use crate::session::Session;
use crate::slot::Slot;

/// How a client stands.
#[derive(Clone, Copy, Debug)]
pub struct ClientStatus<'a> {
    /// Its place.
    pub slot: Slot,
    /// What it may do, with what its grant declares.
    pub grant: &'a Grant,
    /// Live, or waiting to be resumed.
    pub session: Option<&'a Session>,
    /// Whether it is asked.
    pub standing: Standing,
    /// What the kernel knows of it.
    pub masks: &'a Masks,
    /// Questions that it has open.
    pub pending: u32,
    /// Verdicts of it that are cached.
    pub cached: usize,
    /// Mutes that it has.
    pub muted: usize,
    /// How often what happened.
    pub counts: Counts,
    /// What its answers took, by type of event.
    pub costs: &'a [(EventType, Cost)],
}

impl Broker {
    /// How each client stands, from the highest altitude.
    pub fn status(&self) -> impl Iterator<Item = ClientStatus<'_>> {
        self.order.iter().filter_map(|slot| {
            let client = self.client(slot)?;
            Some(ClientStatus {
                slot,
                grant: &client.grant,
                session: client.session.as_ref(),
                standing: client.demotion.standing(),
                masks: &client.masks,
                pending: client.pending,
                cached: client.cache.len(),
                muted: client.mutes.len(),
                counts: client.counts,
                costs: &client.costs,
            })
        })
    }

    /// How many questions have parts that are open; their tasks may have been told already.
    #[must_use]
    pub fn open_questions(&self) -> usize {
        self.table.len()
    }
}
