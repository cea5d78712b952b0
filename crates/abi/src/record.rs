// SPDX-License-Identifier: Apache-2.0
//! A record out of bytes of others: everything is checked once, here, so that all else is plain
//! access.

use thiserror::Error;
use zerocopy::FromBytes;

use crate::constants::{ABI, FLAG_KERNEL_ACTOR, RECORD_MAX};
use crate::event::Event;
use crate::names::{Class, Classes, EventType, Outcome};
use crate::structures::{Actor, Header, StringRef};
use crate::view::text;

/// Where the actor begins: the header does not grow.
pub(crate) const ACTOR: usize = size_of::<Header>();
/// Where the event's own part begins at the earliest: the actor may be longer than this, never
/// shorter.
pub(crate) const BODY: usize = ACTOR + size_of::<Actor>();

/// One record, in place. It is valid as a whole: parts lie within it, strings within its tail.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    actor: &'a Actor,
    event: Event<'a>,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// Not even a header and an actor.
    #[error("{length} bytes are too few for a record: its header and actor alone take {BODY}")]
    TooShort {
        /// How many bytes there were.
        length: usize,
    },
    /// It does not begin at an address that is a multiple of 8.
    #[error("a record must lie at an address that is a multiple of 8; copy it to one that is")]
    Unaligned,
    /// Not the size that it says.
    #[error("the record says that it has {says} bytes, but there are {length}")]
    SizeDiffers {
        /// `header.size`.
        says: u32,
        /// How many bytes there were.
        length: usize,
    },
    /// Longer than any may be, or of a size that is no multiple of 8.
    #[error("no record has {says} bytes: sizes are multiples of 8 up to {RECORD_MAX}")]
    ImpossibleSize {
        /// `header.size`.
        says: u32,
    },
    /// Made by another version of the ABI.
    #[error("the record is of version {version} of the ABI; this program knows version {ABI}")]
    Version {
        /// `header.version`.
        version: u16,
    },
    /// The event's own part begins within the actor, out of step, or beyond the end.
    #[error("the event's own part cannot begin at byte {body} of a record of {size} bytes")]
    Body {
        /// `header.body`.
        body: u16,
        /// `header.size`.
        size: u32,
    },
    /// The tail begins before the event's own part or beyond the end.
    #[error(
        "the tail cannot begin at byte {tail} of a record of {size} bytes with its body at {body}"
    )]
    Tail {
        /// `header.tail`.
        tail: u16,
        /// `header.body`.
        body: u16,
        /// `header.size`.
        size: u32,
    },
    /// The event's own part is shorter than it ever was.
    #[error("the part of {event} has {length} bytes here, and {needed} in every version of it")]
    PartTooShort {
        /// Which event.
        event: EventType,
        /// How many bytes there are for it.
        length: usize,
        /// How many it has at least.
        needed: usize,
    },
    /// A string that is not in the tail.
    #[error(
        "the string `{field}` at byte {offset}, {length} long, is not in the tail, which is from {tail} to {size}"
    )]
    String {
        /// Which field refers to it.
        field: &'static str,
        /// Where it is said to begin.
        offset: u32,
        /// How long it is said to be.
        length: u16,
        /// Where the tail begins.
        tail: usize,
        /// Where it ends.
        size: usize,
    },
}

/// What is known of a record before its event is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    /// From the start of the event's own part to the start of the tail, or to the end of the record
    /// where it does not say where the tail begins.
    pub(crate) part: &'a [u8],
    /// Where the tail begins; `None` if the record does not say.
    pub(crate) tail: Option<usize>,
}

impl Frame<'_> {
    /// Whether a reference leads to nothing, or into the tail, which begins at `tail`.
    pub(crate) fn check(
        &self,
        field: &'static str,
        string: StringRef,
        tail: usize,
    ) -> Result<(), RecordError> {
        let StringRef { offset, length, .. } = string;
        let begin = offset as usize;
        let fits = begin >= tail && begin + usize::from(length) <= self.bytes.len();
        if fits || (offset == 0 && length == 0) {
            return Ok(());
        }
        Err(RecordError::String { field, offset, length, tail, size: self.bytes.len() })
    }
}

impl<'a> Record<'a> {
    /// The record that these bytes are, neither more nor less. Nothing is copied and nothing
    /// allocated.
    ///
    /// A type that has no name here is no error, and neither is a part that is longer than known:
    /// both were made by somebody newer.
    ///
    /// # Errors
    ///
    /// What is wrong with it: see [`RecordError`]. A record with an error is to be skipped as a
    /// whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let length = bytes.len();
        if length < BODY {
            return Err(RecordError::TooShort { length });
        }
        if !bytes.as_ptr().addr().is_multiple_of(align_of::<Header>()) {
            return Err(RecordError::Unaligned);
        }
        let short = RecordError::TooShort { length };
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| short)?;
        let (actor, _) = Actor::ref_from_prefix(rest).map_err(|_| short)?;
        let Header { size, version, body, tail, .. } = *header;
        if size as usize != length {
            return Err(RecordError::SizeDiffers { says: size, length });
        }
        if !size.is_multiple_of(8) || length > RECORD_MAX {
            return Err(RecordError::ImpossibleSize { says: size });
        }
        if version != ABI {
            return Err(RecordError::Version { version });
        }
        let begin = usize::from(body);
        if begin < BODY || begin > length || !body.is_multiple_of(8) {
            return Err(RecordError::Body { body, size });
        }
        let said = (tail != 0).then_some(usize::from(tail));
        let end = said.unwrap_or(length);
        let part = bytes.get(begin..end).ok_or(RecordError::Tail { tail, body, size })?;
        let frame = Frame { bytes, part, tail: said };
        let (event, tail) = Event::decode(header.r#type, frame)?;
        frame.check("actor.executable.path", actor.executable.path, tail)?;
        Ok(Self { bytes, header, actor, event })
    }

    /// The first of several records that follow each other, as in a recording, and what follows it.
    ///
    /// # Errors
    ///
    /// As [`Record::parse`]. `None` at the end.
    pub fn parse_first(bytes: &'a [u8]) -> Option<Result<(Self, &'a [u8]), RecordError>> {
        let size = bytes.first_chunk().map(|size| u32::from_le_bytes(*size) as usize);
        let first = match size.and_then(|size| bytes.split_at_checked(size)) {
            Some((record, rest)) => Self::parse(record).map(|record| (record, rest)),
            None if bytes.is_empty() => return None,
            None => Self::parse(bytes).map(|record| (record, &bytes[..0])),
        };
        Some(first)
    }

    /// The whole record, as it came.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What every record begins with.
    pub fn header(&self) -> &'a Header {
        self.header
    }

    /// Who did it. `None` where nobody did: the session's own events, findings of the guard.
    pub fn actor(&self) -> Option<&'a Actor> {
        let somebody = self.actor.process.pid != 0 || self.header.flags & FLAG_KERNEL_ACTOR != 0;
        somebody.then_some(self.actor)
    }

    /// The path of what the actor runs; empty if it is not known.
    pub fn executable_path(&self) -> &'a [u8] {
        self.text(self.actor.executable.path)
    }

    /// What was done.
    pub fn event(&self) -> Event<'a> {
        self.event
    }

    /// The type of the event, if it has a name here.
    pub fn event_type(&self) -> Option<EventType> {
        EventType::from_number(self.header.r#type)
    }

    /// Why it was sent.
    pub fn classes(&self) -> Classes {
        Classes(self.header.classes)
    }

    /// Whether a task waits for this client's verdict.
    pub fn is_ask(&self) -> bool {
        self.classes().contains(Class::Ask)
    }

    /// What became of the event. `None` for a number that has no name here.
    pub fn outcome(&self) -> Option<Outcome> {
        Outcome::from_number(self.header.outcome)
    }

    /// The bytes that a reference stands for; empty where there is nothing. References of this
    /// record always lead into it; one that does not gives nothing.
    pub fn text(&self, string: StringRef) -> &'a [u8] {
        text(self.bytes, string)
    }
}
