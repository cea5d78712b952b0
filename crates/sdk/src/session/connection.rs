// SPDX-License-Identifier: Apache-2.0
//! The control connection: calls of varlink over a Unix socket, and the descriptors that replies bring.
//!
//! Varlink is a JSON object for each message and a zero byte after it. The libraries for it are built
//! on an async runtime or pass no descriptors, and what links this crate must not get a runtime by it: a
//! product may have one of its own, or none, and this connection carries a few calls in the life of a
//! session. So the client is a hundred lines that block.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, send, shutdown,
    socket_with,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::SessionError;
use super::refusal::Refusal;

/// What all methods and errors of the interface begin with.
pub(crate) const INTERFACE: &str = "io.ringfence.Control";

/// How long the daemon may take for a reply. Measuring an executable is what can take longest.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest reply that is taken, in bytes.
const LONGEST_REPLY: usize = 16 << 20;

/// The most descriptors that come with one piece of a reply: the ring, the verdicts, and some that are
/// not known yet.
const DESCRIPTORS: usize = 16;

/// The connection to the daemon.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    /// What came after the last reply.
    received: Vec<u8>,
}

#[derive(Serialize)]
struct Call<'a, P> {
    method: &'a str,
    parameters: P,
}

#[derive(Deserialize)]
struct Reply {
    error: Option<String>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

impl Connection {
    /// Connects to the daemon's socket.
    pub(crate) fn open(path: &Path) -> Result<Self, SessionError> {
        let failed = |error: Errno| SessionError::Connect {
            path: PathBuf::from(path),
            source: io::Error::from(error),
        };
        let flags = SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        connect(&socket, &SocketAddrUnix::new(path).map_err(failed)?).map_err(failed)?;
        Self::over(socket).map_err(|source| SessionError::Connect { path: path.into(), source })
    }

    /// Talks over a stream socket that is connected already.
    pub(crate) fn over(socket: OwnedFd) -> io::Result<Self> {
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, direction, Some(PATIENCE))?;
        }
        Ok(Self { socket, received: Vec::new() })
    }

    /// Calls a method of the interface and waits for its reply.
    pub(crate) fn call<R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        parameters: impl Serialize,
    ) -> Result<(R, Vec<OwnedFd>), SessionError> {
        let call = Call { method: &format!("{INTERFACE}.{method}"), parameters };
        let mut message = serde_json::to_vec(&call).map_err(|error| SessionError::Protocol {
            method,
            reason: format!("the call cannot be written: {error}"),
        })?;
        message.push(0);
        let io = |error: Errno| SessionError::of_io(method, error.into());
        self.send(&message).map_err(io)?;
        let mut descriptors = Vec::new();
        let reply = self.reply(method, &mut descriptors).inspect_err(|_| self.give_up())?;
        let protocol = |reason| SessionError::Protocol { method, reason };
        let reply: Reply = serde_json::from_slice(&reply)
            .map_err(|error| protocol(format!("the reply is not what varlink has: {error}")))?;
        let parameters = Value::Object(reply.parameters.unwrap_or_default());
        if let Some(name) = reply.error {
            return Err(SessionError::Refused(Refusal::named(&name, parameters)));
        }
        let result = serde_json::from_value(parameters)
            .map_err(|error| protocol(format!("the reply is not as expected: {error}")))?;
        Ok((result, descriptors))
    }

    fn send(&self, mut message: &[u8]) -> Result<(), Errno> {
        while !message.is_empty() {
            let sent = match send(&self.socket, message, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => continue,
                sent => sent?,
            };
            message = message.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the connection: what comes later would be taken for the reply to another call.
    fn give_up(&self) {
        // It is as good as ended already where this fails.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// The bytes of one reply, without the zero.
    fn reply(
        &mut self,
        method: &'static str,
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<Vec<u8>, SessionError> {
        let mut looked_at = 0;
        loop {
            let fresh = self.received.get(looked_at..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == 0) {
                let rest = self.received.split_off(looked_at + end + 1);
                let mut reply = std::mem::replace(&mut self.received, rest);
                reply.pop();
                return Ok(reply);
            }
            looked_at = self.received.len();
            if looked_at > LONGEST_REPLY {
                let reason = format!("the reply is longer than {LONGEST_REPLY} bytes");
                return Err(SessionError::Protocol { method, reason });
            }
            self.receive(method, descriptors)?;
        }
    }

    /// Adds what comes next to what was received.
    fn receive(
        &mut self,
        method: &'static str,
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<(), SessionError> {
        let mut piece = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [io::IoSliceMut::new(&mut piece)];
            match recvmsg(&self.socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(SessionError::of_io(method, error.into())),
                Ok(received) => break received,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            let reason = "it brought more descriptors than this process can take".to_owned();
            return Err(SessionError::Protocol { method, reason });
        }
        if received.bytes == 0 {
            return Err(SessionError::Ended);
        }
        self.received.extend_from_slice(piece.get(..received.bytes).unwrap_or_default());
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
