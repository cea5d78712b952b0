// SPDX-License-Identifier: Apache-2.0
//! Records made in user space: those that the daemon sends of its own (loss, deadlines, findings), and
//! those of tests.

use zerocopy::{FromZeros, IntoBytes};

use crate::constants::{
    ABI, ARGUMENTS_MAX, FLAG_TRUNCATED, PATH_MAX, RECORD_MAX, STRING_TRUNCATED,
};
use crate::event::Part;
use crate::names::EventType;
use crate::record::{BODY, Record, RecordError};
use crate::structures::{Actor, Header, StringRef};

/// Puts a record together. Fill in `header`, `actor` and `part`; strings are added first, by
/// [`RecordBuilder::text`] and its relatives, and give what their fields are to hold. Sizes, offsets
/// and the type are seen to by [`RecordBuilder::finish`].
#[derive(Clone, Debug)]
pub struct RecordBuilder<T> {
    /// What the record begins with.
    pub header: Header,
    /// Who did it; all zero for nobody.
    pub actor: Actor,
    /// The event's own part.
    pub part: T,
    event_type: u16,
    tail: Vec<u8>,
}

impl<T: Part> RecordBuilder<T> {
    const TAIL: usize = BODY + size_of::<T>();

    /// A record of this type, all else zero. The caller sees to it that the type has this part.
    pub fn new(event: EventType) -> Self {
        Self {
            header: Header::new_zeroed(),
            actor: Actor::new_zeroed(),
            part: T::new_zeroed(),
            event_type: event.number(),
            tail: Vec::new(),
        }
    }

    /// Adds a string. What is longer than [`PATH_MAX`], or than there is room for, is truncated at
    /// its end and says so.
    pub fn text(&mut self, text: &[u8]) -> StringRef {
        let kept = text.len().min(self.room(PATH_MAX));
        self.append(&text[..kept], kept < text.len())
    }

    /// Adds a string of any length for which there is room: a finding.
    pub fn long_text(&mut self, text: &[u8]) -> StringRef {
        let kept = text.len().min(self.room(usize::from(u16::MAX)));
        self.append(&text[..kept], kept < text.len())
    }

    /// Adds a path; it is truncated at its beginning, as its end says more.
    pub fn path(&mut self, path: &[u8]) -> StringRef {
        let kept = path.len().min(self.room(PATH_MAX));
        self.append(&path[path.len() - kept..], kept < path.len())
    }

    /// Adds a list of arguments, each with a zero at its end.
    pub fn arguments<'b>(&mut self, arguments: impl IntoIterator<Item = &'b [u8]>) -> StringRef {
        let mut list = Vec::new();
        for argument in arguments {
            list.extend_from_slice(argument);
            list.push(0);
        }
        let kept = list.len().min(self.room(ARGUMENTS_MAX));
        self.append(&list[..kept], kept < list.len())
    }

    fn room(&self, longest: usize) -> usize {
        (RECORD_MAX - Self::TAIL - self.tail.len()).min(longest)
    }

    /// `bytes` have been cut to the room that there is, which is far less than 64 KiB.
    fn append(&mut self, bytes: &[u8], truncated: bool) -> StringRef {
        let flags = if truncated { STRING_TRUNCATED } else { 0 };
        if truncated {
            self.header.flags |= FLAG_TRUNCATED;
        }
        if bytes.is_empty() {
            return StringRef { offset: 0, length: 0, flags };
        }
        let offset = (Self::TAIL + self.tail.len()) as u32;
        self.tail.extend_from_slice(bytes);
        StringRef { offset, length: bytes.len() as u16, flags }
    }

    /// The record.
    pub fn finish(mut self) -> RecordBuffer {
        let size = (Self::TAIL + self.tail.len()).next_multiple_of(8);
        self.header.size = size as u32;
        self.header.version = ABI;
        self.header.r#type = self.event_type;
        self.header.body = BODY as u16;
        self.header.tail = Self::TAIL as u16;
        let mut words = vec![0_u64; size / 8];
        let parts =
            [self.header.as_bytes(), self.actor.as_bytes(), self.part.as_bytes(), &self.tail];
        let mut left = words.as_mut_bytes();
        for part in parts {
            let (place, rest) = left.split_at_mut(part.len());
            place.copy_from_slice(part);
            left = rest;
        }
        RecordBuffer { words }
    }
}

/// A record of one's own, aligned as a record must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBuffer {
    words: Vec<u64>,
}

impl RecordBuffer {
    /// Copies a record to where it is aligned: from a file, or a socket. Bytes that are missing to a
    /// multiple of 8 are zero.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Self { words }
    }

    /// The record, as it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        self.words.as_bytes()
    }

    /// The same bytes, to be changed.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.words.as_mut_bytes()
    }

    /// The record, decoded.
    ///
    /// # Errors
    ///
    /// As [`Record::parse`]: only for what was copied or changed.
    pub fn record(&self) -> Result<Record<'_>, RecordError> {
        Record::parse(self.as_bytes())
    }
}

impl AsRef<[u8]> for RecordBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}
