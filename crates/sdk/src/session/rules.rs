// SPDX-License-Identifier: Apache-2.0
//! Rules that the kernel decides by, and collections of digests that they ask for: docs/rules.md.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Session, SessionError};

/// What goes in one message, in bytes of text: with all that JSON escapes it stays below the limit of
/// the interface.
const PART: usize = 256 << 10;
/// Digests in one message.
const DIGESTS: usize = 8192;

/// The rules of a client.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ClientRules {
    /// Name in the grant.
    pub client: String,
    /// Rules stay when a client goes, as its grant says.
    pub connected: bool,
    /// In the client's order.
    pub rules: Vec<RuleState>,
    /// What the rules can ask for.
    pub collections: Vec<CollectionState>,
}

/// A rule that is installed, and what it did since then.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct RuleState {
    /// The client's own number, as in the header of a record.
    pub id: u32,
    /// Names of the events that it is for.
    pub events: Vec<String>,
    /// `allow`, `deny` or `notify`.
    pub action: String,
    /// What the caller gets, an errno; only with `deny`.
    pub error: Option<u16>,
    /// It counts and tells, and never decides.
    pub dry_run: bool,
    /// How often it matched, with no earlier rule of its client having decided.
    pub matches: u64,
    /// How often it denied.
    pub denies: u64,
}

/// A set of digests that rules ask for by its name.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct CollectionState {
    /// Its name.
    pub name: String,
    /// How many there are.
    pub digests: u64,
}

#[derive(Deserialize)]
struct Installed {
    rules: u64,
}

#[derive(Deserialize)]
struct Counted {
    digests: u64,
}

impl Session {
    /// Puts rules in the place of those that this client has, all or none; gives how many there are.
    /// The text is as docs/rules.md describes it, at most 4 MiB; an empty one takes all rules away.
    /// Rules stay as the session ends, if the grant does not say otherwise.
    ///
    /// # Errors
    ///
    /// [`Refusal::RulesRefused`](super::Refusal::RulesRefused) with each mistake and its place;
    /// [`Refusal::NotGranted`](super::Refusal::NotGranted) and
    /// [`Refusal::EventUnavailable`](super::Refusal::EventUnavailable), also where this host could not
    /// deny what a rule denies. The rules from before stay then.
    pub fn install_rules(&mut self, rules: &str) -> Result<u64, SessionError> {
        self.install(rules, false)
    }

    /// The same with rules that only count and tell, whatever they say.
    ///
    /// # Errors
    ///
    /// As [`Session::install_rules`].
    pub fn try_rules(&mut self, rules: &str) -> Result<u64, SessionError> {
        self.install(rules, true)
    }

    fn install(&mut self, rules: &str, dry_run: bool) -> Result<u64, SessionError> {
        let mut rest = rules;
        while rest.len() > PART {
            let (part, after) = rest.split_at(rest.floor_char_boundary(PART));
            self.call::<Installed>("InstallRules", json!({ "rules": part, "continues": true }))?;
            rest = after;
        }
        let last = json!({ "rules": rest, "dry_run": dry_run });
        Ok(self.call::<Installed>("InstallRules", last)?.rules)
    }

    /// What this client has installed, with counters.
    ///
    /// # Errors
    ///
    /// As each call to the daemon.
    pub fn rules(&mut self) -> Result<Option<ClientRules>, SessionError> {
        #[derive(Deserialize)]
        struct All {
            clients: Vec<ClientRules>,
        }
        let all: All = self.call("GetRules", json!({}))?;
        // Root sees those of others too.
        let own = |rules: &ClientRules| rules.client == self.client;
        Ok(all.clients.into_iter().find(own))
    }

    /// Puts a collection of digests of fs-verity (SHA-256) in the place of the one of this name, or
    /// beside the others; gives how many there are.
    ///
    /// # Errors
    ///
    /// [`Refusal::LimitExceeded`](super::Refusal::LimitExceeded), and
    /// [`Refusal::InvalidArgument`](super::Refusal::InvalidArgument) for a name that is none.
    pub fn replace_collection(
        &mut self,
        name: &str,
        digests: &[[u8; 32]],
    ) -> Result<u64, SessionError> {
        let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut parts = digests.chunks(DIGESTS).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let continues = parts.peek().is_some();
            let part: Vec<String> = part.iter().map(hex).collect();
            let call = json!({ "name": name, "digests": part, "continues": continues });
            let counted: Counted = self.call("ReplaceCollection", call)?;
            if !continues {
                return Ok(counted.digests);
            }
        }
    }

    /// Takes a collection away that no rule asks for.
    ///
    /// # Errors
    ///
    /// [`Refusal::InvalidArgument`](super::Refusal::InvalidArgument) if a rule asks for it, or there is
    /// none.
    pub fn drop_collection(&mut self, name: &str) -> Result<(), SessionError> {
        self.tell("DropCollection", json!({ "name": name }))
    }

    fn call<T: serde::de::DeserializeOwned>(
        &mut self,
        method: &'static str,
        parameters: serde_json::Value,
    ) -> Result<T, SessionError> {
        Ok(self.connection.call(method, parameters)?.0)
    }
}
