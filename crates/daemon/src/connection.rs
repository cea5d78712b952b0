// SPDX-License-Identifier: Apache-2.0
//! One connection to the control socket: bytes in and out, and how long it may take for them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use broker::time::Time;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use crate::identity::Peer;
use crate::varlink::{Incoming, Outgoing};

/// Longest message without a session, in bytes: what everybody may have the daemon hold.
pub const MESSAGE_BEFORE: usize = 64 << 10;
/// Longest message with a session, in bytes.
pub const MESSAGE: usize = 1 << 20;
/// How long a message may take from its first byte to its last, and a reply.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long one without a session may say nothing.
pub const IDLE: Duration = Duration::from_secs(300);
/// Descriptors that go with one reply.
const DESCRIPTORS: usize = 2;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The other end did, or is gone.
    #[error("closed by the other end")]
    ByPeer,
    /// It sent what no client sends, or did not take what it asked for.
    #[error("{0}")]
    Refused(String),
    /// The kernel says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// Who is at the other end.
    pub peer: Peer,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Whether the answer to a call is still being worked out.
    pub waiting: bool,
    /// Since when what is going on goes on: a message that has begun, a reply, silence.
    since: Time,
}

impl Connection {
    /// Of a socket that was accepted, which must not block.
    pub fn new(socket: OwnedFd, now: Time) -> io::Result<Self> {
        let peer = Peer::of(socket.as_fd())?;
        let (incoming, outgoing) = (Incoming::default(), Outgoing::default());
        Ok(Self { socket, peer, incoming, outgoing, waiting: false, since: now })
    }

    /// Whether it is waited for what comes next, and not for a reply to go or to be worked out.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.outgoing.is_empty() && !self.waiting
    }

    /// Whether a reply is on its way.
    #[must_use]
    pub fn wants_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Takes what has come. `buffer` is only for the call.
    pub fn receive(&mut self, buffer: &mut [u8], now: Time) -> Result<(), Closed> {
        let begins = self.incoming.is_empty();
        // Without room for ancillary data: descriptors that came along are closed by the kernel.
        match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Closed::ByPeer),
            Ok((count, _)) => {
                if begins {
                    self.since = now;
                }
                self.incoming.push(buffer.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) => closed_unless_later(error),
        }
    }

    /// The next message, if all of it is there and the last one was answered.
    pub fn message(&mut self, limit: usize, now: Time) -> Result<Option<Vec<u8>>, Closed> {
        if !self.wants_input() {
            return Ok(None);
        }
        let message =
            self.incoming.take(limit).map_err(|long| Closed::Refused(long.to_string()))?;
        if message.is_some() {
            self.since = now;
        }
        Ok(message)
    }

    /// Sends a reply, or as much of it as there is place for now.
    pub fn reply(
        &mut self,
        message: Vec<u8>,
        descriptors: Vec<OwnedFd>,
        now: Time,
    ) -> Result<(), Closed> {
        self.outgoing.put(message, descriptors);
        self.since = now;
        self.send(now)
    }

    /// Sends on what did not go at once.
    pub fn send(&mut self, now: Time) -> Result<(), Closed> {
        while !self.outgoing.is_empty() {
            let (bytes, descriptors) = self.outgoing.rest();
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty()
                && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors))
            {
                return Err(Closed::Refused("too many descriptors for one reply".into()));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
                Ok(sent) => {
                    self.outgoing.advance(sent);
                    self.since = now;
                }
                Err(error) => return closed_unless_later(error),
            }
        }
        Ok(())
    }

    /// When it is closed if nothing comes of it until then.
    #[must_use]
    pub fn expires(&self, has_session: bool) -> Time {
        if self.waiting {
            return Time::NEVER;
        }
        match (self.outgoing.is_empty() && self.incoming.is_empty(), has_session) {
            (false, _) => self.since.after(PATIENCE),
            (true, false) => self.since.after(IDLE),
            (true, true) => Time::NEVER,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn closed_unless_later(error: rustix::io::Errno) -> Result<(), Closed> {
    match error {
        rustix::io::Errno::AGAIN | rustix::io::Errno::INTR => Ok(()),
        rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Err(Closed::ByPeer),
        error => Err(Closed::Io(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, send, socketpair};

    use super::*;

    const START: Time = Time(1_000_000_000);

    fn after(span: Duration) -> Time {
        START.after(span)
    }

    /// A connection, and its other end.
    fn pair() -> (Connection, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        (Connection::new(here, START).unwrap(), there)
    }

    fn say(connection: &mut Connection, other: &OwnedFd, bytes: &[u8], now: Time) {
        send(other, bytes, SendFlags::NOSIGNAL).unwrap();
        connection.receive(&mut [0; 64], now).unwrap();
    }

    #[test]
    fn who_says_nothing_is_waited_for_as_long_as_he_has_no_session() {
        let (connection, _other) = pair();
        assert_eq!(connection.expires(false), after(IDLE));
        assert_eq!(connection.expires(true), Time::NEVER);
    }

    #[test]
    fn a_message_has_its_time_from_the_first_byte_however_often_another_comes() {
        let (mut connection, other) = pair();
        let begun = after(Duration::from_secs(100));
        say(&mut connection, &other, b"{", begun);
        say(&mut connection, &other, b" ", begun.after(Duration::from_secs(9)));
        for has_session in [false, true] {
            assert_eq!(connection.expires(has_session), begun.after(PATIENCE));
        }
        assert!(connection.message(MESSAGE, begun).unwrap().is_none());
        let ended = begun.after(Duration::from_secs(9));
        say(&mut connection, &other, b"}\0", ended);
        assert_eq!(connection.message(MESSAGE, ended).unwrap().unwrap(), b"{ }");
        assert_eq!(connection.expires(false), ended.after(IDLE));
    }

    #[test]
    fn a_reply_has_its_time_from_the_last_byte_that_was_taken() {
        let (mut connection, other) = pair();
        let begun = after(Duration::from_secs(100));
        connection.reply(vec![b' '; 8 << 20], Vec::new(), begun).unwrap();
        assert!(connection.wants_output() && !connection.wants_input());
        assert_eq!(connection.expires(true), begun.after(PATIENCE));
        // Taken slowly, but taken.
        let later = begun.after(Duration::from_secs(9));
        let mut buffer = vec![0; 4 << 20];
        recv(&other, &mut buffer[..], RecvFlags::DONTWAIT).unwrap();
        connection.send(later).unwrap();
        assert_eq!(connection.expires(true), later.after(PATIENCE));
        // One that is still worked out has no time.
        connection.waiting = true;
        assert_eq!(connection.expires(false), Time::NEVER);
    }
}
