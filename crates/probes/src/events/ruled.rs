// SPDX-License-Identifier: Apache-2.0
//! Rules of clients on the hooks: what they are for is attached as long as they are there.

use std::path::Path;

use rules::events::by_number;
use rules::model::{Condition, File};
use rules::{Action, RuleSet};

use super::{EventType, Hooks};
use crate::error::ProbeError;
use crate::pins::Pins;
use crate::rules::{ReadyCollection, RuleCount, Rules, RulesError};

/// Whether rules can deny events of a type, where its hook takes programs.
pub(super) fn can_be_denied(kind: EventType) -> bool {
    by_number(kind.number().into()).is_some_and(|event| event.deniable)
}

/// Why none can, where it does not depend on the kernel.
pub(super) fn why_not_denied(kind: EventType) -> &'static str {
    match by_number(kind.number().into()) {
        Some(event) if event.deniable => "its programs were not to be loaded",
        Some(_) => "what tells of it is passed when it is done",
        None => "no rules are decided about it in this version",
    }
}

impl Hooks {
    /// Has what rules decide hold when this process ends, however it does: the programs stay attached by
    /// files below this directory, which is in a file system of type bpf. What earlier processes left there
    /// goes on until [`Hooks::let_go_of_older`].
    ///
    /// # Errors
    /// When the directory cannot be made, or is in another file system.
    pub fn keep_rules(&mut self, directory: &Path) -> Result<(), ProbeError> {
        self.pins = Some(Pins::below(directory)?);
        self.attach()
    }

    /// Has only the programs of this process decide from now on.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn let_go_of_older(&mut self) -> Result<(), ProbeError> {
        self.rules.forget_the_rest()?;
        self.pins.as_mut().map_or(Ok(()), Pins::let_go_of_older)?;
        self.attach()
    }

    /// Puts a client's rules in the place of those it had, and has the hooks that they need attached.
    /// They are of the slot, whether somebody is admitted there or not.
    ///
    /// # Errors
    /// When this host cannot deny what a rule denies, cannot tell of what it is for or of the digest that
    /// it asks for, or [`Rules::install`] fails. The rules that were there before stay then.
    pub fn install_rules(&mut self, slot: u32, set: &RuleSet) -> Result<(), RulesError> {
        self.can_have(set)?;
        let before = self.ruled;
        self.ruled |= set.rules.iter().fold(0, |types, rule| types | rule.events);
        // Attached first: rules that are said to be installed are decided by.
        let installed = match self.attach() {
            Ok(()) => self.rules.install(slot, set),
            Err(error) => Err(error.into()),
        };
        self.ruled = if installed.is_ok() { self.rules.types() } else { before };
        let attached = self.attach();
        installed.and(attached.map_err(RulesError::Kernel))
    }

    /// Whether this host can do what the rules say.
    fn can_have(&self, set: &RuleSet) -> Result<(), RulesError> {
        let coverage = self.coverage();
        for rule in &set.rules {
            let denies = matches!(rule.action, Action::Deny(_)) && !rule.dry_run;
            let is_digest = |condition: &Condition| matches!(condition, Condition::DigestIn(..));
            let asks_for_digest = rule.conditions.iter().any(is_digest);
            let goes_by_executable = rule.conditions.iter().any(is_of_executable);
            for event in coverage.iter().filter(|event| event.kind.bit() & rule.events != 0) {
                let (rule, kind) = (rule.id, event.kind.name());
                if let (Err(reason), true) = (&event.deny, denies) {
                    return Err(RulesError::CannotDeny { rule, kind, reason: reason.clone() });
                }
                if let (Err(reason), Err(_)) = (&event.notify, &event.deny) {
                    return Err(RulesError::CannotTell { rule, kind, reason: reason.clone() });
                }
                if let (Some(lacks), true) = (event.lacks, goes_by_executable) {
                    return Err(RulesError::CannotTell { rule, kind, reason: lacks.to_owned() });
                }
                if let (Err(reason), true) = (self.digests(), asks_for_digest) {
                    return Err(RulesError::NoDigest { rule, kind, reason: reason.to_owned() });
                }
            }
        }
        Ok(())
    }

    /// Has a client's rules looked at for these types only, now and whenever it installs others.
    ///
    /// # Errors
    /// When a program cannot be attached.
    pub fn allow_rules(&mut self, slot: u32, types: u64) -> Result<(), RulesError> {
        // Attached first, as above.
        let before = self.ruled;
        self.ruled |= types & self.rules.of(slot);
        self.attach().inspect_err(|_| self.ruled = before)?;
        self.rules.allow(slot, types)?;
        self.ruled = self.rules.types();
        Ok(self.attach()?)
    }

    /// Takes a client's rules and collections away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_rules(&mut self, slot: u32) -> Result<(), ProbeError> {
        self.rules.remove_all(slot)?;
        self.ruled = self.rules.types();
        self.attach()
    }

    /// See [`Rules::set_collection`].
    ///
    /// # Errors
    /// As there.
    pub fn set_collection(
        &mut self,
        slot: u32,
        name: &str,
        collection: ReadyCollection,
    ) -> Result<(), RulesError> {
        self.rules.set_collection(slot, name, collection)
    }

    /// See [`Rules::remove_collection`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_collection(&mut self, slot: u32, name: &str) -> Result<(), RulesError> {
        self.rules.remove_collection(slot, name)
    }

    /// See [`Rules::counts`].
    ///
    /// # Errors
    /// As there.
    pub fn rule_counts(&self, slot: u32) -> Result<Vec<RuleCount>, RulesError> {
        self.rules.counts(slot)
    }

    /// The rules of all clients.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// Whether a condition is about what the actor runs.
fn is_of_executable(condition: &Condition) -> bool {
    let (Condition::File(file, _)
    | Condition::Path(file, _)
    | Condition::PathUnknown(file)
    | Condition::DigestIn(file, _)) = condition
    else {
        return false;
    };
    *file == File::Executable
}
