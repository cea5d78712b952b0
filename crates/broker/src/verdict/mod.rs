// SPDX-License-Identifier: Apache-2.0
//! Questions, answers and what comes of them.
//!
//! A task waits at a hook; each client in [`Question::askers`] has a *part* in the question. A part
//! is concluded once: by the client's answer, by what it said earlier of the same file (cache), or
//! by what its grant declares for the case that no answer comes. The question is settled, once, as
//! soon as any part is a deny, or when all parts are allows. Nobody waits for the others after a
//! deny, but their parts stay open until they answer or their own deadlines pass: so what a client
//! misses, caches and costs never depends on how fast another one denies.
//!
//! # What an answer gets
//!
//! | status | when |
//! | --- | --- |
//! | `Accepted` | the part was open, in time, and the question was not settled |
//! | `AlreadyAnswered` | this client has answered before; or its part was concluded without asking it (cache, queue full, lost `ask`); or another client's deny has settled the question. In the last case the answer was in time: it is no miss, it counts in the cost, and it is cached if it says so. It only changes nothing for the task |
//! | `TooLate` | the deadline of this client has passed, or its session ended while it was asked; the declared fallback stands |
//! | `NotAsked` | the question is known, and this client has no part in it |
//! | `UnknownEvent` | no such question, or one that was forgotten since |
//! | `BadError` | a deny with an errno that a caller cannot get; the part is still open |
//! | `Held` | nothing yet: no such question *so far*. See below |
//!
//! # Answers that come before their question
//!
//! The kernel writes the record into the rings and then asks the broker, so a quick client can
//! answer first. Such an answer is held for `Settings::early_within`, at most
//! `Settings::early_max` for each client, and either is taken when the question comes or gets
//! `UnknownEvent` then ([`Effect::Reply`](crate::Effect::Reply)).

pub(crate) mod early;
pub(crate) mod recent;
pub(crate) mod table;

use std::time::Duration;

use crate::event::EventType;
use crate::grant::Fallback;
use crate::slot::{FileKey, ProcessKey, Slot, SlotSet};
use crate::time::Time;

/// A task waits to hear whether it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// `header.event_id`; no other event of this boot has it.
    pub event_id: u64,
    /// When the task asked, which is when its record was written: the question itself comes after it.
    pub time: Time,
    /// What the task is about to do.
    pub event: EventType,
    /// With which file; [`FileKey::is_file`] is false if with none.
    pub file: FileKey,
    /// Who.
    pub process: ProcessKey,
    /// Who is to be asked. The broker knows their altitudes.
    pub askers: SlotSet,
    /// Whether an answer can be kept for this version of the file: not while a write could still
    /// leave the version as it is, which is the time of the last change by the kernel's coarse
    /// clock. So only if that time is more than two ticks ago (20 ms where CONFIG_HZ is 100).
    pub cacheable: bool,
}

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To which question.
    pub event_id: u64,
    /// May it?
    pub verdict: Verdict,
    /// Whether the same is to hold for this type of event with this version of the file, without
    /// asking, as long as the session lasts.
    pub cache: bool,
}

/// May it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As far as this client is concerned.
    Allow,
    /// No, and the caller gets this errno; 0 stands for EPERM.
    Deny {
        /// 0 to [`ERROR_MAX`].
        error: u16,
    },
}

/// EPERM, as a caller gets it where nothing else was said.
pub const EPERM: u16 = 1;

/// The largest errno that user space knows (EHWPOISON, uapi/asm-generic/errno.h). Those above are
/// the kernel's own, such as ERESTARTSYS, and must not reach a caller.
pub const ERROR_MAX: u16 = 133;

/// EINTR, with which nothing is denied: it is what a task gets that is killed while it waits.
pub const INTERRUPTED: u16 = 4;

/// What the task is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may.
    Allow,
    /// It may not, and gets this errno: that of the client with the highest altitude among those
    /// that had denied when the question was settled.
    Deny {
        /// 1 to [`ERROR_MAX`].
        error: u16,
    },
    /// Nobody waits any more; whatever the task is told, it does not come to do what it wanted.
    Cancelled,
}

/// Why a part was concluded, or a question settled, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The client answered.
    Answered,
    /// It had said so earlier of the same file.
    Cached,
    /// A rule of it decided in the kernel, so nobody was asked.
    Rule,
    /// Its deadline passed.
    DeadlineMissed,
    /// It has lost `ask`; as if its deadline had passed.
    Demoted,
    /// It had too many questions open.
    QueueFull,
    /// Its session ended while it was asked.
    ClientDied,
    /// It has no session, or one that has not said yet whether it wants to be asked.
    NotConnected,
    /// Its session does not want to be asked (any more).
    NotSubscribed,
    /// It is the client itself that waits.
    OwnProcess,
    /// `ringfenced` ends.
    RingfencedGone,
    /// The task was killed.
    Cancelled,
    /// There was nobody to ask.
    NobodyAsked,
}

/// What became of a client's part in a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of the question.
    pub event_id: u64,
    /// Of the question.
    pub event: EventType,
    /// Whose.
    pub slot: Slot,
    /// What it came to.
    pub verdict: Verdict,
    /// Why.
    pub why: Why,
    /// From the question to this.
    pub took: Duration,
}

/// What an answer gets; see the table at the top of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It counts.
    Accepted,
    /// There is nothing left to say for this client.
    AlreadyAnswered,
    /// Its time was over.
    TooLate,
    /// Others were asked.
    NotAsked,
    /// No such question.
    UnknownEvent,
    /// The errno is none that a caller can get.
    BadError,
    /// Its question may be on the way.
    Held,
    /// The session has ended.
    NoSession,
}

/// That question was asked already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {0} was asked about already")]
pub struct AskedTwice(pub u64);

impl Verdict {
    /// With EPERM where no errno was said.
    pub(crate) fn normal(self) -> Self {
        match self {
            Self::Deny { error: 0 } => Self::Deny { error: EPERM },
            other => other,
        }
    }

    /// What a caller gets.
    pub(crate) fn error(self) -> Option<u16> {
        match self {
            Self::Allow => None,
            Self::Deny { error } => Some(error),
        }
    }
}

impl From<Fallback> for Verdict {
    fn from(fallback: Fallback) -> Self {
        match fallback {
            Fallback::Allow => Self::Allow,
            Fallback::Deny => Self::Deny { error: EPERM },
        }
    }
}
