// SPDX-License-Identifier: Apache-2.0
//! Sessions: opened, lost, resumed, closed, and what they have.

use super::Broker;
use crate::client::Client;
use crate::effect::Effect;
use crate::event::{EventSet, EventType};
use crate::mute::{MuteError, MuteKind, MuteTarget, Mutes};
use crate::session::subscription::{Against, SubscribeError, Subscription, Wanted};
use crate::session::version::{Version, negotiate};
use crate::session::{Connection, Open, OpenError, Opened, Session, SessionId, SessionScope};
use crate::slot::{ProcessKey, Slot, SlotSet};
use crate::time::Time;

impl Broker {
    /// A client wants a session.
    ///
    /// A new one ends the one that waits to be resumed, if there is one.
    ///
    /// # Errors
    ///
    /// Without a grant, as somebody else, without a common version, while a session is live, or
    /// with a token to resume of none that waits. Nothing changes then.
    pub fn open(
        &mut self,
        now: Time,
        open: &Open<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Opened, OpenError> {
        let now = self.advance(now, effects);
        let slot = self.slot_of(open.client);
        let client = slot.and_then(|slot| Some((slot, self.clients[slot.index()].as_mut()?)));
        let (slot, client) =
            client.ok_or_else(|| OpenError::NoGrant(open.client.chars().take(128).collect()))?;
        client.grant.identity.check(&open.peer)?;
        let waiting = match &client.session {
            Some(session) if session.is_live() => {
                let (client, pid) = (client.grant.client.clone(), session.process.pid);
                return Err(OpenError::AlreadyOpen { client, pid });
            }
            other => other.as_ref(),
        };
        let version = match (open.resume, waiting) {
            (None, _) => negotiate(open.versions, &self.settings.versions)?,
            (Some(token), Some(session)) if session.token == token => session.version,
            (Some(_), _) => return Err(OpenError::NothingToResume),
        };
        if !open.versions.contains(&version) {
            // It came back as another version of itself, to which the old records are unknown.
            return Err(OpenError::NothingToResume);
        }
        if open.resume.is_none() {
            client.end_session(slot, effects);
        }
        self.sessions += 1;
        let id = SessionId { slot, number: self.sessions };
        let scope = SessionScope::new(&client.grant.scope, open.process);
        let before = client.session.take();
        let resumed = before.is_some();
        client.session = Some(Session {
            id,
            token: open.token,
            version,
            process: open.process,
            scope: scope.clone(),
            connection: Connection::Live,
            since: now,
            wanted: before.map(|session| session.wanted).unwrap_or_default(),
        });
        let limits = client.grant.demotion;
        client.demotion.new_session(now, &limits);
        let ring_bytes = client.grant.limits.ring_bytes;
        self.refresh(slot, effects);
        Ok(Opened { id, version, ring_bytes, resumed, scope })
    }

    /// The connection of a session broke. It can be resumed for a while; what it was asked falls
    /// back to what its grant declares. Nothing if it has ended already.
    pub fn disconnect(&mut self, now: Time, id: SessionId, effects: &mut Vec<Effect>) {
        let now = self.advance(now, effects);
        let until = now.after(self.settings.resume_within);
        let Some(client) = self.live(id) else { return };
        if let Some(session) = &mut client.session {
            session.connection = Connection::LostUntil(until);
        }
        self.leave(id.slot, effects);
        if until <= now {
            self.end(id.slot, effects);
        }
        self.refresh(id.slot, effects);
    }

    /// A session is closed for good. What it was asked falls back to what its grant declares for a
    /// client that died: nobody gets out of an answer by closing. Nothing if it has ended already.
    pub fn close(&mut self, now: Time, id: SessionId, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        if self.live(id).is_none() {
            return;
        }
        self.leave(id.slot, effects);
        self.end(id.slot, effects);
        self.refresh(id.slot, effects);
    }

    /// Nobody is at the other end any more.
    pub(super) fn leave(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        self.abandon(slot, effects);
        let now = self.now;
        if let Some(client) = self.client_mut(slot) {
            client.leave(now);
            client.early.clear();
            client.forget_all(slot, effects);
        }
    }

    pub(super) fn end(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        if let Some(client) = self.client_mut(slot) {
            client.end_session(slot, effects);
        }
    }

    /// The session wants other events, or in other ways. All of it takes effect, or nothing.
    ///
    /// A client that has lost `ask` can subscribe to it all the same, and is asked when it gets it
    /// back.
    ///
    /// # Errors
    ///
    /// For the first subscription that its grant, the lifecycle or this host does not have.
    pub fn subscribe(
        &mut self,
        now: Time,
        id: SessionId,
        subscriptions: &[Subscription],
        effects: &mut Vec<Effect>,
    ) -> Result<(), SubscribeError> {
        self.advance(now, effects);
        let newest = self.newest();
        let client = self.clients[id.slot.index()].as_mut();
        let live = |session: &&mut Session| session.id == id && session.is_live();
        let client = client.ok_or(SubscribeError::NoSession)?;
        let session = client.session.as_mut().filter(live).ok_or(SubscribeError::NoSession)?;
        let against = Against {
            grant: &client.grant,
            lifecycle: &self.lifecycle,
            coverage: &self.coverage,
            session: session.version,
            newest,
        };
        let checked: Result<Vec<(EventType, Wanted)>, SubscribeError> =
            subscriptions.iter().map(|subscription| against.check(subscription)).collect();
        session.wanted.extend(checked?);
        self.refresh(id.slot, effects);
        Ok(())
    }

    /// Does not tell the session of these events of this target any more; all types that are muted
    /// for it now.
    ///
    /// # Errors
    ///
    /// If there are as many mutes as its grant allows, or the target is none.
    pub fn mute(
        &mut self,
        id: SessionId,
        target: MuteTarget,
        events: EventSet,
    ) -> Result<EventSet, MuteError> {
        let client = self.live(id).ok_or(MuteError::NoSession)?;
        client.mutes.add(target, events, client.grant.limits.max_muted)
    }

    /// The contrary; the types that are still muted for the target.
    ///
    /// # Errors
    ///
    /// Without a session.
    pub fn unmute(
        &mut self,
        id: SessionId,
        target: &MuteTarget,
        events: EventSet,
    ) -> Result<EventSet, MuteError> {
        let client = self.live(id).ok_or(MuteError::NoSession)?;
        Ok(client.mutes.remove(target, events))
    }

    /// Makes targets of a kind select instead, or mute again.
    ///
    /// # Errors
    ///
    /// Without a session.
    pub fn invert_mutes(
        &mut self,
        id: SessionId,
        kind: MuteKind,
        inverted: bool,
    ) -> Result<(), MuteError> {
        self.live(id).ok_or(MuteError::NoSession)?.mutes.invert(kind, inverted);
        Ok(())
    }

    /// A process has ended, and mutes of it with it: of these clients.
    pub fn process_ended(&mut self, process: ProcessKey) -> SlotSet {
        let mut ended = |slot: &Slot| {
            self.client_mut(*slot).is_some_and(|client| client.mutes.process_ended(process))
        };
        Slot::all().filter(|slot| ended(slot)).collect()
    }

    /// The mutes of a client.
    #[must_use]
    pub fn mutes(&self, slot: Slot) -> Option<&Mutes> {
        self.client(slot).map(|client| &client.mutes)
    }

    /// What the session said of files does not hold any more. False without a session.
    pub fn clear_cache(&mut self, id: SessionId, effects: &mut Vec<Effect>) -> bool {
        let Some(client) = self.live(id) else { return false };
        client.forget_all(id.slot, effects);
        true
    }

    /// The client, if this is its session and somebody is at the other end.
    pub(super) fn live(&mut self, id: SessionId) -> Option<&mut Client> {
        let client = self.client_mut(id.slot)?;
        let session = client.session.as_ref()?;
        (session.id == id && session.is_live()).then_some(client)
    }

    /// The session of a client, live or waiting to be resumed.
    #[must_use]
    pub fn session(&self, slot: Slot) -> Option<&Session> {
        self.client(slot)?.session.as_ref()
    }

    /// Versions that sessions can have.
    #[must_use]
    pub fn versions(&self) -> &[Version] {
        &self.settings.versions
    }
}
