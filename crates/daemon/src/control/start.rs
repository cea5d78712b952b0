// SPDX-License-Identifier: Apache-2.0
//! The control plane begins, goes with the time, takes new grants and ends.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use broker::event::{Class, EventType};
use broker::grant::Grants;
use broker::session::SessionId;
use broker::session::coverage::{Availability as Known, Coverage};
use broker::time::Time;
use broker::verdict::{Answer as Said, Outcome, Status, Verdict as Word};
use broker::{Broker, Settings};

use super::{API, ConnectionId, Control};
use crate::guard::Guard;
use crate::kernel::{Asked, Availability, Kernel};
use crate::lifecycle::{Area, Lifecycle};
use crate::measure::Measurer;
use crate::sessions::Sessions;
use crate::verdicts::{Refused, Verdict};
use crate::{clock, grants, log};

/// How often the kernel side hears that this process works: four times in the patience of the gate.
const BEAT: Duration = Duration::from_millis(500);

/// How many questions are taken before answers are: tasks that ask without end must not keep the others
/// from going on.
const QUESTIONS_AT_ONCE: usize = 64;

impl<K: Kernel> Control<K> {
    /// With the grants of the directory, nobody connected, and no guard.
    pub fn new(kernel: K, grants: PathBuf) -> anyhow::Result<Self> {
        let lifecycle = Lifecycle::built_in()?;
        let settings = Settings { versions: API.to_vec(), ..Settings::default() };
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let mut control = Self {
            broker: Broker::new(settings, lifecycle.lives(), Coverage::default()),
            kernel,
            guard: Guard::off(),
            lifecycle,
            sessions: Sessions::default(),
            measurer: Measurer::new().context("preparing to measure executables")?,
            waiting: VecDeque::new(),
            grants,
            granted: Grants::default(),
            grant_errors: Vec::new(),
            installed: BTreeMap::new(),
            kept: None,
            kept_problems: Vec::new(),
            boot_id: boot_id.context("reading the boot id")?.trim().to_owned(),
            to_close: Vec::new(),
            to_refuse: Vec::new(),
            started: clock::now(),
            connections: 0,
        };
        control.cover();
        control.reload();
        let count = control.granted.len();
        log::note(&format_args!("{count} grants in {}", control.grants.display()));
        Ok(control)
    }

    /// Reads the grants again. Who has none any more loses his session.
    pub fn reload(&mut self) {
        let owner = rustix::process::geteuid().as_raw();
        let (files, unread) = grants::read(&self.grants, owner);
        let (granted, wrong) = self.granted.reload(files);
        self.granted = granted;
        self.grant_errors = unread.iter().map(ToString::to_string).collect();
        self.grant_errors.extend(wrong.iter().map(ToString::to_string));
        let mut effects = Vec::new();
        let admitted = self.broker.set_grants(clock::now(), &self.granted, &[], &mut effects);
        let without = admitted.no_slot.iter().map(|client| {
            format!("{client}: there are 64 clients already; take another grant away")
        });
        self.grant_errors.extend(without);
        self.grant_errors.iter().for_each(|error| log::note(error));
        self.carry_out_or_log(effects);
        self.withdraw_rules();
    }

    /// When [`Control::pass`] is to be called, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let due = self.broker.next_deadline().unwrap_or(Time::NEVER);
        let due = due.min(self.guard.next_deadline());
        if self.kernel.beats() { due.min(clock::now().after(BEAT)) } else { due }
    }

    /// Readable when tasks wait for verdicts; `None` if nobody can be asked on this host.
    #[must_use]
    pub fn questions(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.questions()
    }

    /// Takes what tasks wait for to those who decide. Whether there may be more: then it is to be called
    /// again after all else has had its turn.
    pub fn take_questions(&mut self) -> bool {
        for _ in 0..QUESTIONS_AT_ONCE {
            let mut effects = Vec::new();
            match self.kernel.next_question() {
                Ok(Some(Asked::Question(question))) => {
                    let asked = self.broker.ask(clock::now(), question, &mut effects);
                    if let Err(error) = asked {
                        // Nobody will answer it, so the task goes on as was declared.
                        log::error(&error);
                        let settled = self.kernel.settle(question.event_id, Outcome::Cancelled);
                        settled.unwrap_or_else(|error| log::error(&error));
                    }
                }
                Ok(Some(Asked::Withdrawn(event_id))) => {
                    self.broker.cancel(clock::now(), event_id, &mut effects);
                }
                Ok(None) => return false,
                Err(error) => {
                    log::error(&error);
                    return false;
                }
            }
            self.carry_out_or_log(effects);
        }
        true
    }

    /// Does what has become due.
    pub fn pass(&mut self) {
        let mut effects = Vec::new();
        self.broker.pass(clock::now(), &mut effects);
        self.carry_out_or_log(effects);
        self.guard_pass();
        self.kernel.beat().unwrap_or_else(|error| log::error(&error));
    }

    /// Tells everybody that this ends, and takes the rings away.
    pub fn shut_down(&mut self) {
        let mut effects = Vec::new();
        self.broker.shut_down(clock::now(), &mut effects);
        self.carry_out_or_log(effects);
        let ids: Vec<SessionId> = self.sessions.iter().map(|session| session.id).collect();
        for id in ids {
            self.end(id.slot).unwrap_or_else(|error| log::error(&error));
        }
    }

    /// A client answers. Refused answers are told of; see [`Refused`].
    pub fn verdict(&mut self, connection: ConnectionId, verdict: Verdict) -> Result<(), Refused> {
        let Ok(session) = self.sessions.of(connection) else { return Err(Refused::NotAsked) };
        let said = Said {
            event_id: verdict.event_id,
            verdict: match verdict.deny {
                None => Word::Allow,
                Some(error) => Word::Deny { error },
            },
            cache: verdict.cacheable,
        };
        let mut effects = Vec::new();
        let status = self.broker.answer(clock::now(), session.id, said, &mut effects);
        self.carry_out_or_log(effects);
        match refusal(status) {
            None => Ok(()),
            Some(refused) => Err(refused),
        }
    }

    pub(super) fn carry_out_or_log(&mut self, effects: Vec<broker::Effect>) {
        self.carry_out(effects).unwrap_or_else(|error| log::error(&error));
    }
}

/// What a client is told of its answer; nothing if it counts, or may still.
pub(super) fn refusal(status: Status) -> Option<Refused> {
    match status {
        Status::Accepted | Status::Held => None,
        Status::AlreadyAnswered => Some(Refused::AlreadyAnswered),
        Status::TooLate => Some(Refused::TooLate),
        Status::NotAsked | Status::UnknownEvent | Status::NoSession => Some(Refused::NotAsked),
        Status::BadError => Some(Refused::Malformed),
    }
}

/// What this host gives, as the broker has it: what is reduced can be had.
pub(super) fn coverage(
    lifecycle: &Lifecycle,
    given: impl Fn(EventType, Class) -> Availability,
) -> Coverage {
    let mut coverage = Coverage::default();
    let granted = lifecycle.entries().iter().filter(|entry| entry.area != Area::Session);
    for entry in granted {
        for class in entry.classes.iter().copied() {
            coverage.set(entry.event, class, known(given(entry.event, class)));
        }
    }
    coverage
}

fn known(availability: Availability) -> Known {
    match availability {
        Availability::Available { mechanism } | Availability::Reduced { mechanism, .. } => {
            Known::By(mechanism)
        }
        Availability::Unavailable { reason } => Known::Unavailable(reason),
    }
}
