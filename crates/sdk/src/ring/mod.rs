// SPDX-License-Identifier: Apache-2.0
//! A client's ring, read in place.
//!
//! A ring is all that a client needs to see events: the kernel writes, the client reads, nobody stands
//! in between. The reader neither copies nor allocates. It gives a record out as a view into the ring,
//! and gives the place back to the kernel when the next one is asked for.
//!
//! Nothing in the ring is trusted. A length that cannot be is an error and not a read beyond the ring,
//! even though only the kernel writes there: a ring in a file (see [`crate::simulated`]) can hold
//! anything.
//!
//! # Numbers and gaps
//!
//! The kernel does not number records. Their order in the ring is their order, and each says how many
//! this client had lost by then; so a record's number is its place plus the largest such count so far
//! (`api/ringfence.h`). Between two records that were lost in between, numbers differ by more than 1,
//! and [`Received::missed`] is by how much.

mod mapping;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use abi::{Record, RecordError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use mapping::{ENTRY_HEADER, Mapping};

/// The entry is not finished (`BPF_RINGBUF_BUSY_BIT`, uapi/linux/bpf.h, 5.8).
pub(crate) const BUSY: u32 = 1 << 31;
/// The entry is to be skipped (`BPF_RINGBUF_DISCARD_BIT`).
pub(crate) const DISCARD: u32 = 1 << 30;

/// How long to wait before looking again where the kernel says that there is something and there is
/// nothing yet: an entry that is being written.
const NOT_YET: Duration = Duration::from_millis(1);

/// Why a ring cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RingError {
    /// The system refused.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The descriptor is that of something else.
    #[error("the descriptor is not that of a ring: it is {reason}")]
    NotARing {
        /// What it is.
        reason: String,
    },
    /// What is in the ring cannot be. It stays so.
    #[error("the ring is damaged at position {position}, {what}: nothing more can be read from it")]
    Damaged {
        /// Where, in bytes since the ring was made.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// One record cannot be decoded. It counts, and the next one can be read.
    #[error("record {sequence} cannot be decoded")]
    Record {
        /// Its number.
        sequence: u64,
        /// What is wrong with it.
        source: RecordError,
    },
}

/// A record as it lies in the ring.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The record.
    pub record: Record<'a>,
    /// Its number in the client's stream, from 0, those counted that were lost.
    pub sequence: u64,
    /// How many records were lost right before this one.
    pub missed: u64,
}

/// Why [`Ring::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// [`Ring::next`] has a record to give, or an error.
    Ready,
    /// The time is over.
    TimedOut,
    /// The other descriptor was hung up, and the ring is empty.
    HungUp,
}

/// What an entry takes in the ring, its own header included.
fn whole(length: u32) -> u64 {
    (u64::from(length) + ENTRY_HEADER).next_multiple_of(8)
}

/// The ring of a client. It has one reader: a second one that maps the same ring gives back what the
/// first still looks at.
#[derive(Debug)]
pub struct Ring {
    mapping: Mapping,
    /// Where the next entry begins.
    position: u64,
    /// What the producer has been told.
    given_back: u64,
    /// Where the producer was last seen.
    produced: u64,
    /// How many records came.
    place: u64,
    /// The largest count of lost ones.
    lost: u64,
}

impl Ring {
    /// Maps a ring by its descriptor, which must be that of a BPF ring buffer, or of a file laid out
    /// as one that is sealed against being shortened.
    ///
    /// # Errors
    ///
    /// [`RingError::Io`] and [`RingError::NotARing`].
    pub fn new(descriptor: OwnedFd) -> Result<Self, RingError> {
        let mapping = Mapping::of(descriptor)?;
        let position = mapping.consumer_position();
        if !position.is_multiple_of(8) {
            let what = "where no entry can begin";
            return Err(RingError::Damaged { position, what });
        }
        Ok(Self { mapping, position, given_back: position, produced: position, place: 0, lost: 0 })
    }

    /// Of the data, in bytes.
    pub fn size(&self) -> u64 {
        self.mapping.size()
    }

    /// The next record, or `None` if there is none yet. Asking for it gives the place of the one
    /// before back to the kernel.
    ///
    /// # Errors
    ///
    /// [`RingError::Record`] for a record that cannot be decoded; the one after it can be asked for.
    /// [`RingError::Damaged`] if the ring itself cannot be read any further.
    #[allow(clippy::should_implement_trait, reason = "what is given out borrows the ring")]
    pub fn next(&mut self) -> Result<Option<Received<'_>>, RingError> {
        let Some(length) = self.settle()? else { return Ok(None) };
        let position = self.position;
        self.position = position.wrapping_add(whole(length));
        let bytes = self.mapping.bytes(position.wrapping_add(ENTRY_HEADER), length as usize);
        let parsed = Record::parse(bytes);
        let known = self.lost;
        if let Ok(record) = &parsed {
            self.lost = known.max(record.header().lost);
        }
        let sequence = self.place.saturating_add(self.lost);
        self.place += 1;
        match parsed {
            Ok(record) => Ok(Some(Received { record, sequence, missed: self.lost - known })),
            Err(source) => Err(RingError::Record { sequence, source }),
        }
    }

    /// How many records came, and how many were lost by the account of the last that came.
    pub fn counts(&self) -> (u64, u64) {
        (self.place, self.lost)
    }

    /// Gives back what was given out before, goes past discarded entries, and says how long the entry
    /// is that comes next, if it is finished.
    fn settle(&mut self) -> Result<Option<u32>, RingError> {
        loop {
            self.give_back();
            let position = self.position;
            let damaged = |what| Err(RingError::Damaged { position, what });
            if position == self.produced {
                let produced = self.mapping.producer_position();
                if produced.wrapping_sub(position) > self.mapping.size() {
                    return damaged("where the producer has gone astray");
                }
                self.produced = produced;
                if position == produced {
                    return Ok(None);
                }
            }
            let word = self.mapping.length_word(position);
            if word & BUSY != 0 {
                return Ok(None);
            }
            let length = word & !DISCARD;
            if whole(length) > self.produced.wrapping_sub(position) {
                return damaged("where an entry is longer than what was written");
            }
            if word & DISCARD == 0 {
                return Ok(Some(length));
            }
            self.position = position.wrapping_add(whole(length));
        }
    }

    fn give_back(&mut self) {
        if self.given_back != self.position {
            self.mapping.set_consumer_position(self.position);
            self.given_back = self.position;
        }
    }

    /// Whether [`Ring::next`] has a record to give, or an error.
    fn is_ready(&mut self) -> bool {
        !matches!(self.settle(), Ok(None))
    }

    /// Waits for a record, for as long as the time says, or without end. Another descriptor can be
    /// watched for being hung up meanwhile; what is in the ring comes first.
    ///
    /// Gives the place of the last record back.
    ///
    /// # Errors
    ///
    /// [`RingError::Io`].
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<Waited, RingError> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut hung_up = false;
        loop {
            if self.is_ready() {
                return Ok(Waited::Ready);
            }
            if hung_up {
                return Ok(Waited::HungUp);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Waited::TimedOut);
            }
            let (told, closed) = self.poll(left, other)?;
            hung_up = closed;
            if told && !closed && !self.is_ready() {
                std::thread::sleep(left.map_or(NOT_YET, |left| left.min(NOT_YET)));
            }
        }
    }

    /// Whether the ring is said to be readable, and the other descriptor to be hung up.
    fn poll(
        &self,
        timeout: Option<Duration>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<(bool, bool), RingError> {
        // A time that is too long for the kernel is as good as none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let ring = PollFd::new(&self.mapping, PollFlags::IN);
        let mut all = [ring.clone(), ring];
        let watched = match other {
            Some(other) => {
                all[1] = PollFd::from_borrowed_fd(other, PollFlags::RDHUP);
                &mut all[..]
            }
            None => &mut all[..1],
        };
        match poll(watched, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            Err(error) => {
                return Err(RingError::Io { what: "wait for the ring", source: error.into() });
            }
        }
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let hung_up = watched.get(1).is_some_and(|other| other.revents().intersects(gone));
        let told = watched.first().is_some_and(|ring| !ring.revents().is_empty());
        Ok((told, hung_up))
    }
}

impl AsFd for Ring {
    /// To be polled with other descriptors: readable when there is an entry.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mapping.as_fd()
    }
}
