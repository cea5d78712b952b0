// SPDX-License-Identifier: Apache-2.0
//! The guard itself: are its own programs there, and does what the kernel announces reach it?
//!
//! A guard that was detached or whose events are swallowed sees nothing and says all is well. So
//! its own BPF objects must be in the kernel's id tables, and now and then it has the kernel make
//! an announcement on purpose. The caller moves what arrives into the journal between passes, so
//! an event raised in one pass is looked for in the next.

use crate::check::{About, Check, Missing, Outcome, Pace, System};
use crate::finding::Finding;
use crate::journal::Change;
use crate::recover::Recovered;
use crate::views::BpfKind;

use super::bpf::objects;

/// Passes between an event that arrived and the next one that is raised.
const REST: u32 = 8;

/// Passes after which an event that was raised must have arrived.
const PATIENCE: u32 = 2;

/// Where the event made on purpose is.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// None is under way; one is raised when this many passes are over.
    Due(u32),
    /// Raised: its name, and how many passes have looked for it in vain.
    Raised(String, u32),
}

/// See the module.
#[derive(Debug)]
pub struct Own {
    recovered: Recovered,
    event: Event,
}

impl Default for Own {
    fn default() -> Self {
        Self { recovered: Recovered::default(), event: Event::Due(0) }
    }
}

impl Check for Own {
    fn name(&self) -> &'static str {
        "self"
    }

    fn about(&self) -> About {
        About {
            needs: "BPF objects of its own; the journal (perf events) for the event",
            reads: "the kernel's id tables, and whether an event that it has the kernel make \
                    arrives in the journal",
            means: "the guard was blinded: its programs were taken out, or announcements of the \
                    kernel do not reach it",
            blind_to: "an attacker who stops the guard altogether, which a heartbeat to elsewhere \
                       shows",
        }
    }

    fn pace(&self) -> Pace {
        Pace::EachPass
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let objects = self.objects(system, outcome);
        if system.other_paths.is_empty() {
            outcome.reduced.push("memory is read by one path only".to_owned());
        }
        let event = self.event(system, outcome);
        match (objects, event) {
            (Err(objects), Err(event)) => Err(Missing(format!("{}; {}", objects.0, event.0))),
            (objects, event) => {
                outcome.reduced.extend(objects.err().map(|missing| missing.0));
                outcome.reduced.extend(event.err().map(|missing| missing.0));
                Ok(())
            }
        }
    }
}

impl Own {
    /// The guard's own objects must be in the id tables.
    fn objects(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let own = system.views.own_bpf()?;
        for kind in [BpfKind::Program, BpfKind::Map, BpfKind::Link] {
            if !own.iter().any(|(of, _)| *of == kind) {
                continue;
            }
            let mut lacking = self.lacking(system, kind, &own)?;
            if !lacking.is_empty() {
                let again = self.lacking(system, kind, &own)?;
                lacking.retain(|id| again.contains(id));
            }
            for id in lacking {
                outcome.findings.push(finding(
                    format!("the guard's own BPF {} {id} is in the id table", objects::word(kind)),
                    "it is not there, though the guard holds it open".to_owned(),
                    "guard's own BPF object removed",
                    "looked for twice",
                ));
            }
        }
        Ok(())
    }

    fn lacking(
        &mut self,
        system: &System<'_>,
        kind: BpfKind,
        own: &[(BpfKind, u32)],
    ) -> Result<Vec<u32>, Missing> {
        let entries = objects::entries(&system.kernel, &mut self.recovered, kind)?;
        let ids = own.iter().filter(|(of, _)| *of == kind).map(|(_, id)| *id);
        Ok(ids.filter(|id| !entries.iter().any(|entry| entry.id == *id)).collect())
    }

    /// Raises an event, or looks for the one that was raised.
    fn event(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        if let Err(reason) = system.journal.state() {
            self.event = Event::Due(0);
            return Err(Missing(format!("no journal to see an event arrive in: {reason}")));
        }
        let has_arrived = match &self.event {
            Event::Raised(name, _) => arrived(system, name),
            Event::Due(_) => false,
        };
        match next(&self.event, has_arrived, system.journal.lost() > 0) {
            Step::Raise => self.event = Event::Raised(system.views.raise_event()?, 0),
            Step::Wait(event) => {
                if matches!(event, Event::Raised(..)) {
                    system.journal.doubt();
                }
                self.event = event;
            }
            Step::Blind(name) => {
                self.event = Event::Due(0);
                outcome.findings.push(finding(
                    format!("the kernel announces the BPF program {name} that the guard loaded"),
                    format!("no announcement in {PATIENCE} passes, and none was lost"),
                    "announcements of the kernel suppressed",
                    "the guard loaded and dropped the program itself",
                ));
            }
        }
        Ok(())
    }
}

/// What to do about the event in this pass.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Raise,
    Wait(Event),
    /// The event of this name did not arrive.
    Blind(String),
}

fn next(event: &Event, has_arrived: bool, lost: bool) -> Step {
    match event {
        Event::Due(0) => Step::Raise,
        Event::Due(passes) => Step::Wait(Event::Due(passes - 1)),
        Event::Raised(..) if has_arrived => Step::Wait(Event::Due(REST)),
        // With entries lost nobody can say that it did not come.
        Event::Raised(..) if lost => Step::Wait(Event::Due(0)),
        Event::Raised(name, waited) if waited + 1 < PATIENCE => {
            Step::Wait(Event::Raised(name.clone(), waited + 1))
        }
        Event::Raised(name, _) => Step::Blind(name.clone()),
    }
}

fn arrived(system: &System<'_>, raised: &str) -> bool {
    system.journal.entries().any(|entry| match &entry.change {
        Change::Symbol { name, .. } => name == raised,
        Change::TextPoke { .. } | Change::Module { .. } => false,
    })
}

fn finding(expected: String, seen: String, technique: &str, evidence: &str) -> Finding {
    Finding {
        check: "self",
        symbol: None,
        offset: 0,
        address: 0,
        expected,
        seen,
        technique: technique.to_owned(),
        owner: None,
        evidence: vec![evidence.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(waited: u32) -> Event {
        Event::Raised("bpf_prog_1_rf".to_owned(), waited)
    }

    #[test]
    fn an_event_that_arrives_gives_a_rest_and_then_the_next_one() {
        assert_eq!(next(&Event::Due(0), false, false), Step::Raise);
        assert_eq!(next(&raised(0), true, false), Step::Wait(Event::Due(REST)));
        assert_eq!(next(&Event::Due(1), false, false), Step::Wait(Event::Due(0)));
    }

    #[test]
    fn an_event_that_never_arrives_is_blindness_unless_entries_were_lost() {
        assert_eq!(next(&raised(0), false, false), Step::Wait(raised(1)));
        assert_eq!(next(&raised(1), false, false), Step::Blind("bpf_prog_1_rf".to_owned()));
        assert_eq!(next(&raised(1), false, true), Step::Wait(Event::Due(0)));
    }
}
