// SPDX-License-Identifier: Apache-2.0
//! A daemon that a test is: it answers calls on a socket, and has a ring and a way for verdicts.
#![allow(dead_code, reason = "not every test needs every helper")]

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use sdk::simulated::RingWriter;
use serde_json::{Value, json};

pub(crate) struct FakeDaemon {
    pub(crate) control: UnixStream,
    pub(crate) ring: RingWriter,
    /// Its end of the verdicts' socket, and the client's until it was passed on.
    pub(crate) verdicts: OwnedFd,
    client_verdicts: Option<OwnedFd>,
}

impl FakeDaemon {
    /// A daemon, and the client's end of the connection.
    pub(crate) fn new() -> (Self, OwnedFd) {
        let (control, client) = UnixStream::pair().unwrap();
        (Self::over(control), client.into())
    }

    /// On a connection that was accepted.
    pub(crate) fn over(control: UnixStream) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (verdicts, client_verdicts) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        Self {
            control,
            ring: RingWriter::new(64 << 10).unwrap(),
            verdicts,
            client_verdicts: Some(client_verdicts),
        }
    }

    /// The next call.
    pub(crate) fn call(&mut self) -> Value {
        let mut message = Vec::new();
        let mut byte = [0];
        loop {
            self.control.read_exact(&mut byte).unwrap();
            if byte[0] == 0 {
                return serde_json::from_slice(&message).unwrap();
            }
            message.push(byte[0]);
        }
    }

    /// Sends bytes, with descriptors.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let sent =
            sendmsg(&self.control, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(bytes.len()));
    }

    pub(crate) fn reply(&self, parameters: &Value) {
        let mut bytes = serde_json::to_vec(&json!({ "parameters": parameters })).unwrap();
        bytes.push(0);
        self.send(&bytes, &[]);
    }

    pub(crate) fn error(&self, name: &str, parameters: &Value) {
        let mut bytes =
            serde_json::to_vec(&json!({ "error": name, "parameters": parameters })).unwrap();
        bytes.push(0);
        self.send(&bytes, &[]);
    }

    /// What a session is opened with.
    pub(crate) fn opened() -> Value {
        json!({
            "version": { "major": 1, "minor": 0 },
            "ring": 0,
            "verdicts": 1,
            "token": "00112233445566778899aabbccddeeff",
            "resumed": false,
            "limits": { "ring_bytes": 65_536, "message_bytes": 1_048_576, "mutes": 256 },
            "boot_id": "5c0fca5e-6c2c-4b0c-9d5e-1c6ad6b9e2b1",
            "altitude": "320500.25",
            "scope": "host",
            "grant": [
                { "event": "process_exec", "classes": ["notify", "ask", "foresee"] },
                { "event": "dream_dreamt", "classes": ["notify"] }
            ],
            "deadlines": [{ "event": "process_exec", "nanoseconds": 500_000_000 }]
        })
    }

    /// Answers OpenSession as it should be answered.
    pub(crate) fn accept(&mut self) -> Value {
        let call = self.call();
        assert_eq!(call["method"], "io.ringfence.Control.OpenSession");
        let mut bytes = serde_json::to_vec(&json!({ "parameters": Self::opened() })).unwrap();
        bytes.push(0);
        self.open(&bytes);
        call
    }

    /// Sends a reply with the two descriptors.
    pub(crate) fn open(&mut self, bytes: &[u8]) {
        let ring = self.ring.descriptor().unwrap();
        let verdicts = self.client_verdicts.take().unwrap();
        self.send(bytes, &[ring.as_fd(), verdicts.as_fd()]);
    }
}
