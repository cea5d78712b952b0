// SPDX-License-Identifier: Apache-2.0
//! One client: all that the broker knows of it, and what it has to say of a question before anybody
//! is asked. Nothing here knows of other clients, so nothing that they do can show here.

use std::time::Duration;

use crate::cache::Cache;
use crate::cost::Cost;
use crate::demotion::Demotion;
use crate::effect::{Effect, Masks};
use crate::event::{Class, EventSet, EventType};
use crate::grant::{Absent, Contract, Fallback, Grant};
use crate::mute::Mutes;
use crate::session::Session;
use crate::session::coverage::Coverage;
use crate::slot::Slot;
use crate::time::Time;
use crate::verdict::early::Early;
use crate::verdict::{Question, Verdict, Why};

/// What would be done if this client were to be asked about an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Plan {
    /// It has no part in it.
    #[default]
    None,
    /// It is asked, and has so long.
    Ask(Duration),
    /// It is not asked, for this reason, and this holds.
    Instead(Verdict, Why),
}

/// What a client has to say before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing, and it will not be asked.
    None,
    /// Nothing; it is to be asked, until then.
    Ask(Time),
    /// This.
    Known(Verdict, Why),
}

/// How often what was declared took the place of an answer, since `ringfenced` started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions that it was asked.
    pub asked: u64,
    /// Questions that its cache answered.
    pub cached: u64,
    /// Deadlines that it missed.
    pub missed: u64,
    /// Questions that it was not asked because it had too many open.
    pub queue_full: u64,
    /// Questions that were open as its session ended.
    pub died: u64,
}

/// See the module.
pub(crate) struct Client {
    pub(crate) grant: Grant,
    pub(crate) session: Option<Session>,
    /// As the kernel was last told.
    pub(crate) masks: Masks,
    /// Whether what the kernel was told of the grant is not what it says now.
    pub(crate) stale: bool,
    plans: [Plan; EventSet::SIZE],
    pub(crate) cache: Cache,
    pub(crate) demotion: Demotion,
    pub(crate) costs: Vec<(EventType, Cost)>,
    pub(crate) mutes: Mutes,
    pub(crate) early: Early,
    /// When its last session was left, and what it was asked about until then.
    left: (Time, EventSet),
    /// Open parts.
    pub(crate) pending: u32,
    pub(crate) counts: Counts,
}

impl Client {
    pub(crate) fn new(grant: Grant) -> Self {
        Self {
            cache: Cache::new(grant.limits.max_cached),
            grant,
            session: None,
            masks: Masks::default(),
            stale: false,
            plans: [Plan::None; EventSet::SIZE],
            demotion: Demotion::default(),
            costs: Vec::new(),
            mutes: Mutes::default(),
            early: Early::default(),
            left: (Time::default(), EventSet::default()),
            pending: 0,
            counts: Counts::default(),
        }
    }

    /// What its grant declares for the event.
    pub(crate) fn contract(&self, event: EventType) -> Contract {
        self.grant.events.get(&event).map(|granted| granted.failure).unwrap_or_default()
    }

    /// How long it has for an answer about the event, if it is asked.
    pub(crate) fn limit(&self, event: EventType) -> Option<Duration> {
        match self.plans[event.index()] {
            Plan::Ask(limit) => Some(limit),
            Plan::None | Plan::Instead(..) => None,
        }
    }

    /// When something of it is due that has nothing to do with questions.
    pub(crate) fn due(&self) -> Time {
        let resumable = self.session.as_ref().map_or(Time::NEVER, Session::due);
        self.demotion.due().min(self.early.due()).min(resumable)
    }

    /// Nobody is at the other end any more. What it was told of until now, and is asked about only then,
    /// it dies with.
    pub(crate) fn leave(&mut self, now: Time) {
        let asked = self.grant.events.keys().copied();
        let asked = asked.filter(|event| matches!(self.plans[event.index()], Plan::Ask(_)));
        let asked: EventSet = asked.collect();
        // Who waits to be resumed was left before.
        if asked != EventSet::default() {
            self.left = (now, asked);
        }
    }

    /// What it has to say of a question. Changes which of its cached verdicts was used last, and what is
    /// counted of it.
    pub(crate) fn look(&mut self, question: &Question, now: Time) -> Look {
        let waits_itself = |session: &Session| session.process == question.process;
        let own = self.session.as_ref().is_some_and(waits_itself);
        let (left, asked) = self.left;
        if question.time < left && asked.contains(question.event) {
            self.counts.died += 1;
            let declared = self.contract(question.event).client_died;
            return Look::Known(declared.into(), Why::ClientDied);
        }
        let limit = match self.plans[question.event.index()] {
            Plan::None => return Look::None,
            _ if own => return Look::Known(Verdict::Allow, Why::OwnProcess),
            Plan::Instead(verdict, why) => return Look::Known(verdict, why),
            Plan::Ask(limit) => limit,
        };
        if question.file.is_file()
            && !self.cache.is_empty()
            && let Some(verdict) = self.cache.get(&(question.event, question.file))
        {
            return Look::Known(verdict, Why::Cached);
        }
        if self.pending >= self.grant.limits.max_pending {
            let declared = self.contract(question.event).queue_full;
            return Look::Known(declared.into(), Why::QueueFull);
        }
        Look::Ask(now.after(limit))
    }

    /// What it said of a file, for the next time. Of two answers about the same file the later one
    /// counts, so one that is not to be kept ends what an earlier one said otherwise.
    pub(crate) fn learn(
        &mut self,
        slot: Slot,
        question: &Question,
        verdict: Verdict,
        keep: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !question.file.is_file() || (!keep && self.cache.is_empty()) {
            return;
        }
        let (event, file) = (question.event, question.file);
        let key = (event, file);
        if keep && question.cacheable && self.grant.limits.max_cached > 0 {
            if let Some((event, file)) = self.cache.insert(key, verdict) {
                effects.push(Effect::Forget { slot, event, file });
            }
            effects.push(Effect::Remember { slot, event, file, verdict });
        } else if self.cache.get(&key).is_some_and(|said| said != verdict) {
            self.cache.remove(&key);
            effects.push(Effect::Forget { slot, event, file });
        }
    }

    /// Nothing that it said of files holds any more.
    pub(crate) fn forget_all(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        if self.cache.clear() {
            effects.push(Effect::ForgetAll { slot });
        }
    }

    /// To what its grant says now.
    pub(crate) fn shrink_cache(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        self.cache.set_limit(self.grant.limits.max_cached);
        while let Some((event, file)) = self.cache.evict() {
            effects.push(Effect::Forget { slot, event, file });
        }
    }

    /// Its session is over, if it has one. Nobody must be at the other end any more.
    pub(crate) fn end_session(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        if self.session.take().is_some() {
            self.mutes = Mutes::default();
            effects.push(Effect::Ended { slot });
        }
    }

    /// What an answer or a missed deadline took.
    pub(crate) fn bill(&mut self, event: EventType, took: Duration, missed: bool) {
        let at = self.costs.iter().position(|(known, _)| *known == event);
        let at = at.unwrap_or_else(|| {
            self.costs.push((event, Cost::default()));
            self.costs.len() - 1
        });
        self.costs[at].1.add(took, missed);
    }

    /// Works out what is to be done for each event, after anything that it depends on has changed;
    /// the masks if they, or the terms on which it is asked, are others than the kernel was told.
    pub(crate) fn refresh(&mut self, coverage: &Coverage, longest: Duration) -> Option<Masks> {
        let mut masks = Masks::default();
        let before = std::mem::replace(&mut self.plans, [Plan::None; EventSet::SIZE]);
        let live = self.session.as_ref().is_some_and(Session::is_live);
        for (&event, granted) in &self.grant.events {
            let can = |class| granted.classes.contains(class) && coverage.has(event, class);
            let wanted = self.session.as_ref().and_then(|session| session.wanted.get(&event));
            let wants = |class| wanted.is_some_and(|wanted| wanted.classes.contains(class));
            let failure = &granted.failure;
            masks.notify.set(event, can(Class::Notify) && wants(Class::Notify));
            let lifted = !live && failure.not_connected == Absent::Allow;
            masks.rule.set(event, can(Class::Rule) && !lifted);
            if !can(Class::Ask) {
                continue;
            }
            let plan = match wanted.filter(|_| live) {
                Some(_) if wants(Class::Ask) && self.demotion.is_demoted() => {
                    Plan::Instead(failure.deadline_missed.into(), Why::Demoted)
                }
                Some(wanted) if wants(Class::Ask) => Plan::Ask(wanted.deadline.min(longest)),
                Some(_) => Plan::Instead(Verdict::Allow, Why::NotSubscribed),
                None => Plan::Instead(failure.when_absent().into(), Why::NotConnected),
            };
            self.plans[event.index()] = plan;
            let asks = match plan {
                Plan::None => false,
                Plan::Ask(_) => true,
                Plan::Instead(verdict, _) => verdict != Verdict::Allow,
            };
            masks.ask.set(event, asks);
            let decides = !matches!(plan, Plan::Instead(_, Why::NotSubscribed));
            masks.deny_when_gone.set(event, decides && failure.when_gone() == Fallback::Deny);
        }
        let stale = std::mem::take(&mut self.stale);
        let changed = masks != self.masks || before != self.plans || stale;
        self.masks = masks;
        changed.then_some(masks)
    }
}
