// SPDX-License-Identifier: Apache-2.0
//! What is to be done: all that the broker ever does to the world.

use std::time::Duration;

use crate::event::{EventSet, EventType};
use crate::session::coverage::HostStage;
use crate::slot::{FileKey, Slot};
use crate::time::Time;
use crate::verdict::{Outcome, Part, Status, Verdict, Why};

/// One thing to do, in the order in which it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The client has a part in the question that is open until then. Where the kernel has written
    /// the record already there is nothing to do; otherwise it is to be given to the client now.
    /// Clients with higher altitudes come first.
    Ask {
        /// Who.
        slot: Slot,
        /// Of the question.
        event_id: u64,
        /// An answer before this counts.
        deadline: Time,
    },
    /// The task is to go on. Comes once for each question.
    Settle {
        /// Of the question.
        event_id: u64,
        /// What the task is told.
        outcome: Outcome,
        /// Who decided it; `None` if all allowed.
        by: Option<Slot>,
        /// Why.
        why: Why,
        /// From the question to this.
        took: Duration,
    },
    /// A part is concluded: for the log, and for whoever bills.
    Concluded(Part),
    /// The status of an answer that was held.
    Reply {
        /// Whose answer.
        slot: Slot,
        /// Which it named.
        event_id: u64,
        /// What it gets.
        status: Status,
    },
    /// The client is to be told, in its ring.
    Tell {
        /// Who.
        slot: Slot,
        /// What.
        notice: Notice,
    },
    /// From now on the kernel has these masks for the client, and asks it on the terms of its grant
    /// and for as long as [`crate::Broker::limit`] says.
    Subscribe {
        /// Who.
        slot: Slot,
        /// All of them.
        masks: Masks,
    },
    /// The client need not be asked about the file again: for a cache in the kernel, which may
    /// forget on its own.
    Remember {
        /// Whose verdict.
        slot: Slot,
        /// About what.
        event: EventType,
        /// Of which file.
        file: FileKey,
        /// What it said.
        verdict: Verdict,
    },
    /// What the client said of the file does not hold any more.
    Forget {
        /// Whose verdict.
        slot: Slot,
        /// About what.
        event: EventType,
        /// Of which file.
        file: FileKey,
    },
    /// Nothing that the client said of any file holds any more.
    ForgetAll {
        /// Whose verdicts.
        slot: Slot,
    },
    /// A session has ended for good: its ring and mutes are to be taken away. Its rules stay, as
    /// `masks.rule` says.
    Ended {
        /// Whose.
        slot: Slot,
    },
    /// The connection of the client is to be closed.
    Disconnect {
        /// Whose.
        slot: Slot,
    },
    /// The grant is gone: rules and all else in this slot are to be taken away.
    Release {
        /// Which.
        slot: Slot,
    },
}

/// What the kernel knows of a client: which events reach it and what holds without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// It is told.
    pub notify: EventSet,
    /// Its rules decide.
    pub rule: EventSet,
    /// The broker is asked for it. Not only while it answers itself: also where its grant denies
    /// what happens without it.
    pub ask: EventSet,
    /// To be denied with EPERM while nobody answers for the broker: because it does not come back
    /// to a question, or is not running at all.
    pub deny_when_gone: EventSet,
}

/// What a client is told besides events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `ringfence_deadline_missed`.
    DeadlineMissed {
        /// Which question.
        event_id: u64,
        /// Within the last minute.
        misses: u32,
        /// Whether it is not asked any more.
        demoted: bool,
    },
    /// It is asked again.
    Restored,
    /// `ringfence_stage_changed`.
    StageChanged {
        /// Of which event.
        event: EventType,
        /// What could be had.
        before: HostStage,
        /// What can be had now.
        after: HostStage,
    },
    /// Its grant was changed, and takes something away that it had: see its masks.
    GrantReduced,
    /// `ringfence_shutting_down`, RINGFENCE_SHUTDOWN_STOPPED.
    Stopping,
    /// `ringfence_shutting_down`, RINGFENCE_SHUTDOWN_REVOKED.
    Revoked,
}
