// SPDX-License-Identifier: Apache-2.0
//! What the broker wants done, done; and the records that the daemon itself writes.

use std::collections::BTreeMap;

use abi::{DeadlineMissed, EventType, RecordBuffer, RecordBuilder, ShuttingDown, StageChanged};
use abi::{SHUTDOWN_REVOKED, SHUTDOWN_STOPPED};
use broker::effect::{Effect, Masks, Notice};
use broker::event::EventType as Event;
use broker::grant::Fallback;
use broker::session::coverage::HostStage;
use broker::slot::Slot;
use broker::verdict::Verdict;

use super::start::refusal;
use super::{ConnectionId, Control};
use crate::clock;
use crate::kernel::{Kernel, KernelError, Terms};
use crate::log;
use crate::verdicts::Refused;

impl<K: Kernel> Control<K> {
    /// Does what is to be done, in its order. What the kernel refuses does not keep the rest from
    /// being done; the first refusal is given back.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), KernelError> {
        let mut first = Ok(());
        for effect in effects {
            let done = self.carry_out_one(effect);
            if first.is_ok() {
                first = done;
            } else if let Err(error) = done {
                log::error(&error);
            }
        }
        first
    }

    fn carry_out_one(&mut self, effect: Effect) -> Result<(), KernelError> {
        match effect {
            Effect::Subscribe { slot, masks } => self.change_masks(slot, &masks),
            Effect::Tell { slot, notice } => self.tell(slot, notice),
            Effect::Ended { slot } => {
                let ended = self.end(slot);
                // What its grant declares for when it is gone.
                let masks = self.broker.masks(slot).copied();
                ended.and(masks.map_or(Ok(()), |masks| self.change_masks(slot, &masks)))
            }
            Effect::Release { slot } => {
                let removed = self.remove_rules(slot);
                let ended = self.end(slot);
                let asked = self.kernel.subscribe(slot, &Masks::default(), &BTreeMap::new());
                ended.and(asked).and(self.kernel.watch(slot, &[], false)).and(removed)
            }
            Effect::Disconnect { slot } => {
                let connection = self.sessions.in_slot(slot).and_then(|found| found.connection);
                self.to_close.extend(connection);
                self.sessions.connect(slot, None);
                Ok(())
            }
            Effect::Ask { slot, event_id, deadline } => {
                if self.kernel.ask(slot, event_id, deadline)? {
                    return Ok(());
                }
                let mut effects = Vec::new();
                self.broker.not_asked(clock::now(), slot, event_id, &mut effects);
                self.carry_out(effects)
            }
            Effect::Settle { event_id, outcome, .. } => self.kernel.settle(event_id, outcome),
            Effect::Reply { slot, event_id, status } => {
                let connection = self.sessions.in_slot(slot).and_then(|found| found.connection);
                let refused = connection.zip(refusal(status));
                self.to_refuse.extend(refused.map(|(to, refused)| (to, event_id, refused)));
                Ok(())
            }
            Effect::Remember { slot, event, file, verdict: Verdict::Allow } => {
                self.kernel.remember(slot, event, file)
            }
            // A known denial is the broker's to give: the kernel side knows who allows, and who does
            // not any more.
            Effect::Remember { slot, event, file, .. } | Effect::Forget { slot, event, file } => {
                self.kernel.forget_file(slot, event, file)
            }
            Effect::ForgetAll { slot } => self.kernel.forget(slot),
            Effect::Concluded(_) => Ok(()),
        }
    }

    fn change_masks(&mut self, slot: Slot, masks: &Masks) -> Result<(), KernelError> {
        let live = self.broker.session(slot).is_some_and(|session| session.is_live());
        if live && self.sessions.in_slot(slot).is_none() {
            // It is being opened: of who has no ring yet the kernel is told as it gets one.
            return self.allow_rules(slot, masks);
        }
        self.subscribe_kernel(slot, masks)
    }

    /// Has the kernel side know what a client has, and on which terms it is asked. Who has no session
    /// is told of nothing; what its grant denies meanwhile is asked about all the same, and the broker
    /// answers.
    pub(super) fn subscribe_kernel(
        &mut self,
        slot: Slot,
        masks: &Masks,
    ) -> Result<(), KernelError> {
        let grant = self.broker.grant(slot);
        let asked = masks.ask.contains(Event::FILE_OPEN);
        let told = Event::WATCHED.iter().any(|event| masks.notify.contains(*event));
        let watched = grant.filter(|_| asked || told).map_or(&[][..], |grant| &grant.watched);
        let watching = self.kernel.watch(slot, watched, asked);
        let granted = grant.map(|grant| &grant.events);
        let asked = granted.into_iter().flatten().filter(|(event, _)| masks.ask.contains(**event));
        let terms = asked.map(|(event, granted)| {
            let deny_full = granted.failure.queue_full == Fallback::Deny;
            let time = self.broker.limit(slot, *event).unwrap_or(granted.deadline);
            (*event, Terms { time, deny_full })
        });
        let terms = terms.collect();
        self.kernel.subscribe(slot, masks, &terms)?;
        self.allow_rules(slot, masks)?;
        watching
    }

    pub(super) fn end(&mut self, slot: Slot) -> Result<(), KernelError> {
        let Some(session) = self.sessions.remove(slot) else { return Ok(()) };
        log::note(&format_args!(
            "{}: session of pid {} ended",
            session.client, session.process.pid
        ));
        self.kernel.remove(slot)?;
        self.session_ended(slot)
    }

    fn tell(&mut self, slot: Slot, notice: Notice) -> Result<(), KernelError> {
        if self.sessions.in_slot(slot).is_none() {
            return Ok(());
        }
        let Some(record) = record_of(notice) else { return Ok(()) };
        self.kernel.write(slot, record.as_bytes())
    }

    /// Answers that were held and do not count, with whose they were; each comes once.
    pub fn take_refused(&mut self) -> Vec<(ConnectionId, u64, Refused)> {
        std::mem::take(&mut self.to_refuse)
    }

    /// Connections whose sessions ended from this side, to be closed; each comes once.
    pub fn take_closed(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.to_close)
    }
}

/// `None` for what there is no record for.
fn record_of(notice: Notice) -> Option<RecordBuffer> {
    let record = match notice {
        Notice::Stopping => shutting_down(SHUTDOWN_STOPPED),
        Notice::Revoked => shutting_down(SHUTDOWN_REVOKED),
        Notice::DeadlineMissed { event_id, misses, demoted } => {
            let mut record = RecordBuilder::<DeadlineMissed>::new(EventType::DeadlineMissed);
            record.part.missed_event_id = event_id;
            record.part.misses = misses;
            record.part.demoted = demoted.into();
            stamp(record)
        }
        Notice::StageChanged { event, before, after } => {
            let mut record = RecordBuilder::<StageChanged>::new(EventType::StageChanged);
            record.part.event_type = event.number();
            record.part.before = stage(before);
            record.part.after = stage(after);
            stamp(record)
        }
        Notice::Restored | Notice::GrantReduced => return None,
    };
    Some(record)
}

fn shutting_down(why: u32) -> RecordBuffer {
    let mut record = RecordBuilder::<ShuttingDown>::new(EventType::ShuttingDown);
    record.part.why = why;
    stamp(record)
}

fn stamp<T: abi::Part>(mut record: RecordBuilder<T>) -> RecordBuffer {
    record.header.time = clock::now().0;
    record.header.classes = 1;
    record.finish()
}

fn stage(stage: HostStage) -> u16 {
    stage as u16
}
