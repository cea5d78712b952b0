// SPDX-License-Identifier: Apache-2.0
//! What a session wants to have, and whether it can.

use std::time::Duration;

use super::coverage::Coverage;
use super::lifecycle::{Lifecycle, StageError};
use super::version::Version;
use crate::event::{Class, ClassSet, EventType};
use crate::grant::{Grant, limits::DEADLINE_MS};

/// One type of event that a session wants to have from now on, in these ways and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// RINGFENCE_PROCESS_EXEC ...
    pub event: u16,
    /// None: it does not want the event any more.
    pub classes: ClassSet,
    /// How long a task is to wait for it at most, if less than its grant says.
    pub deadline: Option<Duration>,
}

/// What a session has of one type of event, as far as its grant goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// None once it was unsubscribed.
    pub classes: ClassSet,
    /// How long a task waits for it at most; zero if it is not asked.
    pub deadline: Duration,
}

/// Why a subscription is refused; nothing of the call has taken effect then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// See the text.
    #[error("there is no event with the number {0}")]
    UnknownEvent(u16),
    /// See the text.
    #[error("{0} comes to every session without a subscription")]
    NotForSubscription(EventType),
    /// See the text.
    #[error("the grant has no {class} for {event}")]
    NotGranted {
        /// Wanted.
        event: EventType,
        /// Wanted.
        class: Class,
    },
    /// See the text.
    #[error("{event} cannot be had: {reason}")]
    Stage {
        /// Wanted.
        event: EventType,
        /// Why not.
        reason: StageError,
    },
    /// See the text.
    #[error("{event} has no {class} on this host: {reason}")]
    Unavailable {
        /// Wanted.
        event: EventType,
        /// Wanted.
        class: Class,
        /// As the host's coverage says.
        reason: String,
    },
    /// See the text.
    #[error("a deadline of {wanted:?} for {event} is not between {least:?} and {most:?}")]
    Deadline {
        /// Wanted.
        event: EventType,
        /// Wanted.
        wanted: Duration,
        /// No deadline is shorter.
        least: Duration,
        /// As the grant says.
        most: Duration,
    },
    /// The session has ended, or was never this client's.
    #[error("there is no such session")]
    NoSession,
}

/// What a subscription is held against.
pub(crate) struct Against<'a> {
    pub(crate) grant: &'a Grant,
    pub(crate) lifecycle: &'a Lifecycle,
    pub(crate) coverage: &'a Coverage,
    pub(crate) session: Version,
    pub(crate) newest: Version,
}

impl Against<'_> {
    pub(crate) fn check(
        &self,
        subscription: &Subscription,
    ) -> Result<(EventType, Wanted), SubscribeError> {
        let event = EventType::from_number(subscription.event)
            .ok_or(SubscribeError::UnknownEvent(subscription.event))?;
        if event.classes().is_empty() {
            return Err(SubscribeError::NotForSubscription(event));
        }
        if subscription.classes.is_empty() {
            return Ok((event, Wanted::default()));
        }
        // The grant first: what somebody may not have, they learn nothing else of.
        for class in subscription.classes.iter() {
            if !self.grant.allows(event, class) {
                return Err(SubscribeError::NotGranted { event, class });
            }
        }
        self.lifecycle
            .check(event, self.session, self.newest, self.grant.draft)
            .map_err(|reason| SubscribeError::Stage { event, reason })?;
        for class in subscription.classes.iter() {
            if let Some(reason) = self.coverage.reason(event, class) {
                let reason = reason.to_owned();
                return Err(SubscribeError::Unavailable { event, class, reason });
            }
        }
        let granted = self.grant.events.get(&event).map_or(Duration::ZERO, |event| event.deadline);
        let mut wanted = Wanted { classes: subscription.classes, deadline: Duration::ZERO };
        if subscription.classes.contains(Class::Ask) {
            wanted.deadline = subscription.deadline.unwrap_or(granted);
            let least = Duration::from_millis(u64::from(DEADLINE_MS.least));
            if wanted.deadline < least || wanted.deadline > granted {
                let (wanted, most) = (wanted.deadline, granted);
                return Err(SubscribeError::Deadline { event, wanted, least, most });
            }
        }
        Ok((event, wanted))
    }
}
