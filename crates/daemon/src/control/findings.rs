// SPDX-License-Identifier: Apache-2.0
//! Findings of the guard, told to all who subscribe to them.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use abi::{
    FINDING_GONE, FINDING_NEW, FINDING_STANDING, KernelFinding, RecordBuffer, RecordBuilder,
};
use anyhow::Context;
use broker::event::{Class, EventType};
use broker::slot::Slot;

use super::Control;
use super::start::coverage;
use crate::guard::{Guard, State, Told};
use crate::kernel::{Availability, Kernel};
use crate::{clock, log};

/// How often a record is tried to be written while all of the kernel's buffers are in use.
const ATTEMPTS: usize = 8;

impl<K: Kernel> Control<K> {
    /// Runs this program as the guard, from now on.
    pub fn run_guard(&mut self, program: PathBuf) -> anyhow::Result<()> {
        self.guard = Guard::start(program, clock::now()).context("preparing to run the guard")?;
        self.cover();
        Ok(())
    }

    /// Readable when the guard has said something; `None` if none is wanted.
    #[must_use]
    pub fn guard(&self) -> Option<BorrowedFd<'_>> {
        self.guard.as_fd()
    }

    /// Takes what the guard says to those who want to know.
    pub fn take_guard(&mut self) {
        for said in self.guard.take() {
            let before = self.guard.availability().is_there();
            let told = self.guard.hear(said, clock::now());
            if self.guard.availability().is_there() != before {
                self.cover();
            }
            for told in told {
                log::caused(&format_args!("finding ({:?}): {}", told.state, told.stands.json));
                let record = record(&told);
                self.subscribers().into_iter().for_each(|slot| self.write_finding(slot, &record));
            }
        }
    }

    pub(super) fn guard_pass(&mut self) {
        self.guard.pass(clock::now());
    }

    /// Of one class of an event, on this host.
    pub(super) fn given(&self, event: EventType, class: Class) -> Availability {
        if event == EventType::KERNEL_FINDING {
            self.guard.availability()
        } else {
            self.kernel.availability(event, class)
        }
    }

    /// Whether the client of the slot is told of findings.
    pub(super) fn is_told_of_findings(&self, slot: Slot) -> bool {
        let masks = self.broker.masks(slot);
        masks.is_some_and(|masks| masks.notify.contains(EventType::KERNEL_FINDING))
    }

    /// Tells a client that has just subscribed which findings are there.
    pub(super) fn tell_standing(&mut self, slot: Slot) {
        let all: Vec<_> = self.guard.standing().iter().map(|told| record(&told)).collect();
        all.iter().for_each(|record| self.write_finding(slot, record));
    }

    pub(super) fn cover(&mut self) {
        let mut effects = Vec::new();
        let coverage = coverage(&self.lifecycle, |event, class| self.given(event, class));
        self.broker.set_coverage(clock::now(), coverage, &mut effects);
        self.carry_out_or_log(effects);
    }

    /// Those who are told of findings.
    fn subscribers(&self) -> Vec<Slot> {
        let slots = self.sessions.iter().map(|session| session.slot);
        slots.filter(|slot| self.is_told_of_findings(*slot)).collect()
    }

    fn write_finding(&mut self, slot: Slot, record: &RecordBuffer) {
        for attempt in 1..=ATTEMPTS {
            match self.kernel.write(slot, record.as_bytes()) {
                Ok(()) => return,
                Err(error) if attempt == ATTEMPTS => log::error(&error),
                Err(_) => {}
            }
        }
    }
}

fn record(told: &Told) -> RecordBuffer {
    let mut record = RecordBuilder::<KernelFinding>::new(abi::EventType::KernelFinding);
    record.header.time = clock::now().0;
    record.header.classes = abi::CLASS_NOTIFY;
    record.part.check = record.text(told.check.as_bytes());
    record.part.technique = record.text(told.technique.as_bytes());
    record.part.finding = record.long_text(told.stands.json.as_bytes());
    record.part.found = told.stands.found.0;
    record.part.state = match told.state {
        State::New => FINDING_NEW,
        State::Gone => FINDING_GONE,
        State::Standing => FINDING_STANDING,
    };
    record.finish()
}
