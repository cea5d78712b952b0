// SPDX-License-Identifier: Apache-2.0
//! What the daemon holds of each session besides what the broker decides: ring, mutes, who it is.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use broker::session::SessionId;
use broker::slot::{ProcessKey, Slot};

use crate::control::{Budget, ConnectionId, ControlError};
use crate::kernel::MuteTarget;

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Its place in the kernel's tables.
    pub slot: Slot,
    /// For calls to the broker.
    pub id: SessionId,
    /// Name of its client.
    pub client: String,
    /// Where it speaks; `None` while it waits to be resumed.
    pub connection: Option<ConnectionId>,
    /// Who opened or resumed it.
    pub process: ProcessKey,
    /// As whom.
    pub uid: u32,
    /// Path of what that process ran, if it has one here.
    pub executable: Option<String>,
    /// SHA-256 of that, if the grant has digests.
    pub digest: Option<String>,
    /// Its ring; given again when the session is resumed.
    pub ring: OwnedFd,
    /// Of the ring.
    pub ring_bytes: u32,
    /// What it does not want to see, or with `inverted` all that it does.
    pub mutes: BTreeSet<MuteTarget>,
    /// How many there can be.
    pub mutes_max: u32,
    /// See `mutes`.
    pub inverted: bool,
    /// How much of the memory of processes it had lately.
    pub memory: Budget,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_slot: BTreeMap<Slot, Session>,
    by_connection: BTreeMap<ConnectionId, Slot>,
}

impl Sessions {
    /// The session that speaks on this connection.
    pub fn of(&mut self, connection: ConnectionId) -> Result<&mut Session, ControlError> {
        let slot = self.by_connection.get(&connection);
        let session = slot.and_then(|slot| self.by_slot.get_mut(slot));
        session.ok_or(ControlError::NoSession {})
    }

    /// Whether one speaks on this connection.
    #[must_use]
    pub fn has(&self, connection: ConnectionId) -> bool {
        self.by_connection.contains_key(&connection)
    }

    /// The session in this slot.
    pub fn in_slot(&mut self, slot: Slot) -> Option<&mut Session> {
        self.by_slot.get_mut(&slot)
    }

    /// Puts one in.
    pub fn insert(&mut self, session: Session) {
        if let Some(connection) = session.connection {
            self.by_connection.insert(connection, session.slot);
        }
        self.by_slot.insert(session.slot, session);
    }

    /// The session in the slot speaks on this connection from now on, or on none.
    pub fn connect(&mut self, slot: Slot, connection: Option<ConnectionId>) {
        let Some(session) = self.by_slot.get_mut(&slot) else { return };
        if let Some(before) = std::mem::replace(&mut session.connection, connection) {
            self.by_connection.remove(&before);
        }
        if let Some(connection) = connection {
            self.by_connection.insert(connection, slot);
        }
    }

    /// Takes it out.
    pub fn remove(&mut self, slot: Slot) -> Option<Session> {
        self.connect(slot, None);
        self.by_slot.remove(&slot)
    }

    /// All, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_slot.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_slot.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }
}
