// SPDX-License-Identifier: Apache-2.0
//! What a rule set says of a record, by going through its rules one by one: the meaning that the
//! compiled form and the kernel are held to.

use std::collections::{BTreeMap, BTreeSet};

use crate::collection::Collection;
use crate::model::{Action, Condition, ProcessKey, Rule, RuleSet};
use crate::record::Record;

/// What rules ask that is not in the record.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Processes that the actor descends from.
    pub ancestors: BTreeSet<ProcessKey>,
    /// The client's collections by name. One that is not there holds nothing.
    pub collections: BTreeMap<String, Collection>,
    /// The event can only be observed: nothing is denied, and a denial tells instead.
    pub observed: bool,
}

/// What the rules of one client say. Rules are named by their place in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The rule that allowed or denied.
    pub decided: Option<usize>,
    /// Those that matched before it and tell.
    pub told: Vec<usize>,
}

impl Decision {
    /// The errno that the caller gets; 0: none.
    #[must_use]
    pub fn error(&self, set: &RuleSet, context: &Context) -> u16 {
        match self.decided.and_then(|at| set.rules.get(at)).map(|rule| rule.action) {
            Some(Action::Deny(error)) if !context.observed => error,
            _ => 0,
        }
    }

    /// Whether the client is told because of its rules.
    #[must_use]
    pub fn tells(&self, set: &RuleSet, context: &Context) -> bool {
        let denies = self.decided.and_then(|at| set.rules.get(at)).map(|rule| rule.action);
        !self.told.is_empty() || (context.observed && matches!(denies, Some(Action::Deny(_))))
    }

    /// The number for `header.rule` of this client's record: of the rule that denied; else of the
    /// first that told; else of the one that decided; 0: none.
    #[must_use]
    pub fn number(&self, set: &RuleSet, context: &Context) -> u32 {
        let decided = self.decided;
        let denied = decided.filter(|_| self.error(set, context) != 0);
        let rule = denied.or(self.told.first().copied()).or(decided);
        rule.and_then(|at| set.rules.get(at)).map_or(0, |rule| rule.id)
    }
}

/// What all clients' rules together say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The errno that the caller gets; 0: none of them denies.
    pub error: u16,
    /// The slot of the client that denied: the lowest of those that did.
    pub client: u32,
    /// The client's own number of the rule that denied.
    pub rule: u32,
    /// Clients that are told because of their rules, bits by slot.
    pub told: u64,
    /// Clients whose rules denied.
    pub denied: u64,
    /// Clients whose rules allowed.
    pub allowed: u64,
}

impl Outcome {
    /// Takes in what the rules of a client say; in the order of their slots.
    pub fn take(&mut self, slot: u32, set: &RuleSet, decision: &Decision, context: &Context) {
        let error = decision.error(set, context);
        let bit = 1 << slot;
        if error != 0 {
            if self.error == 0 {
                (self.error, self.client) = (error, slot);
                self.rule = decision.number(set, context);
            }
            self.denied |= bit;
        }
        let decided = decision.decided.and_then(|at| set.rules.get(at));
        if decided.is_some_and(|rule| rule.action == Action::Allow) {
            self.allowed |= bit;
        }
        if decision.tells(set, context) {
            self.told |= bit;
        }
    }
}

/// What a set says of a record.
#[must_use]
pub fn evaluate(set: &RuleSet, record: &Record<'_>, context: &Context) -> Decision {
    let mut decision = Decision::default();
    for (at, rule) in set.rules.iter().enumerate() {
        if !matches(rule, record, context) {
            continue;
        }
        if rule.decides() {
            decision.decided = Some(at);
            break;
        }
        decision.told.push(at);
    }
    decision
}

/// Whether a rule is for a record's type, and all of its conditions hold.
#[must_use]
pub fn matches(rule: &Rule, record: &Record<'_>, context: &Context) -> bool {
    rule.events >> record.event().number & 1 == 1
        && rule.conditions.iter().all(|condition| holds(condition, record, context))
}

/// Whether a condition holds.
pub(crate) fn holds(condition: &Condition, record: &Record<'_>, context: &Context) -> bool {
    match condition {
        Condition::Process(process, keys) => {
            record.process(*process).is_some_and(|seen| keys.contains(&seen))
        }
        Condition::DescendantOf(keys) => keys.iter().any(|key| context.ancestors.contains(key)),
        Condition::File(file, wanted) => record.file(*file).is_some_and(|seen| {
            wanted.iter().any(|wanted| {
                (wanted.device, wanted.inode) == (seen.device, seen.inode)
                    && (wanted.version.is_none() || wanted.version == seen.version)
            })
        }),
        Condition::Path(file, prefixes) => {
            record.path(*file).is_some_and(|path| prefixes.iter().any(|prefix| prefix.covers(path)))
        }
        Condition::PathUnknown(file) => record.has_file(*file) && record.path(*file).is_none(),
        Condition::DigestIn(file, names) => {
            record.digest(*file).is_some_and(|(algorithm, digest)| {
                let collections = names.iter().filter_map(|name| context.collections.get(name));
                collections.into_iter().any(|collection| collection.has(algorithm, &digest))
            })
        }
        Condition::Number(number, values) => {
            record.number(*number).is_some_and(|seen| values.contains(&seen))
        }
        Condition::Name(names) => {
            record.name().is_some_and(|seen| names.iter().any(|name| name == seen))
        }
        Condition::Bits { of, mask, all } => record.bits(*of).is_some_and(|seen| {
            let common = seen & mask;
            if *all { common == *mask } else { common != 0 }
        }),
    }
}
