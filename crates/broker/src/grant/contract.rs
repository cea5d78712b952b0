// SPDX-License-Identifier: Apache-2.0
//! What happens to a question when the client does not answer it, declared beforehand.

use super::choice::Choice;

/// Stands in for one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// The client has nothing against it.
    #[default]
    Allow,
    /// As if the client had denied it, with EPERM.
    Deny,
}

/// What holds while a client is not connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    /// Nothing of it holds: its rules are lifted, and it has nothing against what it would be
    /// asked.
    Allow,
    /// What it would be asked is denied with EPERM; its rules stay.
    Deny,
    /// Its rules stay and go on deciding; it has nothing against what they let pass.
    #[default]
    LastRules,
}

/// What holds while nobody is there to carry a question to the client. Its rules stay in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gone {
    /// As [`Contract::not_connected`] says.
    #[default]
    AsNotConnected,
    /// It has nothing against what it would be asked.
    Allow,
    /// What it would be asked is denied with EPERM.
    Deny,
}

/// The five cases, for one client and one type of event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contract {
    /// Its deadline passed without an answer; or it has lost `ask` because that happened too
    /// often, in which case nobody waits for the deadline.
    pub deadline_missed: Fallback,
    /// It has as many open questions as it may. Counted in either case.
    pub queue_full: Fallback,
    /// Its session ended while it was asked.
    pub client_died: Fallback,
    /// It has no session, or its session has not said yet whether it wants to be asked.
    pub not_connected: Absent,
    /// `ringfenced` is not running.
    pub ringfenced_gone: Gone,
}

impl Contract {
    /// What this client says, by its absence, to what it would be asked.
    #[must_use]
    pub fn when_absent(&self) -> Fallback {
        match self.not_connected {
            Absent::Allow | Absent::LastRules => Fallback::Allow,
            Absent::Deny => Fallback::Deny,
        }
    }

    /// What this client says while `ringfenced` is not running.
    #[must_use]
    pub fn when_gone(&self) -> Fallback {
        match self.ringfenced_gone {
            Gone::AsNotConnected => self.when_absent(),
            Gone::Allow => Fallback::Allow,
            Gone::Deny => Fallback::Deny,
        }
    }
}

impl Choice for Fallback {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("allow", Self::Allow), ("deny", Self::Deny)];
}

impl Choice for Absent {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("allow", Self::Allow), ("deny", Self::Deny), ("last_rules", Self::LastRules)];
}

impl Choice for Gone {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("as_not_connected", Self::AsNotConnected), ("allow", Self::Allow), ("deny", Self::Deny)];
}
