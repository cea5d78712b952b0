// SPDX-License-Identifier: Apache-2.0
//! Sessions: one connection of one client, and what it has of which events.
//!
//! A client has at most one session. When its connection breaks, the session is kept for a while
//! (`Settings::resume_within`) with its ring, subscriptions and mutes, for a client that restarts or
//! reconnects and shows the token that it got. It is not asked in that time; what would be asked is
//! decided as the grant says for a client that is not connected.

pub mod coverage;
pub mod lifecycle;
pub mod subscription;
pub mod version;

use std::collections::BTreeMap;

use crate::event::EventType;
use crate::grant::{ClientId, Mismatch, Peer, Scope};
use crate::slot::{ProcessKey, Slot};
use crate::time::Time;
use subscription::Wanted;
use version::{NoCommonVersion, Version};

/// Shown to take up a session again; drawn at random by whoever opens sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

/// One session. Calls that name one that has ended are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The place of its client.
    pub slot: Slot,
    /// Counted since the start of `ringfenced`, of whichever client, so that whoever had the slot
    /// before has no session in it; a new one when a session is resumed.
    pub number: u64,
}

/// What a client says and is as it opens a session.
#[derive(Clone, Debug)]
pub struct Open<'a> {
    /// As it calls itself.
    pub client: &'a str,
    /// Those that it knows, in any order.
    pub versions: &'a [Version],
    /// The process at the other end.
    pub process: ProcessKey,
    /// What is known of that process.
    pub peer: Peer<'a>,
    /// For this session, fresh.
    pub token: Token,
    /// Of the session that it wants to go on with.
    pub resume: Option<Token>,
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// For all later calls.
    pub id: SessionId,
    /// What both speak.
    pub version: Version,
    /// Bytes of its ring; a power of two.
    pub ring_bytes: u32,
    /// Whether an earlier session goes on; its ring, subscriptions and mutes are still there.
    pub resumed: bool,
    /// What it can see.
    pub scope: SessionScope,
}

/// What a session can see: [`Scope`] with the process that it was opened by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionScope {
    /// All processes.
    Host,
    /// The descendants of this process.
    Descendants(ProcessKey),
    /// The processes in this cgroup and below, by path.
    Cgroup(String),
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// See the text.
    #[error("there is no grant for {0}")]
    NoGrant(String),
    /// See the text.
    #[error(transparent)]
    NotThisClient(#[from] Mismatch),
    /// See the text.
    #[error(transparent)]
    NoCommonVersion(#[from] NoCommonVersion),
    /// See the text.
    #[error("{client} has a session already, of process {pid}")]
    AlreadyOpen {
        /// Whose.
        client: ClientId,
        /// Of the process that has it.
        pid: u32,
    },
    /// The token is that of no session that waits to be resumed: there never was one, or it has
    /// waited too long. A new session can be opened.
    #[error("there is no session to resume")]
    NothingToResume,
}

/// Whether somebody is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Somebody is.
    Live,
    /// Nobody is, and the session ends then unless it is resumed.
    LostUntil(Time),
}

/// A session and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// For calls.
    pub id: SessionId,
    /// To resume it.
    pub token: Token,
    /// What it speaks.
    pub version: Version,
    /// Who opened or resumed it.
    pub process: ProcessKey,
    /// What it can see.
    pub scope: SessionScope,
    /// Whether somebody is at the other end.
    pub connection: Connection,
    /// When it was opened or resumed.
    pub since: Time,
    /// What it wants; an event that it never spoke of is not there.
    pub wanted: BTreeMap<EventType, Wanted>,
}

impl Session {
    /// Whether somebody is at the other end.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.connection == Connection::Live
    }

    /// When it ends on its own.
    pub(crate) fn due(&self) -> Time {
        match self.connection {
            Connection::Live => Time::NEVER,
            Connection::LostUntil(until) => until,
        }
    }
}

impl SessionScope {
    /// As the grant says, for a session of this process.
    #[must_use]
    pub fn new(scope: &Scope, process: ProcessKey) -> Self {
        match scope {
            Scope::Host => Self::Host,
            Scope::Descendants => Self::Descendants(process),
            Scope::Cgroup(path) => Self::Cgroup(path.clone()),
        }
    }
}
