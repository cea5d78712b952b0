// SPDX-License-Identifier: Apache-2.0
//! All clients together: one state machine that is told what happens and when, and says what to do.
//!
//! Each method that is given the time first does what has become due since the last one, so it does
//! not matter how late a timer fires: an answer that comes at its deadline or later is late, even
//! if [`Broker::pass`] was not called in between. Time does not run backwards; an earlier time than
//! the last counts as the last.

mod admit;
mod questions;
mod sessions;
mod status;

use std::time::Duration;

pub use admit::{Admitted, Remembered};
pub use status::ClientStatus;

use crate::client::Client;
use crate::effect::{Effect, Notice};
use crate::session::coverage::Coverage;
use crate::session::lifecycle::Lifecycle;
use crate::session::version::Version;
use crate::slot::{SLOTS, Slot};
use crate::time::Time;
use crate::verdict::Status;
use crate::verdict::recent::Recent;
use crate::verdict::table::Table;

/// What holds for all clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Versions of the API that sessions can have; the greatest is the newest.
    pub versions: Vec<Version>,
    /// No task waits longer for any client, whatever its grant says.
    pub longest_deadline: Duration,
    /// How long a session waits for its client to come back; zero: not at all.
    pub resume_within: Duration,
    /// How long an answer is held whose question has not come yet; zero: not at all.
    pub early_within: Duration,
    /// How many of them for each client.
    pub early_most: usize,
    /// Of so many questions that are over it is known who was asked.
    pub remembered_questions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            versions: vec![Version { major: 1, minor: 0 }],
            longest_deadline: Duration::from_secs(10),
            resume_within: Duration::from_secs(30),
            early_within: Duration::from_millis(50),
            early_most: 16,
            remembered_questions: 4096,
        }
    }
}

/// See the module.
pub struct Broker {
    settings: Settings,
    lifecycle: Lifecycle,
    coverage: Coverage,
    now: Time,
    clients: [Option<Box<Client>>; SLOTS],
    order: Order,
    table: Table,
    recent: Recent,
    /// When something of each client is due that is no deadline of a question.
    timers: [Time; SLOTS],
    /// The first of these.
    next_timer: Time,
    /// How many sessions there were, of all clients.
    sessions: u64,
}

/// Slots that have a client, from the highest altitude.
#[derive(Clone, Copy)]
struct Order {
    slots: [Slot; SLOTS],
    count: usize,
}

impl Order {
    fn of(slots: &[Slot]) -> Self {
        let count = slots.len().min(SLOTS);
        let mut order = Self { slots: [Slot::FIRST; SLOTS], count };
        order.slots[..count].copy_from_slice(&slots[..count]);
        order
    }

    fn iter(self) -> impl Iterator<Item = Slot> {
        self.slots.into_iter().take(self.count)
    }

    /// Whether the client is above the other.
    fn is_above(self, slot: Slot, other: Slot) -> bool {
        self.iter().find(|known| *known == slot || *known == other) == Some(slot)
    }
}

impl Broker {
    /// Without clients: see [`Broker::set_grants`].
    #[must_use]
    pub fn new(settings: Settings, lifecycle: Lifecycle, coverage: Coverage) -> Self {
        Self {
            recent: Recent::new(settings.remembered_questions),
            settings,
            lifecycle,
            coverage,
            now: Time::default(),
            clients: std::array::from_fn(|_| None),
            order: Order::of(&[]),
            table: Table::default(),
            timers: [Time::NEVER; SLOTS],
            next_timer: Time::NEVER,
            sessions: 0,
        }
    }

    /// When [`Broker::pass`] is to be called, unless another method is called before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        Some(self.table.due().min(self.next_timer)).filter(|due| *due != Time::NEVER)
    }

    /// Does what has become due.
    pub fn pass(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
    }

    /// The same, and what time it is.
    fn advance(&mut self, now: Time, effects: &mut Vec<Effect>) -> Time {
        self.now = self.now.max(now);
        while let Some(at) = self.table.overdue(self.now) {
            self.expire(at, effects);
        }
        if self.next_timer <= self.now {
            for slot in Slot::all() {
                if self.timers[slot.index()] <= self.now {
                    self.client_is_due(slot, effects);
                }
            }
        }
        self.now
    }

    fn client_is_due(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        let now = self.now;
        if let Some(client) = &mut self.clients[slot.index()] {
            let limits = client.grant.demotion;
            if client.demotion.pass(now, &limits) && client.session.is_some() {
                effects.push(Effect::Tell { slot, notice: Notice::Restored });
            }
            while let Some(answer) = client.early.expired(now) {
                let (event_id, status) = (answer.event_id, Status::UnknownEvent);
                effects.push(Effect::Reply { slot, event_id, status });
            }
            if client.session.as_ref().is_some_and(|session| session.due() <= now) {
                client.end_session(slot, effects);
            }
        }
        self.refresh(slot, effects);
    }

    /// How long a task waits at most for anybody, whatever grants say.
    #[must_use]
    pub fn longest_deadline(&self) -> Duration {
        self.settings.longest_deadline
    }

    fn client(&self, slot: Slot) -> Option<&Client> {
        self.clients[slot.index()].as_deref()
    }

    fn client_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.clients[slot.index()].as_deref_mut()
    }

    /// After anything of a client has changed: what the kernel is to know, and the next timer.
    fn refresh(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        let longest = self.settings.longest_deadline;
        let client = self.clients[slot.index()].as_mut();
        if let Some(masks) = client.and_then(|client| client.refresh(&self.coverage, longest)) {
            effects.push(Effect::Subscribe { slot, masks });
        }
        self.wind(slot);
    }

    /// Sets the timer of a client.
    fn wind(&mut self, slot: Slot) {
        let due = self.client(slot).map_or(Time::NEVER, Client::due);
        let before = std::mem::replace(&mut self.timers[slot.index()], due);
        if due < self.next_timer {
            self.next_timer = due;
        } else if before == self.next_timer {
            self.next_timer = self.timers.iter().copied().min().unwrap_or(Time::NEVER);
        }
    }

    fn newest(&self) -> Version {
        let newest = self.settings.versions.iter().max();
        newest.copied().unwrap_or(Version { major: 0, minor: 0 })
    }
}
