// SPDX-License-Identifier: Apache-2.0
//! What this host can do, event by event and class by class, and why not more.

use std::collections::BTreeMap;

use crate::event::{Class, ClassSet, EventType};

/// Whether one class of one event can be had here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// By this mechanism, as `status` shows it: `lsm/bprm_check_security`.
    By(String),
    /// For this reason it cannot.
    Unavailable(String),
}

/// The strongest that can be had of an event here; numbers as RINGFENCE_STAGE_ in
/// `api/ringfence.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostStage {
    /// Nothing.
    Unavailable = 0,
    /// Clients are told.
    Observed = 1,
    /// Clients are asked.
    Asked = 2,
    /// Rules decide in the kernel.
    Enforced = 3,
}

/// What this host can do. What was never said of is unavailable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    known: BTreeMap<(EventType, Class), Availability>,
}

impl Coverage {
    /// Says it of one class of one event.
    pub fn set(&mut self, event: EventType, class: Class, availability: Availability) {
        self.known.insert((event, class), availability);
    }

    /// What was said.
    #[must_use]
    pub fn get(&self, event: EventType, class: Class) -> Option<&Availability> {
        self.known.get(&(event, class))
    }

    /// Whether the class can be had.
    #[must_use]
    pub fn has(&self, event: EventType, class: Class) -> bool {
        matches!(self.get(event, class), Some(Availability::By(_)))
    }

    /// All classes that can be had.
    #[must_use]
    pub fn classes(&self, event: EventType) -> ClassSet {
        Class::ALL.into_iter().filter(|class| self.has(event, *class)).collect()
    }

    /// Why the class cannot be had; `None` if it can.
    #[must_use]
    pub fn reason(&self, event: EventType, class: Class) -> Option<&str> {
        match self.get(event, class) {
            Some(Availability::By(_)) => None,
            Some(Availability::Unavailable(reason)) => Some(reason),
            None => Some("nothing on this host makes it"),
        }
    }

    /// The strongest that can be had.
    #[must_use]
    pub fn stage(&self, event: EventType) -> HostStage {
        let has = |class| self.has(event, class);
        if has(Class::Rule) {
            HostStage::Enforced
        } else if has(Class::Ask) {
            HostStage::Asked
        } else if has(Class::Notify) {
            HostStage::Observed
        } else {
            HostStage::Unavailable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_the_numbers_of_the_header() {
        let header = include_str!("../../../../api/ringfence.h");
        for (name, stage) in [
            ("UNAVAILABLE", HostStage::Unavailable),
            ("OBSERVED", HostStage::Observed),
            ("ASKED", HostStage::Asked),
            ("ENFORCED", HostStage::Enforced),
        ] {
            let line = header.lines().find_map(|line| {
                line.strip_prefix("#define RINGFENCE_STAGE_")?
                    .strip_prefix(name)?
                    .trim()
                    .parse()
                    .ok()
            });
            assert_eq!(line, Some(stage as u32), "{name}");
        }
    }

    #[test]
    fn what_was_never_said_of_is_unavailable_with_a_reason() {
        let event = EventType::from_name("process_exec").expect("an event");
        let mut coverage = Coverage::default();
        assert_eq!(coverage.stage(event), HostStage::Unavailable);
        assert!(coverage.reason(event, Class::Ask).is_some());
        coverage.set(event, Class::Ask, Availability::By("fanotify".to_owned()));
        assert_eq!(coverage.stage(event), HostStage::Asked);
        assert_eq!(coverage.reason(event, Class::Ask), None);
        coverage.set(event, Class::Ask, Availability::Unavailable("no CONFIG_BPF_LSM".to_owned()));
        assert_eq!(coverage.reason(event, Class::Ask), Some("no CONFIG_BPF_LSM"));
    }
}
