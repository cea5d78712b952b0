// SPDX-License-Identifier: Apache-2.0
//! What has come and is not a message yet, and what is to go.

use std::os::fd::OwnedFd;

/// What ends a message.
const END: u8 = 0;

/// A message is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {limit} bytes")]
pub struct TooLong {
    /// How long it may be, in bytes.
    pub limit: usize,
}

/// Bytes of one connection that were received and not yet taken as messages.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    /// Up to here there is no end of a message.
    searched: usize,
}

impl Incoming {
    /// Adds what was received. Whoever sends one message after the other without waiting for
    /// replies must not be read from while there is one to take; so no more than one message and
    /// one `received` is ever held.
    pub fn push(&mut self, received: &[u8]) {
        self.bytes.extend_from_slice(received);
    }

    /// The next message, without its end, if all of it is there.
    pub fn take(&mut self, limit: usize) -> Result<Option<Vec<u8>>, TooLong> {
        let unseen = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(place) = unseen.iter().position(|byte| *byte == END) else {
            self.searched = self.bytes.len();
            return if self.bytes.len() > limit { Err(TooLong { limit }) } else { Ok(None) };
        };
        let length = self.searched + place;
        if length > limit {
            return Err(TooLong { limit });
        }
        let rest = self.bytes.split_off(length + 1);
        let mut message = std::mem::replace(&mut self.bytes, rest);
        message.truncate(length);
        self.searched = 0;
        Ok(Some(message))
    }

    /// Whether a message has begun and was not taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// One reply on its way out.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Outgoing {
    /// A message without its end, with the descriptors that go along with its first byte.
    pub fn put(&mut self, message: Vec<u8>, descriptors: Vec<OwnedFd>) {
        debug_assert!(self.is_empty(), "one reply at a time");
        self.bytes = message;
        self.bytes.push(END);
        self.sent = 0;
        self.descriptors = descriptors;
    }

    /// What is still to go.
    #[must_use]
    pub fn rest(&self) -> (&[u8], &[OwnedFd]) {
        (self.bytes.get(self.sent..).unwrap_or_default(), &self.descriptors)
    }

    /// So many bytes have gone, and with the first of them the descriptors.
    pub fn advance(&mut self, sent: usize) {
        self.sent += sent;
        if sent > 0 {
            self.descriptors.clear();
        }
        if self.sent >= self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Whether all has gone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_one_by_one_however_they_were_cut() {
        let all = b"{\"a\":1}\0{}\0{\"half\"";
        for cut in 1..all.len() {
            let mut incoming = Incoming::default();
            let mut taken = Vec::new();
            for part in all.chunks(cut) {
                incoming.push(part);
                while let Some(message) = incoming.take(100).unwrap() {
                    taken.push(message);
                }
            }
            assert_eq!(taken, [b"{\"a\":1}".to_vec(), b"{}".to_vec()], "in parts of {cut}");
            assert!(!incoming.is_empty());
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_with_and_without_its_end() {
        let mut incoming = Incoming::default();
        incoming.push(&[b'x'; 10]);
        assert_eq!(incoming.take(10), Ok(None));
        incoming.push(b"x");
        assert_eq!(incoming.take(10), Err(TooLong { limit: 10 }));
        let mut incoming = Incoming::default();
        incoming.push(b"xxxxxxxxxxx\0");
        assert_eq!(incoming.take(10), Err(TooLong { limit: 10 }));
        assert_eq!(incoming.take(11).unwrap().unwrap().len(), 11);
    }

    #[test]
    fn descriptors_go_with_the_first_byte_and_only_once() {
        let mut outgoing = Outgoing::default();
        let descriptor = std::fs::File::open("/dev/null").unwrap().into();
        outgoing.put(b"{}".to_vec(), vec![descriptor]);
        assert_eq!(outgoing.rest().1.len(), 1);
        outgoing.advance(0);
        assert_eq!(outgoing.rest().1.len(), 1);
        outgoing.advance(1);
        let (bytes, descriptors) = outgoing.rest();
        assert_eq!((bytes, descriptors.len()), (b"}\0".as_slice(), 0));
        outgoing.advance(2);
        assert!(outgoing.is_empty());
    }
}
