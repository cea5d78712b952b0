// SPDX-License-Identifier: Apache-2.0
//! How far each event has come: requested → evaluated → draft → candidate → stable → deprecated.
//!
//! The table comes from outside (api/lifecycle.toml). A draft may change from one minor version to
//! the next, so a client gets it only if its grant says so and it speaks the newest version: an
//! older one knows another layout.

use std::collections::BTreeMap;

use super::version::Version;
use crate::event::EventType;

/// How far an event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Somebody wants it.
    Requested,
    /// It was accepted, and is not there yet.
    Evaluated,
    /// It is there and can still change.
    Draft,
    /// It is there and changes only if it turns out to be wrong.
    Candidate,
    /// It only grows.
    Stable,
    /// It stays for two minor versions.
    Deprecated,
}

/// What is said of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How far it has come.
    pub stage: Stage,
    /// The first version that has it.
    pub since: Version,
    /// What takes its place, if it is deprecated and something does.
    pub successor: Option<EventType>,
    /// The last version that has it, if it is deprecated.
    pub until: Option<Version>,
}

/// All events of the API and how far each has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    lives: BTreeMap<EventType, Life>,
}

/// Why a session cannot have an event, whatever the host could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// See the text.
    #[error("it is not part of the API yet")]
    NotYet,
    /// See the text.
    #[error("it is a draft, and the grant does not say draft = true")]
    DraftNotGranted,
    /// See the text.
    #[error("it is a draft, which only version {newest} has; the session speaks {session}")]
    DraftNeedsNewest {
        /// Of the server.
        newest: Version,
        /// Of the session.
        session: Version,
    },
    /// See the text.
    #[error("it is there since version {since}; the session speaks {session}")]
    Newer {
        /// Of the event.
        since: Version,
        /// Of the session.
        session: Version,
    },
    /// See the text.
    #[error("it was there until version {until}; the session speaks {session}")]
    Ended {
        /// Of the event.
        until: Version,
        /// Of the session.
        session: Version,
    },
}

impl Lifecycle {
    /// From what is said of each event.
    pub fn new(lives: impl IntoIterator<Item = (EventType, Life)>) -> Self {
        Self { lives: lives.into_iter().collect() }
    }

    /// What is said of the event; `None` if it is not part of the API.
    #[must_use]
    pub fn of(&self, event: EventType) -> Option<&Life> {
        self.lives.get(&event)
    }

    /// Whether a session of this version can have the event.
    pub(crate) fn check(
        &self,
        event: EventType,
        session: Version,
        newest: Version,
        draft_granted: bool,
    ) -> Result<(), StageError> {
        let life = self.of(event).filter(|life| life.stage >= Stage::Draft);
        let life = life.ok_or(StageError::NotYet)?;
        if session < life.since {
            return Err(StageError::Newer { since: life.since, session });
        }
        if let Some(until) = life.until
            && session > until
        {
            return Err(StageError::Ended { until, session });
        }
        if life.stage == Stage::Draft {
            if !draft_granted {
                return Err(StageError::DraftNotGranted);
            }
            if session != newest {
                return Err(StageError::DraftNeedsNewest { newest, session });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: Version = Version { major: 1, minor: 1 };
    const V2: Version = Version { major: 1, minor: 2 };
    const V3: Version = Version { major: 1, minor: 3 };

    fn check(life: Life, session: Version, draft: bool) -> Result<(), StageError> {
        let event = EventType::from_name("process_exec").expect("an event");
        Lifecycle::new([(event, life)]).check(event, session, V3, draft)
    }

    #[test]
    fn a_draft_needs_the_grant_and_the_newest_version() {
        let draft = Life { stage: Stage::Draft, since: V1, successor: None, until: None };
        assert_eq!(check(draft, V3, false), Err(StageError::DraftNotGranted));
        let older = StageError::DraftNeedsNewest { newest: V3, session: V2 };
        assert_eq!(check(draft, V2, true), Err(older));
        assert_eq!(check(draft, V3, true), Ok(()));
    }

    #[test]
    fn an_event_is_there_from_its_first_to_its_last_version() {
        let life = Life { stage: Stage::Deprecated, since: V2, successor: None, until: Some(V2) };
        assert_eq!(check(life, V1, true), Err(StageError::Newer { since: V2, session: V1 }));
        assert_eq!(check(life, V2, false), Ok(()));
        assert_eq!(check(life, V3, true), Err(StageError::Ended { until: V2, session: V3 }));
    }

    #[test]
    fn what_was_only_wished_for_is_not_there() {
        for stage in [Stage::Requested, Stage::Evaluated] {
            let life = Life { stage, since: V1, successor: None, until: None };
            assert_eq!(check(life, V3, true), Err(StageError::NotYet));
        }
        let event = EventType::from_name("process_exec").expect("an event");
        assert_eq!(Lifecycle::default().check(event, V3, V3, true), Err(StageError::NotYet));
    }
}
