// SPDX-License-Identifier: Apache-2.0
//! Who is a client: grants as they come and go, and what the host can do.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Broker, Order};
use crate::client::Client;
use crate::effect::{Effect, Notice};
use crate::event::{Class, ClassSet, EventType};
use crate::grant::{ClientId, Grant, Grants};
use crate::session::coverage::Coverage;
use crate::session::lifecycle::Lifecycle;
use crate::session::subscription::Wanted;
use crate::slot::Slot;
use crate::time::Time;

/// Which slot a client had, for rules in the kernel that outlived `ringfenced`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its id, as it was.
    pub client: String,
    /// What it had.
    pub slot: Slot,
}

/// What came of new grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Clients that have a slot now and had none before.
    pub new: Vec<(ClientId, Slot)>,
    /// Those for whom there was no slot: there are 64 clients already.
    pub no_slot: Vec<ClientId>,
}

impl Broker {
    /// These grants hold from now on.
    ///
    /// A client keeps its slot, and its session if it is still the same program that may see the
    /// same; what the session has beyond the new grant is taken from it, and it is told. A client
    /// without a grant loses all ([`Effect::Release`]). New clients get the slot that `remembered`
    /// says, if it is free, or any.
    pub fn set_grants(
        &mut self,
        now: Time,
        grants: &Grants,
        remembered: &[Remembered],
        effects: &mut Vec<Effect>,
    ) -> Admitted {
        self.advance(now, effects);
        let mut wanted: BTreeMap<&ClientId, &Grant> =
            grants.by_altitude().into_iter().map(|grant| (&grant.client, grant)).collect();
        for slot in Slot::all() {
            let Some(client) = self.client(slot) else { continue };
            match wanted.remove(&client.grant.client) {
                Some(grant) if *grant == client.grant => {}
                Some(grant) => self.change_grant(slot, grant, effects),
                None => {
                    self.revoke(slot, effects);
                    self.clients[slot.index()] = None;
                    effects.push(Effect::Release { slot });
                }
            }
        }
        let mut admitted = Admitted::default();
        let (had, had_not): (Vec<_>, Vec<_>) = wanted
            .into_values()
            .partition(|grant| remembered.iter().any(|was| was.client == grant.client.as_str()));
        // Who had a slot first, so that nobody else gets it.
        for grant in had.into_iter().chain(had_not) {
            let was = remembered.iter().find(|was| was.client == grant.client.as_str());
            let free = |slot: &Slot| self.clients[slot.index()].is_none();
            let unclaimed = |slot: &Slot| !remembered.iter().any(|was| was.slot == *slot);
            let slot = was
                .map(|was| was.slot)
                .filter(free)
                .or_else(|| Slot::all().filter(free).find(unclaimed))
                .or_else(|| Slot::all().find(free));
            let Some(slot) = slot else {
                admitted.no_slot.push(grant.client.clone());
                continue;
            };
            self.clients[slot.index()] = Some(Box::new(Client::new(grant.clone())));
            admitted.new.push((grant.client.clone(), slot));
        }
        let mut slots: Vec<_> = Slot::all().filter(|slot| self.client(*slot).is_some()).collect();
        slots.sort_by_key(|slot| self.client(*slot).map(|client| Reverse(&client.grant.altitude)));
        self.order = Order::of(&slots);
        Slot::all().for_each(|slot| self.refresh(slot, effects));
        admitted
    }

    fn change_grant(&mut self, slot: Slot, grant: &Grant, effects: &mut Vec<Effect>) {
        let Some(client) = self.client(slot) else { return };
        let same_client = client.grant.identity == grant.identity
            && client.grant.scope == grant.scope
            && client.grant.limits.ring_bytes == grant.limits.ring_bytes;
        if !same_client {
            self.revoke(slot, effects);
        }
        let newest = self.newest();
        let Some(client) = &mut self.clients[slot.index()] else { return };
        client.stale = client.grant.events != grant.events || client.grant.watched != grant.watched;
        client.grant = grant.clone();
        client.shrink_cache(slot, effects);
        let Some(session) = &mut client.session else { return };
        let mut reduced = false;
        for (&event, wanted) in &mut session.wanted {
            let left = still_granted(*wanted, event, grant);
            let version = session.version;
            let stage = self.lifecycle.check(event, version, newest, grant.draft);
            let left = if stage.is_ok() { left } else { Wanted::default() };
            reduced |= left.classes != wanted.classes || left.deadline < wanted.deadline;
            *wanted = left;
        }
        if reduced {
            effects.push(Effect::Tell { slot, notice: Notice::GrantReduced });
        }
    }

    /// Ends the session of a client that may not have it any more.
    fn revoke(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        let Some(session) = self.session(slot) else { return };
        let live = session.is_live();
        self.leave(slot, effects);
        if live {
            effects.push(Effect::Tell { slot, notice: Notice::Revoked });
            effects.push(Effect::Disconnect { slot });
        }
        self.end(slot, effects);
    }

    /// The host can do more or less than before. Subscriptions stay; what cannot be had for now
    /// does not come, and comes again when it can.
    pub fn set_coverage(&mut self, now: Time, coverage: Coverage, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        let before = std::mem::replace(&mut self.coverage, coverage);
        for slot in Slot::all() {
            let Some(session) = self.session(slot) else { continue };
            for (event, _) in session.wanted.iter().filter(|(_, has)| !has.classes.is_empty()) {
                let (event, before) = (*event, before.stage(*event));
                let after = self.coverage.stage(event);
                if before != after {
                    let notice = Notice::StageChanged { event, before, after };
                    effects.push(Effect::Tell { slot, notice });
                }
            }
        }
        // Who has no session can still have rules, or deny by its absence.
        Slot::all().for_each(|slot| self.refresh(slot, effects));
    }

    /// `ringfenced` ends. All questions are settled as the grants declare for that, and sessions
    /// are told; masks stay in the kernel.
    pub fn shut_down(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        self.abandon_all(effects);
        for slot in Slot::all().filter(|slot| self.session(*slot).is_some()) {
            effects.push(Effect::Tell { slot, notice: Notice::Stopping });
        }
    }

    /// The slot of a client by its id.
    #[must_use]
    pub fn slot_of(&self, client: &str) -> Option<Slot> {
        let is_it = |known: &Client| known.grant.client.as_str() == client;
        Slot::all().find(|slot| self.client(*slot).is_some_and(is_it))
    }

    /// What the client of a slot may do.
    #[must_use]
    pub fn grant(&self, slot: Slot) -> Option<&Grant> {
        self.client(slot).map(|client| &client.grant)
    }

    /// What the client of a slot is told of, decides by rules and is asked about.
    #[must_use]
    pub fn masks(&self, slot: Slot) -> Option<&crate::effect::Masks> {
        self.client(slot).map(|client| &client.masks)
    }

    /// How long the client of a slot has for an answer about the event; `None` if it is not asked.
    #[must_use]
    pub fn limit(&self, slot: Slot, event: EventType) -> Option<Duration> {
        self.client(slot)?.limit(event)
    }

    /// What this host can do.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// How far each event has come.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }
}

/// What is left of what a session has under a new grant.
fn still_granted(wanted: Wanted, event: EventType, grant: &Grant) -> Wanted {
    let Some(granted) = grant.events.get(&event) else { return Wanted::default() };
    let classes: ClassSet =
        wanted.classes.iter().filter(|class| granted.classes.contains(*class)).collect();
    let asked = classes.contains(Class::Ask);
    let deadline = if asked { wanted.deadline.min(granted.deadline) } else { Default::default() };
    Wanted { classes, deadline }
}
