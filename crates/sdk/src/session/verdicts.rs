// SPDX-License-Identifier: Apache-2.0
//! Verdicts: what a client answers when a task waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use zerocopy::{FromBytes, IntoBytes};

use super::error::SessionError;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    error: Option<u32>,
    cacheable: bool,
}

impl Verdict {
    /// It may go on.
    pub const fn allow() -> Self {
        Self { error: None, cacheable: false }
    }

    /// It fails with this errno (`libc::EPERM` is 1): 1 to 133, and not EINTR (4). A verdict with another one
    /// is refused as malformed, and the question stays open.
    pub const fn deny(error: u32) -> Self {
        Self { error: Some(error), cacheable: false }
    }

    /// The same holds for the same file in the same version: do not ask this client again.
    pub const fn cacheable(self) -> Self {
        Self { cacheable: true, ..self }
    }
}

/// Why a verdict did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBecause {
    /// The deadline was over.
    TooLate,
    /// It was answered already: by this client, or for it.
    AlreadyAnswered,
    /// This client was never asked about it.
    NotAsked,
    /// The daemon did not understand it.
    Malformed,
    /// A reason that has no name here.
    Other(u32),
}

impl RefusedBecause {
    fn of(status: u32) -> Self {
        match status {
            abi::REFUSED_TOO_LATE => Self::TooLate,
            abi::REFUSED_ALREADY_ANSWERED => Self::AlreadyAnswered,
            abi::REFUSED_NOT_ASKED => Self::NotAsked,
            abi::REFUSED_MALFORMED => Self::Malformed,
            other => Self::Other(other),
        }
    }
}

/// A verdict that did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedVerdict {
    /// Which event's.
    pub event_id: u64,
    /// Why.
    pub because: RefusedBecause,
}

/// Where verdicts go. Clones go the same way, so that any thread can answer.
#[derive(Clone, Debug)]
pub struct Verdicts {
    socket: Arc<OwnedFd>,
}

impl Verdicts {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket) }
    }

    /// Answers an event by its `header.event_id`. Says nothing of whether it counts: only one that
    /// does not is told back, see [`Verdicts::refused`].
    ///
    /// # Errors
    ///
    /// [`SessionError::Ended`] if nobody is there any more, [`SessionError::Io`] otherwise.
    pub fn send(&self, event_id: u64, verdict: Verdict) -> Result<(), SessionError> {
        let Verdict { error, cacheable } = verdict;
        let message = abi::Verdict {
            event_id,
            verdict: if error.is_some() { abi::VERDICT_DENY } else { abi::VERDICT_ALLOW },
            error: error.unwrap_or(0),
            flags: if cacheable { abi::VERDICT_FLAG_CACHEABLE } else { 0 },
            reserved: 0,
        };
        loop {
            match send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL) {
                // A message of a socket of this type goes as a whole or not at all.
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for_room()?,
                Err(error) => return Err(of_socket("send a verdict", error)),
            }
        }
    }

    /// The socket may have been made so that it does not block: which it is, is the daemon's choice.
    fn wait_for_room(&self) -> Result<(), SessionError> {
        match poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(of_socket("send a verdict", error)),
        }
    }

    /// The next verdict that did not count, if one was told of by now. Never waits.
    ///
    /// # Errors
    ///
    /// As [`Verdicts::send`].
    pub fn refused(&self) -> Result<Option<RefusedVerdict>, SessionError> {
        let mut message = [0; size_of::<abi::VerdictRefused>()];
        let length = loop {
            match recv(&self.socket, &mut message, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(SessionError::Ended),
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(of_socket("hear of verdicts", error)),
            }
        };
        match abi::VerdictRefused::read_from_bytes(&message) {
            Ok(refused) if length == message.len() => Ok(Some(RefusedVerdict {
                event_id: refused.event_id,
                because: RefusedBecause::of(refused.status),
            })),
            _ => Err(SessionError::Protocol {
                method: "a verdict",
                reason: format!("it has {length} bytes"),
            }),
        }
    }
}

fn of_socket(what: &'static str, error: Errno) -> SessionError {
    match error {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => SessionError::Ended,
        error => SessionError::Io { what, source: io::Error::from(error) },
    }
}

impl AsFd for Verdicts {
    /// Readable when a verdict was refused.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
