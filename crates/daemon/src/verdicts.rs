// SPDX-License-Identifier: Apache-2.0
//! The socket that a client sends its verdicts through: `struct ringfence_verdict` in, `struct
//! ringfence_verdict_refused` out where one does not count.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

/// Length of `struct ringfence_verdict`, in bytes.
const VERDICT: usize = 24;
/// Verdicts that are taken before the others get their turn.
const AT_ONCE: usize = 64;
/// include/uapi/asm-generic/errno-base.h
const EPERM: u16 = 1;
/// The largest errno that a kernel gives (include/linux/err.h, MAX_ERRNO).
const ERRNO_MAX: u32 = 4095;

/// What a client answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `header.event_id` of the record that asked.
    pub event_id: u64,
    /// The errno that the caller is to get; `None` if it may go on.
    pub deny: Option<u16>,
    /// It holds for the same file in the same version.
    pub cacheable: bool,
}

/// Why a verdict does not count: RINGFENCE_REFUSED_.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refused {
    /// The deadline was over.
    TooLate = 1,
    /// It was answered already.
    AlreadyAnswered = 2,
    /// This client was never asked about it.
    NotAsked = 3,
    /// It is no verdict.
    Malformed = 4,
}

/// The daemon's end.
#[derive(Debug)]
pub struct VerdictSocket(OwnedFd);

impl VerdictSocket {
    /// A pair: the daemon's end, and the client's.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(own), other))
    }

    /// Gives what has come to `judge`, and sends back what it refuses. An error if the client is
    /// gone.
    pub fn serve(&self, mut judge: impl FnMut(Verdict) -> Result<(), Refused>) -> io::Result<()> {
        // One byte more, to tell what is too long.
        let mut message = [0; VERDICT + 1];
        for _ in 0..AT_ONCE {
            let length = match recv(&self.0, &mut message, RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
                // An empty message and the end look alike; nobody has a use for the former.
                Ok((0, _)) => return Err(io::ErrorKind::BrokenPipe.into()),
                other => other?.0,
            };
            let message = message.get(..length).unwrap_or_default();
            let (event_id, refused) = match parse(message) {
                Some(verdict) => (verdict.event_id, judge(verdict).err()),
                None => (event_id(message), Some(Refused::Malformed)),
            };
            if let Some(refused) = refused {
                self.refuse(event_id, refused);
            }
        }
        Ok(())
    }

    /// Says that a verdict does not count.
    pub fn refuse(&self, event_id: u64, refused: Refused) {
        let status = refused as u32;
        let mut message = [0; 16];
        message[..8].copy_from_slice(&event_id.to_le_bytes());
        message[8..12].copy_from_slice(&status.to_le_bytes());
        // Who does not read what was refused does not learn it; that is nobody else's loss.
        let _ = send(&self.0, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

impl AsFd for VerdictSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn event_id(message: &[u8]) -> u64 {
    match message.first_chunk() {
        Some(id) if message.len() == VERDICT => u64::from_le_bytes(*id),
        _ => 0,
    }
}

/// Reads a verdict; `None` if it is none.
#[must_use]
pub fn parse(message: &[u8]) -> Option<Verdict> {
    if message.len() != VERDICT {
        return None;
    }
    let word = |at: usize| Some(u32::from_le_bytes(*message.get(at..)?.first_chunk()?));
    let (verdict, error, flags) = (word(8)?, word(12)?, word(16)?);
    let deny = match (verdict, error) {
        (1, 0) => None,
        // Who says no more than that it is denied.
        (2, 0) => Some(EPERM),
        (2, 1..=ERRNO_MAX) => Some(u16::try_from(error).ok()?),
        _ => return None,
    };
    // What is reserved is ignored, as everywhere.
    (flags & !1 == 0).then_some(Verdict {
        event_id: event_id(message),
        deny,
        cacheable: flags == 1,
    })
}
