// SPDX-License-Identifier: Apache-2.0
//! From a question to its outcome.

use std::time::Duration;

use super::Broker;
use crate::client::Look;
use crate::effect::{Effect, Notice};
use crate::session::SessionId;
use crate::slot::{SLOTS, Slot, SlotSet};
use crate::time::Time;
use crate::verdict::recent::Parts;
use crate::verdict::table::Denied;
use crate::verdict::{
    Answer, AskedTwice, ERROR_MAX, INTERRUPTED, Outcome, Part, Question, Status, Verdict, Why,
};

/// What the parts of a question that were concluded together come to.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// The deny with the highest altitude.
    denied: Option<Denied>,
    /// Why the last one was concluded.
    last: Option<Why>,
}

impl Broker {
    /// A task waits. Emits [`Effect::Settle`] now or later, once.
    ///
    /// # Errors
    ///
    /// If the event was asked about before; nothing happens then.
    pub fn ask(
        &mut self,
        now: Time,
        mut question: Question,
        effects: &mut Vec<Effect>,
    ) -> Result<(), AskedTwice> {
        let now = self.advance(now, effects);
        let event_id = question.event_id;
        if self.table.find(event_id).is_some() || self.recent.get(event_id).is_some() {
            return Err(AskedTwice(event_id));
        }
        let order = self.order;
        let mut known: [Option<(Verdict, Why)>; SLOTS] = [None; SLOTS];
        let mut deadlines = [Time::NEVER; SLOTS];
        let mut asked = SlotSet::EMPTY;
        let mut askers = SlotSet::EMPTY;
        let mut denied = false;
        for slot in order.iter().filter(|slot| question.askers.contains(*slot)) {
            let Some(client) = self.client_mut(slot) else { continue };
            match client.look(&question, now) {
                Look::None => continue,
                Look::Ask(deadline) => {
                    asked.insert(slot);
                    deadlines[slot.index()] = deadline;
                }
                Look::Known(verdict, why) => {
                    denied |= verdict != Verdict::Allow;
                    known[slot.index()] = Some((verdict, why));
                }
            }
            askers.insert(slot);
        }
        question.askers = askers;
        // Who is against it needs nobody else's word: then nobody is asked.
        let asked = if denied { SlotSet::EMPTY } else { asked };
        let mut tally = Tally::default();
        for slot in order.iter() {
            let Some((verdict, why)) = known[slot.index()] else { continue };
            self.conclude(&question, now, slot, verdict, why, &mut tally, effects);
        }
        if asked.is_empty() {
            settle(&question, now, now, tally, effects);
            self.over(event_id, Parts { askers, late: SlotSet::EMPTY }, effects);
            return Ok(());
        }
        let at = self.table.insert(question, now, asked, &deadlines);
        for slot in order.iter().filter(|slot| asked.contains(*slot)) {
            if let Some(client) = self.client_mut(slot) {
                client.pending += 1;
                client.counts.asked += 1;
            }
            let deadline = deadlines[slot.index()];
            effects.push(Effect::Ask { slot, event_id, deadline });
        }
        self.take_early_answers(at, tally, effects);
        Ok(())
    }

    /// Answers that were quicker than their question.
    fn take_early_answers(&mut self, at: usize, mut tally: Tally, effects: &mut Vec<Effect>) {
        let event_id = self.table.get(at).question.event_id;
        let open = self.table.get(at).open;
        let mut any = false;
        for slot in self.order.iter() {
            let held = self.client_mut(slot).and_then(|client| client.early.take(event_id));
            let Some(answer) = held else { continue };
            self.wind(slot);
            let status = if open.contains(slot) {
                any = true;
                self.take_answer(at, slot, &answer, &mut tally, effects)
            } else {
                self.table.get(at).parts().status(slot)
            };
            effects.push(Effect::Reply { slot, event_id, status });
        }
        if any {
            self.finish(at, tally, effects);
        }
    }

    /// A client answers.
    pub fn answer(
        &mut self,
        now: Time,
        session: SessionId,
        answer: Answer,
        effects: &mut Vec<Effect>,
    ) -> Status {
        let now = self.advance(now, effects);
        let slot = session.slot;
        let (within, most) = (self.settings.early_within, self.settings.early_most);
        if self.live(session).is_none() {
            return Status::NoSession;
        }
        let error = answer.verdict.error();
        if error.is_some_and(|error| error > ERROR_MAX || error == INTERRUPTED) {
            return Status::BadError;
        }
        if let Some(at) = self.table.find(answer.event_id) {
            let entry = self.table.get(at);
            if !entry.open.contains(slot) {
                return entry.parts().status(slot);
            }
            let mut tally = Tally::default();
            let status = self.take_answer(at, slot, &answer, &mut tally, effects);
            self.finish(at, tally, effects);
            return status;
        }
        if let Some(parts) = self.recent.get(answer.event_id) {
            return parts.status(slot);
        }
        match self.client_mut(slot) {
            // Only who can be asked at all can be quicker than a question.
            Some(client) if !within.is_zero() && client.masks.ask.0 != 0 => {
                let status = client.early.hold(answer, now.after(within), most);
                self.wind(slot);
                status
            }
            _ => Status::UnknownEvent,
        }
    }

    /// The task does not wait any more: it was killed. Clients can still answer, for their own
    /// sake. False if nobody waited.
    pub fn cancel(&mut self, now: Time, event_id: u64, effects: &mut Vec<Effect>) -> bool {
        let now = self.advance(now, effects);
        let Some(at) = self.table.find(event_id) else { return false };
        let entry = self.table.get_mut(at);
        if entry.settled {
            return false;
        }
        entry.settled = true;
        let took = now.since(entry.asked_at);
        let (outcome, why) = (Outcome::Cancelled, Why::Cancelled);
        effects.push(Effect::Settle { event_id, outcome, by: None, why, took });
        true
    }

    /// There was no room in its ring to ask the client: its part falls back to what is declared for
    /// that. Nothing if it is over already.
    pub fn not_asked(&mut self, now: Time, slot: Slot, event_id: u64, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        let Some(at) = self.table.find(event_id) else { return };
        let entry = self.table.get(at);
        let event = entry.question.event;
        if !entry.open.contains(slot) {
            return;
        }
        let contract = self.client(slot).map(|client| client.contract(event));
        let declared = contract.unwrap_or_default().queue_full;
        let mut tally = Tally::default();
        self.fall_back(at, slot, declared.into(), Why::QueueFull, &mut tally, effects);
        self.finish(at, tally, effects);
    }

    /// An answer of a client whose part is open.
    fn take_answer(
        &mut self,
        at: usize,
        slot: Slot,
        answer: &Answer,
        tally: &mut Tally,
        effects: &mut Vec<Effect>,
    ) -> Status {
        let entry = self.table.get_mut(at);
        let status = if entry.settled { Status::AlreadyAnswered } else { Status::Accepted };
        let (question, asked_at) = (entry.question, entry.asked_at);
        entry.open.remove(slot);
        let verdict = answer.verdict.normal();
        let took = self.now.since(asked_at);
        if let Some(client) = self.client_mut(slot) {
            client.pending = client.pending.saturating_sub(1);
            client.bill(question.event, took, false);
            client.learn(slot, &question, verdict, answer.cache, effects);
        }
        self.conclude(&question, asked_at, slot, verdict, Why::Answered, tally, effects);
        status
    }

    /// What the grant declares takes the place of an answer that will not come any more.
    fn fall_back(
        &mut self,
        at: usize,
        slot: Slot,
        verdict: Verdict,
        why: Why,
        tally: &mut Tally,
        effects: &mut Vec<Effect>,
    ) {
        let entry = self.table.get_mut(at);
        let (question, asked_at) = (entry.question, entry.asked_at);
        entry.open.remove(slot);
        entry.late.insert(slot);
        if let Some(client) = self.client_mut(slot) {
            client.pending = client.pending.saturating_sub(1);
        }
        self.conclude(&question, asked_at, slot, verdict, why, tally, effects);
    }

    /// The first deadline of the entry is over. Those that come later are left for their turn,
    /// even if they are over too: it must not matter how late a timer fires.
    pub(super) fn expire(&mut self, at: usize, effects: &mut Vec<Effect>) {
        let now = self.now;
        let entry = self.table.get(at);
        let overdue = entry.next_parts();
        let question = entry.question;
        let took = now.since(entry.asked_at);
        let mut tally = Tally::default();
        let order = self.order;
        for slot in order.iter().filter(|slot| overdue.contains(*slot)) {
            let contract = self.client(slot).map(|client| client.contract(question.event));
            let declared = contract.unwrap_or_default().deadline_missed;
            self.fall_back(at, slot, declared.into(), Why::DeadlineMissed, &mut tally, effects);
            self.count_miss(slot, &question, took, effects);
        }
        self.finish(at, tally, effects);
    }

    /// What it has for the client itself that it missed a deadline.
    fn count_miss(
        &mut self,
        slot: Slot,
        question: &Question,
        took: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let Some(client) = self.client_mut(slot) else { return };
        client.bill(question.event, took, true);
        client.counts.missed += 1;
        let limits = client.grant.demotion;
        let was_demoted = client.demotion.is_demoted();
        let missed = client.demotion.miss(now, &limits);
        let (event_id, misses, demoted) = (question.event_id, missed.misses, missed.demoted);
        let notice = Notice::DeadlineMissed { event_id, misses, demoted };
        effects.push(Effect::Tell { slot, notice });
        if demoted != was_demoted {
            self.refresh(slot, effects);
        }
    }

    /// The session of the client has ended: its open parts fall back.
    pub(super) fn abandon(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        for at in self.table.with_part_of(slot) {
            let event = self.table.get(at).question.event;
            let Some(client) = self.client_mut(slot) else { return };
            client.counts.died += 1;
            let declared = client.contract(event).client_died;
            let mut tally = Tally::default();
            self.fall_back(at, slot, declared.into(), Why::ClientDied, &mut tally, effects);
            self.finish(at, tally, effects);
        }
    }

    /// `ringfenced` ends: all open parts fall back to what is declared for that.
    pub(super) fn abandon_all(&mut self, effects: &mut Vec<Effect>) {
        let order = self.order;
        for at in self.table.all() {
            let (open, event) = (self.table.get(at).open, self.table.get(at).question.event);
            let mut tally = Tally::default();
            for slot in order.iter().filter(|slot| open.contains(*slot)) {
                let Some(client) = self.client(slot) else { continue };
                let declared = client.contract(event).when_gone();
                self.fall_back(at, slot, declared.into(), Why::RingfencedGone, &mut tally, effects);
            }
            self.finish(at, tally, effects);
        }
    }

    /// A part is concluded.
    #[expect(clippy::too_many_arguments, reason = "all of them are what a part is made of")]
    fn conclude(
        &mut self,
        question: &Question,
        asked_at: Time,
        slot: Slot,
        verdict: Verdict,
        why: Why,
        tally: &mut Tally,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(client) = self.client_mut(slot) {
            match why {
                Why::Cached => client.counts.cached += 1,
                Why::QueueFull => client.counts.queue_full += 1,
                _ => {}
            }
        }
        if let Some(error) = verdict.error() {
            let above = tally.denied.is_none_or(|other| self.order.is_above(slot, other.slot));
            if above {
                tally.denied = Some(Denied { slot, error, why });
            }
        }
        tally.last = Some(why);
        let (event_id, event) = (question.event_id, question.event);
        let took = self.now.since(asked_at);
        effects.push(Effect::Concluded(Part { event_id, event, slot, verdict, why, took }));
    }

    /// After parts of an entry were concluded: tells the task if there is something to tell, and
    /// lets go of the entry with its last part.
    fn finish(&mut self, at: usize, tally: Tally, effects: &mut Vec<Effect>) {
        let now = self.now;
        let entry = self.table.get_mut(at);
        let open = !entry.open.is_empty();
        if !entry.settled && (tally.denied.is_some() || !open) {
            entry.settled = true;
            settle(&entry.question, entry.asked_at, now, tally, effects);
        }
        if open {
            self.table.moved(at);
            return;
        }
        let (event_id, parts) = (entry.question.event_id, entry.parts());
        self.table.remove(at);
        self.recent.push(event_id, parts);
    }

    /// A question is over without ever having been open: answers to it are not early any more.
    fn over(&mut self, event_id: u64, parts: Parts, effects: &mut Vec<Effect>) {
        self.recent.push(event_id, parts);
        for slot in self.order.iter() {
            let held = self.client_mut(slot).and_then(|client| client.early.take(event_id));
            if held.is_some() {
                let status = parts.status(slot);
                effects.push(Effect::Reply { slot, event_id, status });
                self.wind(slot);
            }
        }
    }
}

/// Tells the task.
fn settle(question: &Question, asked_at: Time, now: Time, tally: Tally, effects: &mut Vec<Effect>) {
    let (outcome, by, why) = match tally.denied {
        Some(Denied { slot, error, why }) => (Outcome::Deny { error }, Some(slot), why),
        None => (Outcome::Allow, None, tally.last.unwrap_or(Why::NobodyAsked)),
    };
    let (event_id, took) = (question.event_id, now.since(asked_at));
    effects.push(Effect::Settle { event_id, outcome, by, why, took });
}
