// SPDX-License-Identifier: Apache-2.0
//! A client's session with Ringfence.

mod connection;
mod error;
mod interface;
mod memory;
mod refusal;
mod rules;
mod verdicts;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use abi::{EventType, Record};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use error::SessionError;
pub use interface::*;
pub use memory::Mapping;
pub use refusal::{Refusal, RuleProblem};
pub use rules::{ClientRules, CollectionState, RuleState};
pub use verdicts::{RefusedBecause, RefusedVerdict, Verdict, Verdicts};

use crate::ring::{Ring, Waited};
use connection::Connection;

/// Where the daemon listens.
pub const SOCKET: &str = "/run/ringfence/control";

/// The version of the API that this crate speaks.
const VERSION: ApiVersion = ApiVersion { major: abi::ABI, minor: 0 };

/// An open session: a connection to the daemon, a ring, and a way for verdicts.
///
/// [`Session::close`] ends it. If it is dropped instead, or its connection breaks, the daemon keeps the
/// session for half a minute: see [`Session::reconnect`].
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    ring: Ring,
    verdicts: Option<Verdicts>,
    opened: Opened,
    client: String,
}

/// How to open a session, where it is not the usual one: see [`Session::open`].
#[derive(Clone, Debug)]
pub struct SessionOptions {
    client: String,
    socket: PathBuf,
    ring_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Nothing {}

/// What a connection brings as a session is opened on it.
struct Brought {
    opened: Opened,
    ring: OwnedFd,
    verdicts: Option<Verdicts>,
}

impl SessionOptions {
    /// The session of the client that has this grant.
    pub fn new(client: &str) -> Self {
        Self { client: client.to_owned(), socket: PathBuf::from(SOCKET), ring_bytes: None }
    }

    /// With the daemon that listens at this socket.
    #[must_use]
    pub fn socket(self, socket: &Path) -> Self {
        Self { socket: socket.to_owned(), ..self }
    }

    /// With a smaller ring than the grant gives, in bytes.
    #[must_use]
    pub fn ring_bytes(self, ring_bytes: u64) -> Self {
        Self { ring_bytes: Some(ring_bytes), ..self }
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn open(&self) -> Result<Session, SessionError> {
        self.open_on(Connection::open(&self.socket)?)
    }

    /// Opens it over a stream socket that is connected to a daemon already.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub fn open_over(&self, socket: OwnedFd) -> Result<Session, SessionError> {
        self.open_on(connection_over(socket)?)
    }

    fn open_on(&self, mut connection: Connection) -> Result<Session, SessionError> {
        let Brought { opened, ring, verdicts } =
            open_session(&mut connection, &self.client, self.ring_bytes, None)?;
        let ring = Ring::new(ring)?;
        Ok(Session { connection, ring, verdicts, opened, client: self.client.clone() })
    }
}

fn connection_over(socket: OwnedFd) -> Result<Connection, SessionError> {
    let failed = |source| SessionError::Io { what: "use the socket", source };
    Connection::over(socket).map_err(failed)
}

fn open_session(
    connection: &mut Connection,
    client: &str,
    ring_bytes: Option<u64>,
    resume: Option<&str>,
) -> Result<Brought, SessionError> {
    #[derive(Serialize)]
    struct Call<'a> {
        client: &'a str,
        versions: [ApiVersion; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        ring_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resume: Option<&'a str>,
    }
    let method = "OpenSession";
    let call = Call { client, versions: [VERSION], ring_bytes, resume };
    let (opened, descriptors): (Opened, _) = connection.call(method, call)?;
    let protocol = |reason| SessionError::Protocol { method, reason };
    if opened.version != VERSION {
        return Err(protocol(format!(
            "it took version {}, which is not known here",
            opened.version
        )));
    }
    let mut descriptors: Vec<_> = descriptors.into_iter().map(Some).collect();
    let count = descriptors.len();
    let mut take = |index: usize| {
        let descriptor = descriptors.get_mut(index).and_then(Option::take);
        descriptor.ok_or_else(|| protocol(format!("no descriptor {index} of {count} came with it")))
    };
    let ring = take(opened.ring)?;
    let verdicts = opened.verdicts.map(&mut take).transpose()?.map(Verdicts::new);
    Ok(Brought { opened, ring, verdicts })
}

impl Session {
    /// Opens the session of the client that has this grant, with the daemon at its usual place.
    ///
    /// # Errors
    ///
    /// [`SessionError::Connect`] if the daemon is not there, [`SessionError::Refused`] if it will not
    /// have this client.
    pub fn open(client: &str) -> Result<Self, SessionError> {
        SessionOptions::new(client).open()
    }

    /// After [`SessionError::Ended`]: connects again, and goes on with the same ring, subscriptions and
    /// mutes. No record is missed by it, and numbers go on. [`Verdicts`] that were taken before are of
    /// no use any more.
    ///
    /// # Errors
    ///
    /// [`Refusal::NothingToResume`] if the daemon has not kept the session; [`SessionError::Connect`] if
    /// it is not there (yet).
    pub fn reconnect(&mut self, socket: &Path) -> Result<(), SessionError> {
        self.resume_on(Connection::open(socket)?)
    }

    /// The same over a stream socket that is connected already.
    ///
    /// # Errors
    ///
    /// As [`Session::reconnect`].
    pub fn reconnect_over(&mut self, socket: OwnedFd) -> Result<(), SessionError> {
        self.resume_on(connection_over(socket)?)
    }

    fn resume_on(&mut self, mut connection: Connection) -> Result<(), SessionError> {
        let token = self.opened.token.as_str();
        // The ring's descriptor comes again; it is mapped already.
        let Brought { opened, ring: _, verdicts } =
            open_session(&mut connection, &self.client, None, Some(token))?;
        if !opened.resumed {
            let reason = "it opened another session instead of going on with this one".to_owned();
            return Err(SessionError::Protocol { method: "OpenSession", reason });
        }
        (self.connection, self.verdicts, self.opened) = (connection, verdicts, opened);
        Ok(())
    }

    /// What the daemon said as it opened the session: grant, limits, deadlines.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Ends it for good, with its ring and mutes. What it would be asked from now on is decided as its grant
    /// says for a client that is not connected.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn close(mut self) -> Result<(), SessionError> {
        self.tell("CloseSession", json!({}))
    }

    /// From now on the session has these classes of these events too. A deadline takes the place of the
    /// one that the event had.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotGranted`] or [`Refusal::EventUnavailable`]: then nothing was subscribed.
    pub fn subscribe(&mut self, subscriptions: &[Subscription]) -> Result<(), SessionError> {
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

    /// With inverted mutes only what one of them names is written to the ring, and nothing else.
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

    /// What there is to know about a process now: about the one of a key, or whichever has this number.
    ///
    /// # Errors
    ///
    /// [`Refusal::ProcessNotFound`]: it has ended, or another one has its number.
    pub fn query_process(&mut self, pid: u32, start: Option<u64>) -> Result<Process, SessionError> {
        #[derive(Deserialize)]
        struct Found {
            process: Process,
        }
        let call = json!({ "pid": pid, "start": start });
        let (reply, _): (Found, _) = self.connection.call("QueryProcess", call)?;
        Ok(reply.process)
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

    /// The SHA-256 of a file that a record names, and how long it is. The daemon remembers it as long as
    /// the file does not change. Takes as long as reading the file takes.
    ///
    /// # Errors
    ///
    /// [`Refusal::FileUnavailable`]: another file is there now, nobody may execute it, it cannot be read.
    pub fn measure_file(&mut self, path: &str, file: FileKey) -> Result<Measured, SessionError> {
        let call = json!({ "path": path, "file": file });
        let (measured, _): (Measured, _) = self.connection.call("MeasureFile", call)?;
        Ok(measured)
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
