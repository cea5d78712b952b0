// SPDX-License-Identifier: Apache-2.0
//! `ringfence rules`: what each client's rules did so far, and what is wrong in a text of rules.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use rules::RuleSet;
use sdk::{ClientRules, RuleState};
use serde::{Deserialize, Serialize};

use crate::Ending;
use crate::control::Query;
use crate::screen::{Output, Style, Tone};

/// Show the rules that the kernel decides by, with counters, or check a file of rules
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    query: Query,
    /// Say what is wrong in a file of rules (docs/rules.md), with line and column; needs no ringfenced
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    check: Option<PathBuf>,
}

/// The reply to GetRules.
#[derive(Debug, Deserialize, Serialize)]
struct All {
    clients: Vec<ClientRules>,
}

/// Runs the subcommand. Status 1: something is wrong in the file.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    if let Some(file) = &arguments.check {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        let (said, ending) = checked(file, &text);
        Output::stdout().put(&said)?;
        return Ok(ending);
    }
    let all: All = arguments.query.daemon()?.call("GetRules")?;
    arguments.query.show(&all, |all, style| render(&all.clients, style))?;
    Ok(Ending::Clean)
}

/// Problems as compilers say them, so that editors find their places.
fn checked(file: &Path, text: &str) -> (String, Ending) {
    let file = file.display();
    match RuleSet::from_toml(text) {
        Ok(set) => (format!("{file}: {} rules, in order\n", set.rules.len()), Ending::Clean),
        Err(refused) => {
            let said = refused.problems.into_iter().map(|problem| {
                let place = problem.place.map(|place| format!("{}:{}:", place.line, place.column));
                let path = if problem.path.is_empty() { "" } else { ": " };
                let (place, at) = (place.unwrap_or_default(), problem.path);
                format!("{file}:{place} {at}{path}{}\n", problem.message)
            });
            (said.collect(), Ending::Findings)
        }
    }
}

fn render(clients: &[ClientRules], style: Style) -> String {
    if clients.iter().all(|client| client.rules.is_empty() && client.collections.is_empty()) {
        return "No client has rules.\n".to_owned();
    }
    let mut text = String::new();
    for client in clients {
        let heading = style.paint(Tone::Heading, &client.client);
        let state = if client.connected { "" } else { ", not connected at the moment" };
        text.push_str(&format!("{heading}  {} rules{state}\n", client.rules.len()));
        for rule in &client.rules {
            text.push_str(&line(rule, style));
        }
        for collection in &client.collections {
            let (name, digests) = (&collection.name, collection.digests);
            text.push_str(&format!("  collection {name}: {digests} digests\n"));
        }
    }
    text
}

fn line(rule: &RuleState, style: Style) -> String {
    let action = match rule.error {
        Some(error) => format!("{} (errno {error})", rule.action),
        None => rule.action.clone(),
    };
    let dry_run = if rule.dry_run { ", dry run" } else { "" };
    let tone = if rule.matches == 0 { Tone::Faint } else { Tone::Good };
    let counts = format!("{} matched, {} denied", rule.matches, rule.denies);
    let (id, events) = (rule.id, rule.events.join(", "));
    format!("  {id:>6}  {:<26}  {}  {events}\n", action + dry_run, style.paint(tone, &counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_said_with_its_line_and_column_and_ends_with_status_1() {
        let good = "[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"deny\"\n";
        let file = Path::new("set.toml");
        assert_eq!(checked(file, good), ("set.toml: 1 rules, in order\n".into(), Ending::Clean));
        let (said, ending) = checked(file, &good.replace("deny", "dney"));
        assert_eq!(ending, Ending::Findings);
        assert!(said.starts_with("set.toml:4:10: rule[0].action: \"dney\" is none of"), "{said}");
    }

    #[test]
    fn rules_are_shown_with_what_they_did() {
        let client = ClientRules {
            client: "com.example.sensor".into(),
            connected: false,
            rules: vec![RuleState {
                id: 7,
                events: vec!["process_exec".into(), "image_map".into()],
                action: "deny".into(),
                error: Some(13),
                dry_run: true,
                matches: 3,
                denies: 0,
            }],
            collections: vec![sdk::CollectionState { name: "bad".into(), digests: 9 }],
        };
        let text = render(&[client], Style::plain());
        for part in [
            "com.example.sensor  1 rules, not connected at the moment\n",
            "       7  deny (errno 13), dry run    3 matched, 0 denied  process_exec, image_map\n",
            "  collection bad: 9 digests\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(render(&[], Style::plain()), "No client has rules.\n");
    }
}
