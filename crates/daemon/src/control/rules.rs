// SPDX-License-Identifier: Apache-2.0
//! Methods for rules in the kernel: InstallRules, GetRules, GetRuleText, and collections of digests.
//!
//! Rules are of a client and not of its session: they stay as it goes, as far as its grant says so.
//! What comes in several messages is kept until the last one, and nothing is changed before.

use std::collections::BTreeMap;

use broker::effect::Masks;
use broker::event::{Class, EventSet, EventType};
use broker::grant::Grant;
use broker::slot::Slot;
use rules::collection::{DIGESTS, Digest, from_hex, is_name};
use rules::{Action, Algorithm, Rule, RuleSet};
use serde::{Deserialize, Serialize};

use super::types::{Done, Nothing, event_names};
use super::waiting::For;
use super::{Answer, Caller, ConnectionId, Control, ControlError, parameters, reply};
use crate::kernel::{Kernel, KernelError, Prepared, RulesRefused};
use crate::log;
use crate::measure::Subject;
use crate::varlink::Call;

/// Longest text of rules, in bytes.
const TEXT_MAX: usize = 4 << 20;

/// What one client has installed.
#[derive(Debug, Default)]
pub(super) struct Installed {
    client: String,
    text: String,
    set: RuleSet,
    /// How many digests each collection has.
    collections: BTreeMap<String, usize>,
    /// Of a text that is not complete yet.
    coming_text: String,
    /// Of a collection that is not complete yet, with its name and algorithm.
    coming: Option<(String, Algorithm, Vec<Digest>)>,
}

impl Installed {
    /// What an earlier daemon was given.
    pub(super) fn again(
        client: &str,
        text: String,
        set: RuleSet,
        collections: BTreeMap<String, usize>,
    ) -> Self {
        Self { client: client.to_owned(), text, set, collections, ..Self::default() }
    }

    /// Whose it is.
    pub(super) fn client(&self) -> &str {
        &self.client
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rules: String,
    continues: Option<bool>,
    dry_run: Option<bool>,
}

/// A call of ReplaceCollection that waits until the collection is ready.
#[derive(Debug)]
pub(super) struct CollectionRequest {
    name: String,
}

#[derive(Serialize)]
struct Count {
    rules: usize,
}

#[derive(Serialize)]
struct AllRules {
    clients: Vec<ClientRules>,
}

#[derive(Serialize)]
struct ClientRules {
    client: String,
    connected: bool,
    rules: Vec<RuleState>,
    collections: Vec<CollectionState>,
}

#[derive(Serialize)]
struct RuleState {
    id: u32,
    events: Vec<&'static str>,
    action: &'static str,
    error: Option<u16>,
    dry_run: bool,
    matches: u64,
    denies: u64,
}

#[derive(Serialize)]
struct CollectionState {
    name: String,
    digests: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    client: Option<String>,
}

#[derive(Serialize)]
struct Text<'a> {
    rules: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Digests {
    name: String,
    algorithm: Option<String>,
    digests: Vec<String>,
    continues: Option<bool>,
}

#[derive(Serialize)]
struct DigestCount {
    digests: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

impl<K: Kernel> Control<K> {
    pub(super) fn install_rules(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let slot = self.sessions.of(caller.connection)?.slot;
        let Rules { rules, continues, dry_run } = parameters(call)?;
        let installed = self.installed(slot);
        let mut text = std::mem::take(&mut installed.coming_text);
        if text.len() + rules.len() > TEXT_MAX {
            let limit = TEXT_MAX as u64;
            return Err(ControlError::LimitExceeded { what: "bytes of rules", limit });
        }
        text.push_str(&rules);
        if continues == Some(true) {
            installed.coming_text = text;
            return reply(&Count { rules: 0 });
        }
        let mut set =
            RuleSet::from_toml(&text).map_err(|wrong| refused(RulesRefused::Wrong(wrong)))?;
        if dry_run == Some(true) {
            set.rules.iter_mut().for_each(|rule| rule.dry_run = true);
        }
        let grant = self.broker.grant(slot).ok_or(ControlError::NoSession {})?;
        may_have(grant, &set)?;
        self.kernel.install_rules(slot, &set).map_err(refused)?;
        let count = set.rules.len();
        let installed = self.installed(slot);
        (installed.text, installed.set) = (text, set);
        let dry_run = dry_run == Some(true);
        self.save(slot, |kept, of| kept.save_rules(&of.client, &of.text, dry_run));
        reply(&Count { rules: count })
    }

    pub(super) fn get_rules(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        self.needs_session_or_root(caller)?;
        let own = self.sessions.of(caller.connection).ok().map(|session| session.slot);
        let shown = |slot: &Slot| caller.peer.is_root() || own == Some(*slot);
        let slots: Vec<Slot> = self.installed.keys().copied().filter(shown).collect();
        let mut clients = Vec::new();
        for slot in slots {
            let connected = self.sessions.in_slot(slot).is_some_and(|of| of.connection.is_some());
            let counts = self.kernel.rule_counts(slot)?;
            let Some(installed) = self.installed.get(&slot) else { continue };
            let rules = installed.set.rules.iter().zip(counts);
            let collections = installed.collections.iter();
            clients.push(ClientRules {
                client: installed.client.clone(),
                connected,
                rules: rules
                    .map(|(rule, count)| RuleState {
                        id: rule.id,
                        events: event_names(EventSet(rule.events)),
                        action: action(rule.action),
                        error: error(rule.action),
                        dry_run: rule.dry_run,
                        matches: count.matches,
                        denies: count.denies,
                    })
                    .collect(),
                collections: collections
                    .map(|(name, digests)| CollectionState {
                        name: name.clone(),
                        digests: *digests,
                    })
                    .collect(),
            });
        }
        reply(&AllRules { clients })
    }

    pub(super) fn get_rule_text(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Whose { client } = parameters(call)?;
        self.needs_session_or_root(caller)?;
        let own = self.sessions.of(caller.connection).ok().map(|session| session.slot);
        let text = match client {
            None => own.and_then(|slot| self.installed.get(&slot)).map(|found| &*found.text),
            Some(client) => {
                let found = self.installed.iter().find(|(_, found)| found.client == client);
                let may = found.is_some_and(|(slot, _)| own == Some(*slot));
                if !may && !caller.peer.is_root() {
                    return Err(ControlError::NotAdministrator { method: "GetRuleText" });
                }
                let found = found.ok_or_else(|| {
                    ControlError::invalid("client", format!("{client:.128} has no rules"))
                });
                Some(&*found?.1.text)
            }
        };
        reply(&Text { rules: text.unwrap_or_default() })
    }

    pub(super) fn replace_collection(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let slot = self.sessions.of(caller.connection)?.slot;
        let Digests { name, algorithm, digests, continues } = parameters(call)?;
        if !is_name(&name) {
            return Err(ControlError::invalid("name", "1 to 64 of a-z, 0-9, - and _ are wanted"));
        }
        let algorithm = algorithm_of(algorithm.as_deref())?;
        let limit = self.digests_left(slot, &name);
        let installed = self.installed(slot);
        let mut all = match installed.coming.take() {
            Some((before, of, all)) if before == name && of == algorithm => all,
            _ => Vec::new(),
        };
        if all.len() + digests.len() > limit {
            return Err(too_many_digests(limit));
        }
        for (place, text) in digests.iter().enumerate() {
            let help = || format!("digests[{place}] is not 64 hexadecimal digits");
            all.push(digest(text).ok_or_else(|| ControlError::invalid("digests", help()))?);
        }
        if continues == Some(true) {
            let digests = all.len();
            installed.coming = Some((name, algorithm, all));
            return reply(&DigestCount { digests });
        }
        let prepare = self.kernel.preparer();
        let subject = Subject::Collection { algorithm, digests: all, prepare };
        Ok(self.wait(caller, subject, For::Collection(CollectionRequest { name })))
    }

    /// How many digests a collection of this name can have beside the others of the client.
    fn digests_left(&self, slot: Slot, name: &str) -> usize {
        let allowed = self.broker.grant(slot).map_or(0, |grant| grant.limits.max_digests);
        let collections = self.installed.get(&slot).map(|installed| &installed.collections);
        let others = collections.into_iter().flatten().filter(|(other, _)| *other != name);
        let others: usize = others.map(|(_, digests)| digests).sum();
        (allowed as usize).saturating_sub(others).min(DIGESTS)
    }

    /// Sets the collection that a call has waited for, as far as its client still may: grants can have been read
    /// again meanwhile.
    pub(super) fn collected(
        &mut self,
        connection: ConnectionId,
        CollectionRequest { name }: CollectionRequest,
        prepared: Result<Prepared, RulesRefused>,
    ) -> Result<Answer, ControlError> {
        let slot = self.sessions.of(connection)?.slot;
        let prepared = prepared.map_err(refused)?;
        let limit = self.digests_left(slot, &name);
        if prepared.count() > limit {
            return Err(too_many_digests(limit));
        }
        let set = self.kernel.set_collection(slot, &name, prepared);
        let collection = set.map_err(refused)?;
        let digests = collection.count();
        self.installed(slot).collections.insert(name.clone(), digests);
        self.save(slot, |kept, of| kept.save_collection(&of.client, &name, &collection));
        reply(&DigestCount { digests })
    }

    pub(super) fn drop_collection(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let slot = self.sessions.of(caller.connection)?.slot;
        let Named { name } = parameters(call)?;
        self.kernel.remove_collection(slot, &name).map_err(refused)?;
        self.installed(slot).collections.remove(&name);
        self.save(slot, |kept, of| kept.drop_collection(&of.client, &name));
        reply(&Done {})
    }

    /// What the client of the slot has installed.
    fn installed(&mut self, slot: Slot) -> &mut Installed {
        let grant = self.broker.grant(slot);
        let client = grant.map(|grant| grant.client.to_string()).unwrap_or_default();
        let entry = self.installed.entry(slot);
        entry.or_insert_with(|| Installed { client, ..Installed::default() })
    }

    /// Has the kernel look at the rules of a client for what the broker says; what has no class rule can
    /// only be told of, and is so while there is a session.
    pub(super) fn allow_rules(&mut self, slot: Slot, masks: &Masks) -> Result<(), KernelError> {
        let mut types = masks.rule;
        let connected = self.sessions.in_slot(slot).is_some();
        let granted = self.broker.grant(slot).filter(|_| connected).map(|grant| &grant.events);
        for (event, granted) in granted.into_iter().flatten() {
            if granted.classes.contains(Class::Notify) && !event.classes().contains(Class::Rule) {
                types.set(*event, true);
            }
        }
        self.kernel.allow_rules(slot, types)
    }

    /// What was not complete is forgotten; rules stay as far as the grant says.
    pub(super) fn session_ended(&mut self, slot: Slot) -> Result<(), KernelError> {
        if let Some(installed) = self.installed.get_mut(&slot) {
            (installed.coming_text, installed.coming) = (String::new(), None);
        }
        let masks = self.broker.masks(slot).copied();
        masks.map_or(Ok(()), |masks| self.allow_rules(slot, &masks))
    }

    /// Takes rules away that the grants do not allow any more: all of a client, as a part of them could
    /// mean something else.
    pub(super) fn withdraw_rules(&mut self) {
        let wrong: Vec<(Slot, String)> = self
            .installed
            .iter()
            .filter_map(|(slot, installed)| {
                let granted = self.broker.grant(*slot).map(|grant| may_have(grant, &installed.set));
                match granted {
                    Some(Ok(())) => None,
                    Some(Err(error)) => Some((*slot, error.to_string())),
                    None => Some((*slot, "there is no grant any more".to_owned())),
                }
            })
            .collect();
        for (slot, reason) in wrong {
            let Some(installed) = self.installed.get(&slot) else { continue };
            log::note(&format_args!("{}: its rules are taken away: {reason}", installed.client));
            self.remove_rules(slot).unwrap_or_else(|error| log::error(&error));
        }
    }

    /// Takes all that the client of the slot has installed away, here and in the kernel, and what is kept of it.
    pub(super) fn remove_rules(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.save(slot, |kept, of| kept.forget(&of.client));
        self.installed.remove(&slot);
        self.kernel.remove_rules(slot)
    }
}

/// Whether the grant lets a client have these rules: `rule` of what they allow or deny, and `rule` or
/// `notify` of what they only tell of.
pub(super) fn may_have(grant: &Grant, set: &RuleSet) -> Result<(), ControlError> {
    let limit = u64::from(grant.limits.max_rules);
    if set.rules.len() as u64 > limit {
        return Err(ControlError::LimitExceeded { what: "rules", limit });
    }
    let may = |rule: &Rule, event| {
        let tells = rule.action == Action::Notify && grant.allows(event, Class::Notify);
        tells || grant.allows(event, Class::Rule)
    };
    for rule in &set.rules {
        let found = EventSet(rule.events).iter().find(|event: &EventType| !may(rule, *event));
        if let Some(event) = found {
            let reason = format!("rule {} is for it", rule.id);
            return Err(ControlError::NotGranted { event: event.name(), class: "rule", reason });
        }
    }
    Ok(())
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny(_) => "deny",
        Action::Notify => "notify",
    }
}

fn error(action: Action) -> Option<u16> {
    match action {
        Action::Deny(error) => Some(error),
        Action::Allow | Action::Notify => None,
    }
}

fn algorithm_of(name: Option<&str>) -> Result<Algorithm, ControlError> {
    match name {
        None | Some("sha256") => Ok(Algorithm::Sha256),
        Some("sha512") => Ok(Algorithm::Sha512Truncated),
        Some(_) => Err(ControlError::invalid("algorithm", "one of sha256, sha512 is wanted")),
    }
}

/// 64 hexadecimal digits, or the first 64 of 128.
fn digest(text: &str) -> Option<Digest> {
    let first = if text.len() == 128 { text.get(..64)? } else { text };
    from_hex(first)
}

fn too_many_digests(limit: usize) -> ControlError {
    ControlError::LimitExceeded { what: "digests", limit: limit as u64 }
}

pub(super) fn refused(why: RulesRefused) -> ControlError {
    match why {
        RulesRefused::Unavailable { event, reason } => {
            ControlError::EventUnavailable { event, class: "rule", reason }
        }
        RulesRefused::Wrong(wrong) => ControlError::RulesRefused {
            problems: wrong.problems.into_iter().map(Into::into).collect(),
        },
        RulesRefused::NoCollection(name) => ControlError::invalid(
            "name",
            format!("there is no collection {name:.64}: it comes before the rules that ask for it"),
        ),
        RulesRefused::InUse(name) => ControlError::invalid(
            "name",
            format!("a rule asks for the collection {name:.64}: replace the rules first"),
        ),
        RulesRefused::TooMany { what, limit } => ControlError::LimitExceeded { what, limit },
        RulesRefused::Kernel(error) => error.into(),
    }
}
