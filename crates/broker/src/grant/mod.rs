// SPDX-License-Identifier: Apache-2.0
//! Grants: what a client is, and what it may do.
//!
//! One TOML file for each client; docs/grants.md has every key with its unit and default. A file is
//! taken whole or not at all, and what is wrong in it is said with line, column and what to do.
//! [`Grants`] is the set of all of them, in which one bad file neither changes nor loses anything.

mod altitude;
mod check;
mod choice;
mod contract;
mod error;
mod file;
mod identity;
mod keys;
pub mod limits;
mod set;

use std::collections::BTreeMap;
use std::time::Duration;

pub use altitude::{ALTITUDE_MAX, Altitude, AltitudeClass, AltitudeError};
pub use choice::Choice;
pub use contract::{Absent, Contract, Fallback, Gone};
pub use error::{GrantError, Place};
pub use identity::{CLIENT_ID_MAX, ClientId, Identity, Mismatch, Peer, Sha256, User};
pub use limits::{DemotionLimits, Limits};
pub use set::Grants;

use crate::event::{Class, ClassSet, EventType};

/// No file of grants is longer, in bytes.
pub const GRANT_BYTES_MAX: usize = 64 << 10;

/// What one client may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Unique among grants.
    pub client: ClientId,
    /// Unique among grants.
    pub altitude: Altitude,
    /// Whether it may have events that can still change between minor versions.
    pub draft: bool,
    /// Who it is.
    pub identity: Identity,
    /// Directories and files that the events of files are limited to: absolute paths. With none it is told
    /// of all files, and cannot be asked about any.
    pub watched: Vec<String>,
    /// What it is given of the memory of processes, on request.
    pub memory: Vec<MemoryUse>,
    /// What it can see.
    pub scope: Scope,
    /// How much it gets.
    pub limits: Limits,
    /// When it loses `ask`.
    pub demotion: DemotionLimits,
    /// What it may have of which events; at least one.
    pub events: BTreeMap<EventType, EventGrant>,
    /// Where its id stands.
    pub place: Place,
    /// Where its altitude stands.
    pub altitude_place: Place,
}

/// What a client may have of one type of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventGrant {
    /// At least one.
    pub classes: ClassSet,
    /// How long a task waits for an answer of this client at most; zero unless it may be asked.
    pub deadline: Duration,
    /// What holds without an answer.
    pub failure: Contract,
}

/// What a client is given of the memory of a process that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUse {
    /// What is mapped where.
    Map,
    /// What is in it.
    Read,
}

impl MemoryUse {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Map, Self::Read];

    /// As a grant writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Read => "read",
        }
    }
}

/// Whose events a client gets, is asked about and has rules for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those of all processes.
    #[default]
    Host,
    /// Those of the descendants of the process that opened the session.
    Descendants,
    /// Those of the processes in this cgroup and below: a path from the root of the cgroup tree
    /// (v2), as in /proc/PID/cgroup.
    Cgroup(String),
}

impl Grant {
    /// Reads one file. `name` is only for what errors say.
    ///
    /// # Errors
    ///
    /// All that is wrong with what it says; if it is no TOML, or has unknown or missing keys, the
    /// first of these.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<GrantError>> {
        check::grant(name, text)
    }

    /// Whether it may have the event in this way.
    #[must_use]
    pub fn allows(&self, event: EventType, class: Class) -> bool {
        self.events.get(&event).is_some_and(|granted| granted.classes.contains(class))
    }
}
