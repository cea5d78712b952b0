// SPDX-License-Identifier: Apache-2.0
//! Which findings are there now, so that each is told once, as new and as gone, also when the guard
//! was started again meanwhile; and so that who subscribes later is told of those that are there.

use std::collections::BTreeMap;

use broker::time::Time;

use super::line::{Finding, Key};

/// Findings that are remembered. A kernel that somebody took apart has more; each is told of still.
pub const REMEMBERED: usize = 512;

/// A change that the kernel did not announce is an event, not a state: the guard tells of it once and
/// never that it is gone (`guard::watch`).
const EVENT: &str = "change not announced by the kernel";

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was not there before.
    New,
    /// It is there no more.
    Gone,
    /// It was there before the client subscribed.
    Standing,
}

/// What clients are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// How it stands.
    pub state: State,
    /// Name of the check.
    pub check: String,
    /// Name of the technique.
    pub technique: String,
    /// All of it.
    pub stands: Stands,
}

/// A finding that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stands {
    /// As JSON.
    pub json: String,
    /// When the guard told of it first.
    pub found: Time,
    /// Whether the process that runs now has told of it.
    seen: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    findings: BTreeMap<Key, Stands>,
    /// Whether some are there of which only an earlier process told.
    unsure: bool,
}

impl Standing {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.findings.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// All of them, for who has just subscribed.
    pub fn iter(&self) -> impl Iterator<Item = Told> {
        self.findings.iter().map(|(key, stands)| told(State::Standing, key, stands.clone()))
    }

    /// Another process of the guard begins: it tells of all anew.
    pub(super) fn begin(&mut self) {
        self.findings.values_mut().for_each(|stands| stands.seen = false);
        self.unsure = !self.findings.is_empty();
    }

    pub(super) fn found(&mut self, finding: Finding, now: Time) -> Vec<Told> {
        let Finding { key, json } = finding;
        if let Some(known) = self.findings.get_mut(&key) {
            known.seen = true;
            return Vec::new();
        }
        let stands = Stands { json, found: now, seen: true };
        let news = told(State::New, &key, stands.clone());
        if key.technique != EVENT && self.findings.len() < REMEMBERED {
            self.findings.insert(key, stands);
        }
        vec![news]
    }

    pub(super) fn cleared(&mut self, finding: &Finding) -> Vec<Told> {
        let stands = self.findings.remove(&finding.key);
        stands.map(|stands| told(State::Gone, &finding.key, stands)).into_iter().collect()
    }

    /// The process that runs now has looked at everything: what it did not tell of is gone.
    pub(super) fn looked(&mut self) -> Vec<Told> {
        if !std::mem::take(&mut self.unsure) {
            return Vec::new();
        }
        let gone = self.findings.extract_if(.., |_, stands| !stands.seen);
        gone.map(|(key, stands)| told(State::Gone, &key, stands)).collect()
    }
}

fn told(state: State, key: &Key, stands: Stands) -> Told {
    Told { state, check: key.check.clone(), technique: key.technique.clone(), stands }
}
