// SPDX-License-Identifier: Apache-2.0
//! A client's session with Ringfence.

mod connection;
mod error;
mod interface;
mod refusal;
mod verdicts;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use abi::{EventType, Record};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use error::SessionError;
pub use interface::*;
pub use refusal::Refusal;
pub use verdicts::{RefusedBecause, RefusedVerdict, Verdict, Verdicts};

use crate::ring::{Ring, Waited};
use connection::Connection;

/// Where the daemon listens.
pub const SOCKET: &str = "/run/ringfence/control";

/// An open session: a connection to the daemon, a ring, and a way for verdicts.
///
/// It ends as this is dropped, or as the daemon ends.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    ring: Ring,
    verdicts: Option<Verdicts>,
    opened: Opened,
}

#[derive(Deserialize)]
struct Nothing {}

impl Session {
    /// Opens the session of the client that has this grant, at the daemon's usual place.
    ///
    /// # Errors
    ///
    /// [`SessionError::Connect`] if the daemon is not there, [`SessionError::Refused`] if it will not
    /// have this client.
    pub fn open(client: &str) -> Result<Self, SessionError> {
        Self::open_at(Path::new(SOCKET), client, None)
    }

    /// The same at another place, and with a ring of at least this many bytes instead of what the
    /// grant says.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn open_at(
        socket: &Path,
        client: &str,
        ring_bytes: Option<u64>,
    ) -> Result<Self, SessionError> {
        Self::begin(Connection::open(socket)?, client, ring_bytes)
    }

    /// The same over a stream socket that is connected to a daemon already.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn open_over(socket: OwnedFd, client: &str) -> Result<Self, SessionError> {
        let failed = |source| SessionError::Io { what: "use the socket", source };
        Self::begin(Connection::over(socket).map_err(failed)?, client, None)
    }

    fn begin(
        mut connection: Connection,
        client: &str,
        ring_bytes: Option<u64>,
    ) -> Result<Self, SessionError> {
        #[derive(Serialize)]
        struct Open<'a> {
            client: &'a str,
            versions: [ApiVersion; 1],
            #[serde(skip_serializing_if = "Option::is_none")]
            ring_bytes: Option<u64>,
        }
        let method = "OpenSession";
        let call = Open { client, versions: KNOWN, ring_bytes };
        let (opened, descriptors): (Opened, _) = connection.call(method, call)?;
        let protocol = |reason| SessionError::Protocol { method, reason };
        if !KNOWN.contains(&opened.version) {
            return Err(protocol(format!(
                "it took version {}, which is not known here",
                opened.version
            )));
        }
        let mut descriptors: Vec<_> = descriptors.into_iter().map(Some).collect();
        let count = descriptors.len();
        let mut take = |index: usize| {
            let descriptor = descriptors.get_mut(index).and_then(Option::take);
            descriptor
                .ok_or_else(|| protocol(format!("no descriptor {index} of {count} came with it")))
        };
        let ring = Ring::new(take(opened.ring)?)?;
        let verdicts = opened.verdicts.map(&mut take).transpose()?.map(Verdicts::new);
        Ok(Self { connection, ring, verdicts, opened })
    }

    /// What the daemon said as it opened the session: grant, limits, deadlines.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// From now on the session has these classes of these events too.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotGranted`] or [`Refusal::EventUnavailable`]: then nothing was subscribed.
    pub fn subscribe(&mut self, subscriptions: &[EventClasses]) -> Result<(), SessionError> {
        self.tell("Subscribe", json!({ "subscriptions": subscriptions }))
    }

    /// From now on the session does not have these any more.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn unsubscribe(&mut self, subscriptions: &[EventClasses]) -> Result<(), SessionError> {
        self.tell("Unsubscribe", json!({ "subscriptions": subscriptions }))
    }

    /// Adds mutes.
    ///
    /// # Errors
    ///
    /// [`Refusal::LimitExceeded`] if there are too many: then none was added.
    pub fn mute(&mut self, mutes: &[Mute]) -> Result<(), SessionError> {
        self.tell("Mute", json!({ "mutes": mutes }))
    }

    /// Takes mutes away.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn unmute(&mut self, mutes: &[Mute]) -> Result<(), SessionError> {
        self.tell("Unmute", json!({ "mutes": mutes }))
    }

    /// With inverted mutes only what one of them names is written to the ring.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn invert_mutes(&mut self, inverted: bool) -> Result<(), SessionError> {
        self.tell("InvertMutes", json!({ "inverted": inverted }))
    }

    /// How many records were written to the ring and lost since the session began.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn statistics(&mut self) -> Result<Counts, SessionError> {
        #[derive(Deserialize)]
        struct Statistics {
            counts: Counts,
        }
        let (reply, _): (Statistics, _) = self.connection.call("GetStatistics", json!({}))?;
        Ok(reply.counts)
    }

    /// What answers here.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn version(&mut self) -> Result<Version, SessionError> {
        Ok(self.connection.call("GetVersion", json!({}))?.0)
    }

    /// What can be had of each event on this host, and why not where it cannot.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn coverage(&mut self) -> Result<Vec<Coverage>, SessionError> {
        #[derive(Deserialize)]
        struct All {
            coverage: Vec<Coverage>,
        }
        let (reply, _): (All, _) = self.connection.call("GetCoverage", json!({}))?;
        Ok(reply.coverage)
    }

    /// The path of a cgroup by its id in a record, from the root of the hierarchy.
    ///
    /// # Errors
    ///
    /// [`Refusal::CgroupNotFound`].
    pub fn resolve_cgroup(&mut self, cgroup: u64) -> Result<String, SessionError> {
        #[derive(Deserialize)]
        struct Resolved {
            path: String,
        }
        let (reply, _): (Resolved, _) =
            self.connection.call("ResolveCgroup", json!({ "cgroup": cgroup }))?;
        Ok(reply.path)
    }

    fn tell(
        &mut self,
        method: &'static str,
        parameters: serde_json::Value,
    ) -> Result<(), SessionError> {
        let (Nothing {}, _) = self.connection.call(method, parameters)?;
        Ok(())
    }

    /// The events of this session, one at a time.
    pub fn events(&mut self) -> Events<'_> {
        let Self { connection, ring, verdicts, .. } = self;
        Events { connection, ring, verdicts: verdicts.as_ref() }
    }

    /// Where verdicts go, to answer from another thread. `None` if the grant has no `ask`.
    pub fn verdicts(&self) -> Option<Verdicts> {
        self.verdicts.clone()
    }

    /// Answers an event that was asked about.
    ///
    /// # Errors
    ///
    /// As [`Verdicts::send`], and [`SessionError::NoVerdicts`].
    pub fn verdict(&self, event_id: u64, verdict: Verdict) -> Result<(), SessionError> {
        self.verdicts.as_ref().ok_or(SessionError::NoVerdicts)?.send(event_id, verdict)
    }
}

/// The events of a session. No allocation is made for an event, and nothing is copied.
#[derive(Debug)]
pub struct Events<'s> {
    connection: &'s Connection,
    ring: &'s mut Ring,
    verdicts: Option<&'s Verdicts>,
}

/// An event as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// What happened.
    pub record: Record<'a>,
    /// Its number in this client's stream, those counted that were lost.
    pub sequence: u64,
    /// How many records were lost right before it.
    pub missed: u64,
    verdicts: Option<&'a Verdicts>,
}

impl Events<'_> {
    /// The next event. Waits for it for as long as the time says, or without end; `None` if there was
    /// none in that time. Asking for it gives the place of the one before back to the kernel.
    ///
    /// # Errors
    ///
    /// [`SessionError::Ended`] when the daemon has ended and all that is in the ring was read.
    /// [`SessionError::Ring`] for a record that cannot be decoded, after which the next one can be
    /// asked for, and for a ring that cannot be read any further.
    #[allow(clippy::should_implement_trait, reason = "what is given out borrows the ring")]
    pub fn next(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Option<Delivered<'_>>, SessionError> {
        match self.ring.wait(timeout, Some(self.connection.as_fd()))? {
            Waited::Ready => {}
            Waited::TimedOut => return Ok(None),
            Waited::HungUp => return Err(SessionError::Ended),
        }
        let Some(received) = self.ring.next()? else { return Ok(None) };
        Ok(Some(Delivered {
            record: received.record,
            sequence: received.sequence,
            missed: received.missed,
            verdicts: self.verdicts,
        }))
    }
}

impl Delivered<'_> {
    /// The type of the event, if it has a name here.
    pub fn event_type(&self) -> Option<EventType> {
        self.record.event_type()
    }

    /// Answers it. Only for events that were asked about ([`Record::is_ask`]).
    ///
    /// # Errors
    ///
    /// As [`Session::verdict`].
    pub fn answer(&self, verdict: Verdict) -> Result<(), SessionError> {
        let verdicts = self.verdicts.ok_or(SessionError::NoVerdicts)?;
        verdicts.send(self.record.header().event_id, verdict)
    }
}
