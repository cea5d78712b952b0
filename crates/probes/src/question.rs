// SPDX-License-Identifier: Apache-2.0
//! What a thread waits for, whichever mechanism lets it wait: the gate, or fanotify.
//!
//! Whoever decides takes [`Notice`]s from a [`Questions`] and answers each question once, by its
//! [`QuestionId`]. Deadlines are his: a mechanism answers by itself only where the thread is being
//! killed, or where an answer has been missing for far too long.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::ProbeError;

/// A process: no other has the same until the next boot (`struct ringfence_process_key`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Of its thread group, in the initial pid namespace.
    pub pid: u32,
    /// When its first thread started: CLOCK_BOOTTIME, in nanoseconds. From fanotify a multiple of ten
    /// milliseconds, rounded down, because /proc has no more.
    pub start: u64,
}

impl ProcessKey {
    /// The process with this number now. /proc tells its start to ten milliseconds, rounded down.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> Result<Self, ProbeError> {
        crate::gate::process::key(pid)
    }
}

/// A file and what is in it: the key of what was learned of its contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// major << 20 | minor of its file system.
    pub device: u64,
    /// Number of its inode.
    pub inode: u64,
    /// Time of its last change, CLOCK_REALTIME, in nanoseconds.
    pub version: u64,
}

/// A file that changed less than this ago can change again without another time of change: the kernel
/// stamps files by a clock that ticks each 1 to 10 ms, and file systems may have coarser ones.
const STILL_CHANGING: Duration = Duration::from_millis(100);

impl FileKey {
    /// Whether what is learned of the file now can be kept for this key: it is a file, and a further
    /// change would give it another.
    #[must_use]
    pub fn holds(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.checked_sub(Duration::from_nanos(self.version)).unwrap_or_default();
        self.inode != 0 && age >= STILL_CHANGING
    }
}

/// Names a question to the mechanism that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuestionId(pub(crate) u64);

/// A thread waits to be told whether it may go on.
#[derive(Debug)]
pub struct Question {
    /// By which it is answered.
    pub id: QuestionId,
    /// Of the record that tells of it. fanotify's are numbered by this side, from 2⁶³ on.
    pub event_id: u64,
    /// Type of the event, `RINGFENCE_PROCESS_EXEC` and so on.
    pub kind: u32,
    /// Who is asked, as a set of slots.
    pub askers: u64,
    /// When it was asked: CLOCK_BOOTTIME, in nanoseconds.
    pub time: u64,
    /// The process.
    pub process: ProcessKey,
    /// The thread, in the initial pid namespace; 0 from fanotify, which does not tell.
    pub thread: u32,
    /// The file that it is about; zeroes if there is none.
    pub file: FileKey,
    /// That file, open for reading. From fanotify only, which knows the question by it.
    pub descriptor: Option<Arc<OwnedFd>>,
    /// A pidfd of the process. From fanotify only, where the kernel has it.
    pub process_descriptor: Option<OwnedFd>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It goes on.
    Allow,
    /// It is refused with this errno, 1 to 4095. fanotify may have to make EPERM of it.
    Deny(u16),
    /// What was declared for the case that nobody answers.
    FallBack,
}

/// What a mechanism has to say.
#[derive(Debug)]
pub enum Notice {
    /// Answer this.
    Asked(Question),
    /// This needs no answer any more: the thread is being killed, or has waited for too long.
    Withdrawn(QuestionId),
}

/// A mechanism by which threads wait for answers.
pub trait Questions {
    /// Readable when there may be a notice.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// The next notice; none if there is none now.
    ///
    /// # Errors
    /// When the mechanism has come to its end. All that waited goes on as declared.
    fn next(&mut self) -> Result<Option<Notice>, ProbeError>;

    /// Answers a question. One that is not there any more is not an error: it was withdrawn.
    ///
    /// # Errors
    /// When the kernel does not take the answer.
    fn answer(&mut self, id: QuestionId, reply: Reply) -> Result<(), ProbeError>;
}
