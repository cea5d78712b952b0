// SPDX-License-Identifier: Apache-2.0
//! Sessions begin and end: OpenSession, CloseSession.
//!
//! To open one takes two steps. What can be said at once is said at once; then the executable of the
//! caller is measured by a thread, and the call waits for that.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use broker::event::Class;
use broker::grant::{Grant, Peer, Scope, Sha256, limits};
use broker::session::version::{VERSIONS_MAX, Version as ApiVersion};
use broker::session::{Open, OpenError, Opened, Token};
use broker::slot::ProcessKey;
use serde::{Deserialize, Serialize};

use super::types::{Done, EventClasses, Nothing, Version, nanoseconds};
use super::waiting::For;
use super::{API, Answer, Caller, ConnectionId, Control, ControlError, parameters, reply};
use crate::clock;
use crate::connection::MESSAGE;
use crate::kernel::{Kernel, KernelError};
use crate::log;
use crate::measure::{Executable, Subject};
use crate::sessions::Session;
use crate::varlink::Call;
use crate::verdicts::VerdictSocket;

/// A call of OpenSession that waits for its measurement.
#[derive(Debug)]
pub(super) struct Request {
    connection: ConnectionId,
    pid: u32,
    uid: u32,
    client: String,
    versions: Vec<ApiVersion>,
    ring_bytes: Option<u32>,
    resume: Option<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    client: String,
    versions: Vec<Version>,
    ring_bytes: Option<u64>,
    resume: Option<String>,
}

#[derive(Serialize)]
struct Reply {
    version: Version,
    ring: u32,
    verdicts: Option<u32>,
    token: String,
    resumed: bool,
    limits: Limits,
    boot_id: String,
    altitude: String,
    scope: &'static str,
    grant: Vec<EventClasses>,
    deadlines: Vec<Deadline>,
}

#[derive(Serialize)]
struct Deadline {
    event: &'static str,
    nanoseconds: u64,
}

#[derive(Serialize)]
struct Limits {
    ring_bytes: u32,
    message_bytes: usize,
    mutes: u32,
}

impl<K: Kernel> Control<K> {
    pub(super) fn open_session(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        if let Ok(session) = self.sessions.of(caller.connection) {
            return Err(ControlError::SessionOpen { client: session.client.clone() });
        }
        let wanted: Wanted = parameters(call)?;
        if wanted.versions.len() > VERSIONS_MAX {
            let limit = VERSIONS_MAX as u64;
            return Err(ControlError::LimitExceeded { what: "versions", limit });
        }
        let grant = self.grant(&wanted.client)?;
        refuse_narrow_scope(grant)?;
        let ring_bytes = ring_bytes(wanted.ring_bytes, grant)?;
        let resume = wanted.resume.as_deref().map(token).transpose()?;
        let digest = !grant.identity.sha256.is_empty();
        let gone = |error: std::io::Error| ControlError::IdentityRefused {
            client: wanted.client.clone(),
            reason: "the process has ended".into(),
            found: error.to_string(),
        };
        let process = caller.peer.process().map_err(gone)?;
        let request = Request {
            connection: caller.connection,
            pid: caller.peer.pid,
            uid: caller.peer.uid,
            versions: wanted
                .versions
                .iter()
                .map(|version| ApiVersion { major: version.major, minor: version.minor })
                .collect(),
            ring_bytes,
            resume,
            client: wanted.client,
        };
        let subject = Subject::Process { process, digest };
        Ok(self.wait(caller, subject, For::Session(request)))
    }

    /// What a call comes to, now that the caller's executable is known.
    pub(super) fn identified(
        &mut self,
        request: &Request,
        result: std::io::Result<Executable>,
    ) -> Result<Answer, ControlError> {
        let answer = match result {
            Ok(executable) => self.open(request, &executable),
            Err(error) => Err(ControlError::IdentityRefused {
                client: request.client.clone(),
                reason: "its executable could not be looked at".into(),
                found: error.to_string(),
            }),
        };
        if let Err(error) = &answer {
            let Request { pid, uid, client, .. } = request;
            log::caused(&format_args!("{client}: no session for pid {pid} uid {uid}: {error}"));
        }
        answer
    }

    fn open(&mut self, request: &Request, executable: &Executable) -> Result<Answer, ControlError> {
        let keys = self.kernel.keys(request.pid)?;
        let (process, _) = keys.ok_or(ControlError::ProcessNotFound { pid: request.pid })?;
        let open = Open {
            client: &request.client,
            versions: &request.versions,
            process,
            peer: Peer {
                executable: executable.path.as_deref(),
                sha256: executable.digest.map(Sha256),
                uid: request.uid,
                user: executable.user.as_deref(),
            },
            token: fresh_token()?,
            resume: request.resume,
        };
        let mut effects = Vec::new();
        let opened = self
            .broker
            .open(clock::now(), &open, &mut effects)
            .map_err(|error| self.refused(request, error))?;
        // An earlier session that waited to be resumed ends by this, and makes room.
        let room = self.carry_out(effects);
        let answer = room
            .and_then(|()| self.give_ring(request, executable, process, &opened))
            .map_err(ControlError::from)
            .and_then(|ring| self.opened(request, &opened, ring, open.token));
        if answer.is_err() {
            // Nothing half open is left.
            self.end_session(opened.id);
        }
        answer
    }

    /// The ring of a session that was opened or resumed, for its client.
    fn give_ring(
        &mut self,
        request: &Request,
        executable: &Executable,
        process: ProcessKey,
        opened: &Opened,
    ) -> Result<OwnedFd, KernelError> {
        let slot = opened.id.slot;
        if opened.resumed {
            self.kernel.exempt(slot, process)?;
        }
        let path = executable.path.as_deref().map(String::from_utf8_lossy);
        let digest = executable.digest.map(|digest| Sha256(digest).to_string());
        if let Some(session) = self.sessions.in_slot(slot).filter(|_| opened.resumed) {
            session.id = opened.id;
            session.process = process;
            session.executable = path.map(Into::into);
            session.digest = digest;
            let ring = copy(&session.ring)?;
            self.sessions.connect(slot, Some(request.connection));
            return Ok(ring);
        }
        let ring_bytes = request.ring_bytes.unwrap_or(opened.ring_bytes).min(opened.ring_bytes);
        let ring = self.kernel.admit(slot, ring_bytes)?;
        if let Err(error) = self.kernel.exempt(slot, process) {
            // Nobody ends what is in no session.
            self.kernel.remove(slot)?;
            return Err(error);
        }
        let given = copy(&ring);
        let grant = self.grant(&request.client);
        self.sessions.insert(Session {
            slot,
            id: opened.id,
            client: request.client.clone(),
            connection: Some(request.connection),
            process,
            uid: request.uid,
            executable: path.map(Into::into),
            digest,
            ring,
            ring_bytes,
            mutes: BTreeSet::new(),
            mutes_max: grant.map_or(0, |grant| grant.limits.max_muted),
            inverted: false,
            memory: super::Budget::default(),
        });
        // What was said of the slot before it had a ring.
        if let Some(masks) = self.broker.masks(slot).copied() {
            self.subscribe_kernel(slot, &masks)?;
        }
        given
    }

    fn opened(
        &mut self,
        request: &Request,
        opened: &Opened,
        ring: OwnedFd,
        token: Token,
    ) -> Result<Answer, ControlError> {
        let session = self.sessions.of(request.connection)?;
        let ring_bytes = session.ring_bytes;
        let grant = self.grant(&request.client)?;
        let mut descriptors = vec![ring];
        let mut own = None;
        if grant.events.keys().any(|event| grant.allows(*event, Class::Ask)) {
            let (socket, other) = VerdictSocket::pair().map_err(|error| {
                let reason = error.to_string();
                KernelError { operation: "making the socket for verdicts", reason }
            })?;
            own = Some(socket);
            descriptors.push(other);
        }
        let granted = grant.events.iter();
        let asked = granted.clone().filter(|(_, granted)| granted.classes.contains(Class::Ask));
        let message = reply(&Reply {
            version: opened.version.into(),
            ring: 0,
            verdicts: own.as_ref().map(|_| 1),
            token: token.0.iter().map(|byte| format!("{byte:02x}")).collect(),
            resumed: opened.resumed,
            limits: Limits { ring_bytes, message_bytes: MESSAGE, mutes: grant.limits.max_muted },
            boot_id: self.boot_id.clone(),
            altitude: grant.altitude.to_string(),
            scope: "host",
            grant: granted.map(|(event, had)| EventClasses::new(*event, had.classes)).collect(),
            deadlines: asked
                .map(|(event, granted)| Deadline {
                    event: event.name(),
                    nanoseconds: nanoseconds(granted.deadline.min(self.broker.longest_deadline())),
                })
                .collect(),
        })?;
        let how = if opened.resumed { "resumed" } else { "opened" };
        let (client, pid) = (&request.client, request.pid);
        log::caused(&format_args!("{client}: session {how} by pid {pid}"));
        match message {
            Answer::Now { message, .. } => Ok(Answer::Now { message, descriptors, verdicts: own }),
            Answer::Later => Ok(Answer::Later),
        }
    }

    pub(super) fn close_session(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        let id = self.sessions.of(caller.connection)?.id;
        self.end_session(id);
        reply(&Done {})
    }

    /// The connection was closed. Its session waits for a while to be resumed.
    pub fn closed(&mut self, connection: ConnectionId) {
        self.waiting.retain(|waiting| waiting.connection() != connection);
        let Ok(session) = self.sessions.of(connection) else { return };
        let (slot, id) = (session.slot, session.id);
        self.sessions.connect(slot, None);
        let mut effects = Vec::new();
        self.broker.disconnect(clock::now(), id, &mut effects);
        self.carry_out_or_log(effects);
    }

    fn end_session(&mut self, id: broker::session::SessionId) {
        let mut effects = Vec::new();
        self.broker.close(clock::now(), id, &mut effects);
        self.carry_out_or_log(effects);
    }

    fn grant(&self, client: &str) -> Result<&Grant, ControlError> {
        let mut grants = self.broker.status().map(|status| status.grant);
        let found = grants.find(|grant| grant.client.as_str() == client);
        found.ok_or_else(|| ControlError::NoGrant {
            client: client.chars().take(128).collect(),
            directory: self.grants.display().to_string(),
        })
    }

    fn refused(&self, request: &Request, error: OpenError) -> ControlError {
        let client = request.client.clone();
        match error {
            OpenError::NoGrant(_) => {
                let directory = self.grants.display().to_string();
                ControlError::NoGrant { client, directory }
            }
            OpenError::NotThisClient(mismatch) => ControlError::IdentityRefused {
                client,
                reason: mismatch.to_string(),
                found: format!("pid {}, uid {}", request.pid, request.uid),
            },
            OpenError::NoCommonVersion(_) => {
                let supported = API.iter().map(|version| Version::from(*version)).collect();
                ControlError::VersionUnsupported { supported }
            }
            OpenError::AlreadyOpen { pid, .. } => ControlError::AlreadyConnected { client, pid },
            OpenError::NothingToResume => ControlError::NothingToResume {},
        }
    }
}

/// Whoever may see a part only must not get all.
fn refuse_narrow_scope(grant: &Grant) -> Result<(), ControlError> {
    let scope = match grant.scope {
        Scope::Host => return Ok(()),
        Scope::Descendants => "descendants",
        Scope::Cgroup(_) => "cgroup",
    };
    Err(ControlError::ScopeUnavailable {
        client: grant.client.to_string(),
        scope,
        reason: "the kernel side does not narrow events down yet".into(),
    })
}

/// How many bytes the ring is to have, if the client says it.
fn ring_bytes(wanted: Option<u64>, grant: &Grant) -> Result<Option<u32>, ControlError> {
    let limit = u64::from(grant.limits.ring_bytes);
    match wanted {
        None => Ok(None),
        Some(0) => Err(ControlError::invalid("ring_bytes", "a ring has more than 0 bytes")),
        Some(bytes) if bytes > limit => {
            Err(ControlError::LimitExceeded { what: "ring_bytes", limit })
        }
        Some(bytes) => {
            let bytes = bytes.next_power_of_two().max(u64::from(limits::RING_BYTES.least));
            Ok(u32::try_from(bytes).ok())
        }
    }
}

fn token(text: &str) -> Result<Token, ControlError> {
    let digits = || ControlError::invalid("resume", "a token has 32 hexadecimal digits");
    if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(digits());
    }
    let number = u128::from_str_radix(text, 16).map_err(|_| digits())?;
    Ok(Token(number.to_be_bytes()))
}

fn fresh_token() -> Result<Token, KernelError> {
    let mut bytes = [0; 16];
    let failed = |reason| KernelError { operation: "drawing a token", reason };
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut bytes, flags) {
        Ok(16) => Ok(Token(bytes)),
        Ok(_) => Err(failed("too few random bytes".into())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn copy(ring: &OwnedFd) -> Result<OwnedFd, KernelError> {
    ring.try_clone().map_err(|error| KernelError {
        operation: "copying the descriptor of a ring",
        reason: error.to_string(),
    })
}
