// SPDX-License-Identifier: Apache-2.0
//! `ringfence explain-event`: which rule decided an event, and why each one before it did not.

use std::collections::BTreeMap;
use std::io::{BufRead, stdin};
use std::path::PathBuf;

use abi::Outcome;
use anyhow::{Context as _, bail};
use clap::Args;
use rules::model::Condition;
use rules::{
    Action, Algorithm, Collection, Context, Explanation, Record, RuleSet, Step, Verdict, explain,
};
use serde::Deserialize;
use serde_json::json;

use crate::Ending;
use crate::control::{Daemon, Socket};
use crate::screen::Output;

/// Say which rule decided an event and why each one before it did not
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    socket: Socket,
    /// By the rules that this client has installed
    #[arg(long, value_name = "NAME", required_unless_present = "rules")]
    client: Option<String>,
    /// By the rules of this file instead; needs no ringfenced
    #[arg(long, value_name = "FILE", conflicts_with = "client")]
    rules: Option<PathBuf>,
    /// What a collection holds: a file with a digest in each line. Without it the collection is taken
    /// for an empty one
    #[arg(long = "collection", value_name = "NAME=FILE")]
    collections: Vec<String>,
    /// The event was told of when it was done, so nothing could be denied
    #[arg(long)]
    observed: bool,
    /// The record in hexadecimal; lines of `ringfence events --json --record` on standard input if there
    /// is none
    record: Option<String>,
}

const EXAMPLES: &str = "\
Example: ringfence events --json --record --count 1 | ringfence explain-event --client com.example.sensor";

/// What is read of a line of events.
#[derive(Deserialize)]
struct Line {
    record: Option<String>,
}

#[derive(Deserialize)]
struct Text {
    rules: String,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let set = rule_set(arguments)?;
    let collections = arguments.collections.iter().map(|named| collection(named));
    let context = Context {
        collections: collections.collect::<anyhow::Result<BTreeMap<_, _>>>()?,
        observed: arguments.observed,
        ..Context::default()
    };
    let mut output = Output::stdout();
    for note in unknown(&set, &context) {
        eprintln!("ringfence: {note}");
    }
    if let Some(record) = &arguments.record {
        output.put(&explained(&set, record, &context)?)?;
        return Ok(Ending::Clean);
    }
    for line in stdin().lock().lines() {
        let line = line.context("reading events from standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        output.put(&explained(&set, &record_of(&line)?, &context)?)?;
    }
    Ok(Ending::Clean)
}

fn rule_set(arguments: &Arguments) -> anyhow::Result<RuleSet> {
    if let Some(file) = &arguments.rules {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        return RuleSet::from_toml(&text).with_context(|| file.display().to_string());
    }
    let client = json!({ "client": arguments.client });
    let text: Text = Daemon::connect(&arguments.socket)?.call_with("GetRuleText", &client)?;
    RuleSet::from_toml(&text.rules).context("the rules that the client installed")
}

fn collection(named: &str) -> anyhow::Result<(String, Collection)> {
    let (name, file) = named.split_once('=').context("--collection takes NAME=FILE")?;
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let collection =
        Collection::from_text(Algorithm::Sha256, &text).with_context(|| file.to_owned())?;
    Ok((name.to_owned(), collection))
}

/// What the rules ask for and is not in a record.
fn unknown(set: &RuleSet, context: &Context) -> Vec<String> {
    let mut notes = Vec::new();
    for condition in set.rules.iter().flat_map(|rule| &rule.conditions) {
        let note = match condition {
            Condition::DescendantOf(_) => {
                "a record does not say what the actor descends from: rules that ask for it are taken \
                 not to match"
                    .to_owned()
            }
            Condition::DigestIn(_, names) => {
                let missing = names.iter().find(|name| !context.collections.contains_key(*name));
                let Some(missing) = missing else { continue };
                format!("the collection {missing} is taken for an empty one: see --collection")
            }
            _ => continue,
        };
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

/// The record in a line, which is one of events or hexadecimal itself.
fn record_of(line: &str) -> anyhow::Result<String> {
    let line = line.trim();
    if !line.starts_with('{') {
        return Ok(line.to_owned());
    }
    let line: Line = serde_json::from_str(line).context("this line is no event")?;
    line.record.context("the event comes without its record: use ringfence events --json --record")
}

fn explained(set: &RuleSet, record: &str, context: &Context) -> anyhow::Result<String> {
    let bytes = bytes_of(record).context("the record is not in hexadecimal")?;
    let Some(record) = Record::new(&bytes) else {
        bail!("this is no record of an event that rules can be for");
    };
    let name = record.event().name;
    let explanation = explain(set, &record, context);
    let said = abi::RecordBuffer::copy_of(&bytes);
    let said = said.record().context("the record")?;
    let word = in_the_record(said.header(), said.outcome(), &explanation);
    Ok(format!("{name}:\n{explanation}{word}"))
}

/// What the kernel wrote into the record of how it was decided, and whether these rules come to the same. They
/// need not: they may be others by now, know nothing of ancestors, and never know of other clients.
fn in_the_record(header: &abi::Header, outcome: Option<Outcome>, here: &Explanation) -> String {
    let denies = |step: &&Step| matches!(step.verdict, Verdict::Decided(Action::Deny(_)));
    // Nothing comes after the one that decides.
    let denying = here.steps.last().filter(denies).map(|step| step.rule);
    if outcome != Some(Outcome::Denied) {
        return match denying {
            Some(_) => "but the record says that it was not denied\n".to_owned(),
            None => String::new(),
        };
    }
    let error = std::io::Error::from_raw_os_error(header.error.into());
    match header.rule {
        0 => format!("it was denied by another client's rule or verdict: {error}\n"),
        rule if Some(rule) == denying => format!("so does the record: {error}\n"),
        rule => format!(
            "but the record says that rule {rule} of the client that got it denied it: {error}\n"
        ),
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    let byte =
        |pair: &[u32]| u8::try_from(pair.iter().fold(0, |byte, digit| byte << 4 | digit)).ok();
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "\
[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"allow\"\nactor.uid = 5\n\
[[rule]]\nid = 2\nevent = \"process_exec\"\naction = \"deny\"\nerror = \"EACCES\"\n";

    fn record() -> String {
        use abi::{EventType, ProcessExec, RecordBuilder};
        let record = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec).finish();
        record.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_rule_that_decided_is_named_and_why_the_one_before_did_not() {
        let set = RuleSet::from_toml(RULES).unwrap();
        let said = explained(&set, &record(), &Context::default()).unwrap();
        assert_eq!(
            said,
            "process_exec:\nrule 1: does not match: actor.uid is to be 5, but it is 0\n\
             rule 2: matches: denied with EACCES\n\
             but the record says that it was not denied\n"
        );
    }

    #[test]
    fn what_the_record_says_of_it_stands_beside_it() {
        let here = |rules: &str| {
            let set = RuleSet::from_toml(rules).unwrap();
            let bytes = bytes_of(&record()).unwrap();
            explain(&set, &Record::new(&bytes).unwrap(), &Context::default())
        };
        let (denying, silent) = (here(RULES), here(""));
        let header = |error, rule| abi::Header { error, rule, ..abi::Header::default() };
        let says = |header: abi::Header, here| in_the_record(&header, Some(Outcome::Denied), here);
        assert!(says(header(13, 2), &denying).starts_with("so does the record: Permission denied"));
        assert!(says(header(1, 9), &denying).contains("rule 9 of the client that got it"));
        assert!(says(header(1, 0), &silent).contains("by another client's rule or verdict"));
        let allowed = |here| in_the_record(&header(0, 0), Some(Outcome::Allowed), here);
        assert!(allowed(&denying).contains("it was not denied"));
        assert_eq!(allowed(&silent), "");
    }

    #[test]
    fn a_line_of_events_has_its_record_or_says_how_to_get_it() {
        let line = json!({ "type": "process_exec", "record": "ab" }).to_string();
        assert_eq!(record_of(&line).unwrap(), "ab");
        assert_eq!(record_of(" cd\n").unwrap(), "cd");
        let error = record_of("{\"type\":\"process_exec\"}").unwrap_err();
        assert!(error.to_string().contains("--record"), "{error}");
        let set = RuleSet::default();
        assert!(explained(&set, "ab", &Context::default()).is_err());
        assert!(explained(&set, "abc", &Context::default()).is_err());
    }

    #[test]
    fn what_a_record_does_not_say_is_said() {
        let text = RULES.to_owned() + "file.digest_in = \"bad\"\n";
        let set = RuleSet::from_toml(&text).unwrap();
        assert_eq!(unknown(&set, &Context::default()).len(), 1);
        assert!(unknown(&RuleSet::from_toml(RULES).unwrap(), &Context::default()).is_empty());
    }
}
