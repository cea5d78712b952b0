// SPDX-License-Identifier: Apache-2.0
//! Answers that came before their question; see the parent module.

use std::collections::VecDeque;

use super::{Answer, Status};
use crate::time::Time;

/// Those of one client, from the earliest.
#[derive(Debug, Default)]
pub(crate) struct Early {
    held: VecDeque<(Time, Answer)>,
}

impl Early {
    /// Holds it until then, if there is room.
    pub(crate) fn hold(&mut self, answer: Answer, until: Time, most: usize) -> Status {
        if self.held.iter().any(|(_, held)| held.event_id == answer.event_id) {
            return Status::AlreadyAnswered;
        }
        if self.held.len() >= most {
            return Status::UnknownEvent;
        }
        self.held.push_back((until, answer));
        Status::Held
    }

    /// The answer to a question that has come.
    pub(crate) fn take(&mut self, event_id: u64) -> Option<Answer> {
        let at = self.held.iter().position(|(_, held)| held.event_id == event_id)?;
        self.held.remove(at).map(|(_, answer)| answer)
    }

    /// The next whose question has not come in time.
    pub(crate) fn expired(&mut self, now: Time) -> Option<Answer> {
        self.held.pop_front_if(|(until, _)| *until <= now).map(|(_, answer)| answer)
    }

    /// When `expired` is to be called.
    pub(crate) fn due(&self) -> Time {
        self.held.front().map_or(Time::NEVER, |(until, _)| *until)
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }
}
