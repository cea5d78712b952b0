// SPDX-License-Identifier: Apache-2.0
//! Which rule decided, and why each one before it did not.

use std::fmt;

use crate::evaluate::{Context, holds};
use crate::events::Event;
use crate::model::{Action, Bits, Condition, File, Number, Process, RuleSet};
use crate::names;
use crate::record::Record;

/// What became of each rule up to the one that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// In the order of the set.
    pub steps: Vec<Step>,
}

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The client's number of it.
    pub rule: u32,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is for other types of event.
    OtherEvent,
    /// This condition does not hold.
    Fails {
        /// What the rule wants, such as `actor.uid is 0`.
        wanted: String,
        /// What the record has.
        seen: String,
    },
    /// All conditions hold, and the search went on.
    Told {
        /// Because of dry run, not because of its action.
        dry_run: bool,
    },
    /// All conditions hold, and it decided: allow, or the errno.
    Decided(Action),
}

/// Explains what a set says of a record.
#[must_use]
pub fn explain(set: &RuleSet, record: &Record<'_>, context: &Context) -> Explanation {
    let mut steps = Vec::new();
    for rule in &set.rules {
        let fails = || rule.conditions.iter().find(|one| !holds(one, record, context));
        let verdict = if rule.events >> record.event().number & 1 == 0 {
            Verdict::OtherEvent
        } else if let Some(condition) = fails() {
            Verdict::Fails {
                wanted: wanted(condition, record.event()),
                seen: seen(condition, record, context),
            }
        } else if rule.decides() {
            Verdict::Decided(rule.action)
        } else {
            Verdict::Told { dry_run: rule.dry_run }
        };
        let decided = matches!(verdict, Verdict::Decided(_));
        steps.push(Step { rule: rule.id, verdict });
        if decided {
            break;
        }
    }
    Explanation { steps }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "rule {}: {}", step.rule, step.verdict)?;
        }
        let decided = self.steps.last().is_some_and(|s| matches!(s.verdict, Verdict::Decided(_)));
        if decided { Ok(()) } else { writeln!(f, "no rule decided") }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherEvent => f.write_str("is for other types of event"),
            Self::Fails { wanted, seen } => write!(f, "does not match: {wanted}, but it is {seen}"),
            Self::Told { dry_run: true } => f.write_str("matches, dry run: told, and went on"),
            Self::Told { dry_run: false } => f.write_str("matches: told, and went on"),
            Self::Decided(Action::Deny(error)) => {
                let name = names::name(names::ERRORS, (*error).into());
                write!(f, "matches: denied with {}", name.unwrap_or("an error"))
            }
            Self::Decided(_) => f.write_str("matches: allowed"),
        }
    }
}

fn of_process(process: Process) -> &'static str {
    match process {
        Process::Actor => "actor",
        Process::Target => "target",
    }
}

fn of_file(file: File, event: &Event) -> &'static str {
    match file {
        File::Executable => "actor",
        File::Subject if event.target.is_some() => "target",
        File::Subject => "file",
    }
}

fn of_number(number: Number, event: &Event) -> &'static str {
    match number {
        Number::Uid => "actor.uid",
        Number::Euid => "actor.euid",
        Number::Gid => "actor.gid",
        Number::Egid => "actor.egid",
        Number::Cgroup => "actor.cgroup",
        Number::UserNamespace => "actor.user_namespace",
        Number::PidNamespace => "actor.pid_namespace",
        Number::MountNamespace => "actor.mount_namespace",
        Number::NetNamespace => "actor.net_namespace",
        Number::Own => event.own.map_or("its number", |(own, _)| own.name()),
    }
}

fn of_bits(bits: Bits, event: &Event) -> &'static str {
    match bits {
        Bits::Protection if event.is_opening() => "access",
        Bits::Protection => "protection",
        Bits::Before => "before",
        Bits::Flags => "flags",
        Bits::Record => "record",
        Bits::Executable => "actor.is",
        Bits::File if event.target.is_some() => "target.is",
        Bits::File => "file.is",
    }
}

fn number_text(number: Number, value: u64, event: &Event) -> String {
    let own = event.own.filter(|_| number == Number::Own);
    let named =
        own.and_then(|(own, _)| names::name(names::of_own(own), u32::try_from(value).ok()?));
    named.map_or_else(|| value.to_string(), str::to_owned)
}

fn bits_text(bits: Bits, mask: u32) -> String {
    let names: Vec<String> = (0..32)
        .map(|bit| 1u32 << bit)
        .filter(|bit| mask & bit != 0)
        .map(|bit| {
            names::name(names::of_bits(bits), bit)
                .map_or_else(|| format!("{bit:#x}"), str::to_owned)
        })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join("+") }
}

fn either<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    values.iter().map(text).collect::<Vec<_>>().join(" or ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wanted(condition: &Condition, event: &Event) -> String {
    match condition {
        Condition::Process(process, keys) => {
            let keys = either(keys, |key| format!("pid {} started at {}", key.pid, key.start));
            format!("{}.process is to be {keys}", of_process(*process))
        }
        Condition::DescendantOf(keys) => {
            let keys = either(keys, |key| format!("pid {} started at {}", key.pid, key.start));
            format!("the actor is to descend from {keys}")
        }
        Condition::File(file, files) => {
            let files = either(files, |file| {
                let version = file.version.map(|version| format!(" version {version}"));
                let version = version.unwrap_or_default();
                format!("device {} inode {}{version}", file.device, file.inode)
            });
            format!("the file of {} is to be {files}", of_file(*file, event))
        }
        Condition::Path(file, prefixes) => {
            let prefixes = either(prefixes, crate::model::Prefix::text);
            format!("{}.path is to be {prefixes} or below", of_file(*file, event))
        }
        Condition::PathUnknown(file) => {
            format!("{}.path is to be unknown", of_file(*file, event))
        }
        Condition::DigestIn(file, names) => {
            let names = either(names, String::clone);
            format!("the digest of {} is to be in {names}", of_file(*file, event))
        }
        Condition::Number(number, values) => {
            let values = either(values, |value| number_text(*number, *value, event));
            format!("{} is to be {values}", of_number(*number, event))
        }
        Condition::Name(names) => {
            let names = either(names, |name| String::from_utf8_lossy(name).into_owned());
            format!("the name is to be {names}")
        }
        Condition::Bits { of, mask, all } => {
            let how = if *all { "all of" } else { "any of" };
            format!("{} is to have {how} {}", of_bits(*of, event), bits_text(*of, *mask))
        }
    }
}

fn seen(condition: &Condition, record: &Record<'_>, context: &Context) -> String {
    let nothing = || "not there".to_owned();
    let path = |file| {
        let path = record.path(file).map(|path| String::from_utf8_lossy(path).into_owned());
        path.unwrap_or_else(|| "unknown".to_owned())
    };
    match condition {
        Condition::Process(process, _) => record
            .process(*process)
            .map_or_else(nothing, |key| format!("pid {} started at {}", key.pid, key.start)),
        Condition::DescendantOf(_) => {
            let ancestors: Vec<String> =
                context.ancestors.iter().map(|key| format!("pid {}", key.pid)).collect();
            if ancestors.is_empty() { "of none known".to_owned() } else { ancestors.join(", ") }
        }
        Condition::File(file, _) => record.file(*file).map_or_else(nothing, |file| {
            let version = file.version.unwrap_or_default();
            format!("device {} inode {} version {version}", file.device, file.inode)
        }),
        Condition::Path(file, _) | Condition::PathUnknown(file) => path(*file),
        Condition::DigestIn(file, _) => record
            .digest(*file)
            .map_or_else(|| "a file without a digest".to_owned(), |(_, digest)| hex(&digest)),
        Condition::Number(number, _) => record
            .number(*number)
            .map_or_else(nothing, |value| number_text(*number, value, record.event())),
        Condition::Name(_) => {
            record.name().map_or_else(nothing, |name| String::from_utf8_lossy(name).into_owned())
        }
        Condition::Bits { of, .. } => {
            record.bits(*of).map_or_else(nothing, |bits| bits_text(*of, bits))
        }
    }
}

#[cfg(test)]
mod tests;
