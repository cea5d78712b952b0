// SPDX-License-Identifier: Apache-2.0
//! From a document to a rule set: every field checked, every problem told with its place.

mod conditions;
mod reader;

use std::collections::HashMap;

use crate::error::{Problem, Refused};
use crate::events::{self, EVENTS, Event};
use crate::model::{Action, Rule, RuleSet};
use crate::names;
use crate::source::{self, Node};
use reader::{Item, Reader, Table};

/// Most rules of one set.
pub(crate) const RULES: usize = 16_384;

/// What a rule has, apart from its conditions.
const OF_RULE: [&str; 5] = ["id", "event", "action", "error", "dry_run"];

impl RuleSet {
    /// Reads a rule file (docs/rules.md).
    ///
    /// # Errors
    /// Everything that is wrong with it, each with line and column.
    pub fn from_toml(text: &str) -> Result<Self, Refused> {
        read(&source::from_toml(text)?)
    }

    /// Reads the same as JSON, as it comes over the control interface.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its path in the document.
    pub fn from_json(text: &str) -> Result<Self, Refused> {
        read(&source::from_json(text)?)
    }
}

fn read(document: &Node) -> Result<RuleSet, Refused> {
    let mut reader = Reader::default();
    let set = rule_set(&mut reader, &Item::whole(document));
    let mut problems = reader.problems;
    if problems.is_empty() {
        return Ok(set.unwrap_or_default());
    }
    problems.sort_by_key(|problem| problem.place);
    problems.truncate(Refused::SHOWN);
    Err(Refused { problems })
}

fn rule_set(reader: &mut Reader, whole: &Item<'_>) -> Option<RuleSet> {
    let table = reader.table(whole, &["rule"])?;
    let Some(rules) = table.get("rule") else { return Some(RuleSet::default()) };
    let items = reader.list(&rules)?;
    if items.len() > RULES {
        reader.wrong(&rules, format!("{} rules are more than the {RULES} of one set", items.len()));
        return None;
    }
    let mut seen = HashMap::new();
    let mut read = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        // Whoever gets dozens of problems has one problem, and it is told already.
        if reader.problems.len() >= Refused::SHOWN {
            break;
        }
        let Some(rule) = rule(reader, item) else { continue };
        if let Some(first) = seen.insert(rule.id, index) {
            reader.problems.push(Problem {
                place: item.node.place,
                path: format!("{}.id", item.path),
                message: format!("rule[{first}] has the number {} already", rule.id),
            });
        }
        read.push(rule);
    }
    Some(RuleSet { rules: read })
}

fn rule(reader: &mut Reader, item: &Item<'_>) -> Option<Rule> {
    let known: Vec<&str> = OF_RULE.iter().chain(&conditions::KNOWN).copied().collect();
    let table = reader.table(item, &known)?;
    let id = reader.required(&table, "id").and_then(|id| reader.integer(&id, 1, u32::MAX.into()));
    let types = reader.required(&table, "event").and_then(|event| event_types(reader, &event));
    let action = action(reader, &table);
    let dry_run = table.get("dry_run").is_some_and(|item| reader.truth(&item) == Some(true));
    let types = types?;
    let conditions = conditions::read(reader, &table, &types);
    if let Some(Action::Deny(_)) = action
        && let Some(event) = types.iter().find(|event| !event.deniable)
    {
        let item = table.get("action").unwrap_or_else(|| table.item.clone());
        reader.wrong(&item, format!("{} cannot be denied, it can only be told of", event.name));
    }
    Some(Rule {
        id: u32::try_from(id?).ok()?,
        events: types.iter().fold(0, |set, event| set | 1 << event.number),
        action: action?,
        dry_run,
        conditions,
    })
}

fn event_types(reader: &mut Reader, item: &Item<'_>) -> Option<Vec<&'static Event>> {
    let mut types = Vec::new();
    for item in reader.one_or_more(item)? {
        let name = reader.text(&item)?;
        let Some(event) = events::by_name(name) else {
            let known = EVENTS.iter().map(|event| event.name).collect::<Vec<_>>().join(", ");
            reader.wrong(&item, format!("no rules can be for {name:?}; they can be for {known}"));
            return None;
        };
        types.push(event);
    }
    Some(types)
}

fn action(reader: &mut Reader, table: &Table<'_>) -> Option<Action> {
    let item = reader.required(table, "action")?;
    let error = table.get("error");
    let name = reader.text(&item)?;
    if let Some(error) = &error
        && name != "deny"
    {
        reader.wrong(error, "only a rule with action = \"deny\" has an error".to_owned());
    }
    match name {
        "allow" => Some(Action::Allow),
        "notify" => Some(Action::Notify),
        "deny" => {
            let Some(error) = error else { return Some(Action::Deny(1)) };
            let name = reader.text(&error)?;
            let number = names::number(names::ERRORS, name);
            if number.is_none() {
                let known = names::listed(names::ERRORS);
                reader.wrong(&error, format!("{name:?} is none of {known}"));
            }
            number.and_then(|number| u16::try_from(number).ok()).map(Action::Deny)
        }
        other => {
            reader.wrong(&item, format!("{other:?} is none of allow, deny, notify"));
            None
        }
    }
}

#[cfg(test)]
mod tests;
