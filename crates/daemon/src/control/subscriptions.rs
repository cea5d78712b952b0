// SPDX-License-Identifier: Apache-2.0
//! Methods for what a session has: Subscribe, Unsubscribe, ListSubscriptions.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::event::{Class, ClassSet, EventType};
use broker::session::subscription::{SubscribeError, Subscription};
use serde::{Deserialize, Serialize};

use super::types::{Done, HeldEvent, NamedEvent, Nothing};
use super::{Answer, Caller, Control, ControlError, parameters, reply};
use crate::clock;
use crate::kernel::Kernel;
use crate::varlink::Call;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    subscriptions: Vec<NamedEvent>,
}

impl Named {
    fn parse(self) -> Result<Vec<Subscription>, ControlError> {
        let limit = EVENTS_MAX as u64;
        if self.subscriptions.len() > EVENTS_MAX {
            return Err(ControlError::LimitExceeded { what: "events in one call", limit });
        }
        self.subscriptions.iter().map(NamedEvent::parse).collect()
    }
}

#[derive(Serialize)]
struct Held {
    subscriptions: Vec<HeldEvent>,
}

/// One for each event that there can be.
const EVENTS_MAX: usize = 64;

impl<K: Kernel> Control<K> {
    pub(super) fn subscribe(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let slot = self.sessions.of(caller.connection)?.slot;
        let more = parameters::<Named>(call)?.parse()?;
        let before = self.is_told_of_findings(slot);
        let done =
            self.change(caller, &more, |had, named| had.iter().chain(named.iter()).collect())?;
        if !before && self.is_told_of_findings(slot) {
            self.tell_standing(slot);
        }
        Ok(done)
    }

    pub(super) fn unsubscribe(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        self.sessions.of(caller.connection)?;
        let less = parameters::<Named>(call)?.parse()?;
        let rest = |had: ClassSet, named: ClassSet| {
            had.iter().filter(|class| !named.contains(*class)).collect()
        };
        self.change(caller, &less, rest)
    }

    /// Has the session have of each named event what `of` makes of the classes that it had and those
    /// that are named. To the broker all classes of an event are said at once.
    fn change(
        &mut self,
        caller: &Caller<'_>,
        named: &[Subscription],
        of: impl Fn(ClassSet, ClassSet) -> ClassSet,
    ) -> Result<Answer, ControlError> {
        let session = self.sessions.of(caller.connection)?;
        let (id, slot) = (session.id, session.slot);
        let mut wanted: BTreeMap<u16, Subscription> = BTreeMap::new();
        for (event, classes, deadline) in self.held(slot) {
            let deadline = (!deadline.is_zero()).then_some(deadline);
            let event = event.number();
            wanted.insert(event, Subscription { event, classes, deadline });
        }
        for named in named {
            let nothing = Subscription { classes: ClassSet::EMPTY, ..*named };
            let entry = wanted.entry(named.event).or_insert(nothing);
            entry.classes = of(entry.classes, named.classes);
            entry.deadline = named.deadline.or(entry.deadline);
        }
        let changed: Vec<Subscription> = named
            .iter()
            .filter_map(|named| wanted.remove(&named.event))
            .map(|wanted| Subscription {
                deadline: wanted.deadline.filter(|_| wanted.classes.contains(Class::Ask)),
                ..wanted
            })
            .collect();
        let mut effects = Vec::new();
        self.broker.subscribe(clock::now(), id, &changed, &mut effects).map_err(refused)?;
        self.carry_out(effects)?;
        reply(&Done {})
    }

    pub(super) fn list_subscriptions(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        let slot = self.sessions.of(caller.connection)?.slot;
        let subscriptions = self.held(slot).into_iter();
        let subscriptions = subscriptions
            .map(|(event, classes, deadline)| HeldEvent::new(event, classes, deadline));
        reply(&Held { subscriptions: subscriptions.collect() })
    }

    /// What the session in the slot has: events with at least one class.
    pub(super) fn held(&self, slot: broker::slot::Slot) -> Vec<(EventType, ClassSet, Duration)> {
        let Some(session) = self.broker.session(slot) else { return Vec::new() };
        let had = session.wanted.iter().filter(|(_, wanted)| !wanted.classes.is_empty());
        had.map(|(event, wanted)| (*event, wanted.classes, wanted.deadline)).collect()
    }
}

/// The broker's refusal as the interface has it.
fn refused(error: SubscribeError) -> ControlError {
    let words = error.to_string();
    match error {
        SubscribeError::NotGranted { event, class } => {
            let (event, class) = (event.name(), class.name());
            ControlError::NotGranted { event, class, reason: words }
        }
        SubscribeError::Unavailable { event, class, reason } => {
            let (event, class) = (event.name(), class.name());
            ControlError::EventUnavailable { event, class, reason }
        }
        SubscribeError::Stage { event, reason } => {
            let (event, reason) = (event.name(), reason.to_string());
            ControlError::NotGranted { event, class: "notify", reason }
        }
        SubscribeError::Deadline { .. } => ControlError::invalid("deadline", words),
        SubscribeError::NotForSubscription(_) | SubscribeError::UnknownEvent(_) => {
            ControlError::invalid("event", words)
        }
        SubscribeError::NoSession => ControlError::NoSession {},
    }
}
