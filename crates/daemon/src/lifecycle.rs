// SPDX-License-Identifier: Apache-2.0
//! `api/lifecycle.toml`: which events there are and how settled each is.

use std::collections::BTreeMap;

use broker::event::{Class, EventType};
use broker::session::lifecycle::{Life, Lifecycle as Lives, Stage as Settled};
use broker::session::version::Version;
use serde::{Deserialize, Serialize};

const TEXT: &str = include_str!("../../../api/lifecycle.toml");

/// How settled an event is, of those that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// May change between minor versions.
    Draft,
    /// Changes only if something is wrong with it.
    Candidate,
    /// Only grows.
    Stable,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it; see api/lifecycle.toml")]
pub enum Area {
    Process,
    Image,
    Memory,
    File,
    Tamper,
    Kernel,
    Session,
}

/// What is said of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub event: EventType,
    /// What it is about.
    pub area: Area,
    /// How settled it is.
    pub stage: Stage,
    /// The version of the API that had it first.
    pub since: Version,
    /// What it can have where nothing is lacking.
    pub classes: Vec<Class>,
}

/// All events, by number.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    entries: Vec<Entry>,
}

/// What is wrong with the text; a test sees to it that nothing is.
#[derive(Debug, thiserror::Error)]
#[error("api/lifecycle.toml: {0}")]
pub struct LifecycleError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    number: u16,
    area: Area,
    stage: Stage,
    since: String,
    classes: Vec<String>,
}

impl Lifecycle {
    /// As it was when this was built.
    pub fn built_in() -> Result<Self, LifecycleError> {
        Self::parse(TEXT)
    }

    fn parse(text: &str) -> Result<Self, LifecycleError> {
        let written: BTreeMap<String, Written> =
            toml::from_str(text).map_err(|error| LifecycleError(error.to_string()))?;
        let mut entries = Vec::new();
        for (name, written) in written {
            let wrong = |what: String| LifecycleError(format!("{name}: {what}"));
            let event = EventType::from_name(&name)
                .filter(|event| event.number() == written.number)
                .ok_or_else(|| wrong(format!("is not event {}", written.number)))?;
            let class = |name: &String| {
                Class::from_name(name).ok_or_else(|| wrong(format!("there is no class {name}")))
            };
            let classes = written.classes.iter().map(class).collect::<Result<_, _>>()?;
            let since =
                version(&written.since).ok_or_else(|| wrong("since is no version".into()))?;
            let Written { area, stage, .. } = written;
            entries.push(Entry { event, area, stage, since, classes });
        }
        entries.sort_by_key(|entry| entry.event);
        Ok(Self { entries })
    }

    /// All events, by number.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The same as the broker has it: without what every session gets.
    #[must_use]
    pub fn lives(&self) -> Lives {
        let granted = self.entries.iter().filter(|entry| entry.area != Area::Session);
        Lives::new(granted.map(|entry| {
            let stage = match entry.stage {
                Stage::Draft => Settled::Draft,
                Stage::Candidate => Settled::Candidate,
                Stage::Stable => Settled::Stable,
            };
            let life = Life { stage, since: entry.since, successor: None, until: None };
            (entry.event, life)
        }))
    }
}

fn version(text: &str) -> Option<Version> {
    let (major, minor) = text.split_once('.')?;
    Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_lifecycle_and_the_header_have_the_same_events() {
        let header = include_str!("../../../api/ringfence.h");
        let first = header.find("/* --- types of events").unwrap();
        let last = header.find("#define RINGFENCE_TYPES").unwrap();
        let of_header: BTreeSet<(String, u16)> = header[first..last]
            .lines()
            .filter_map(|line| line.strip_prefix("#define RINGFENCE_"))
            .filter_map(|line| {
                let (name, number) = line.split_once(char::is_whitespace)?;
                Some((name.to_lowercase(), number.trim().parse().ok()?))
            })
            .collect();
        let lifecycle = Lifecycle::built_in().unwrap();
        let of_lifecycle = lifecycle
            .entries()
            .iter()
            .map(|entry| (entry.event.name().to_owned(), entry.event.number()))
            .collect();
        assert_eq!(of_header, of_lifecycle);
    }

    #[test]
    fn classes_are_those_that_a_grant_can_give() {
        for entry in Lifecycle::built_in().unwrap().entries() {
            let classes: broker::event::ClassSet = entry.classes.iter().copied().collect();
            if entry.area == Area::Session {
                assert!(entry.event.classes().is_empty(), "{}", entry.event);
            } else {
                assert_eq!(classes, entry.event.classes(), "{}", entry.event);
            }
        }
    }

    #[test]
    fn an_event_that_is_not_one_is_refused() {
        let text = |name: &str, number: u16, since: &str| {
            let rest = "area = \"file\"\nstage = \"draft\"\nclasses = []";
            format!("[{name}]\nnumber = {number}\nsince = \"{since}\"\n{rest}")
        };
        assert!(Lifecycle::parse(&text("process_exec", 1, "1.0")).is_ok());
        assert!(Lifecycle::parse(&text("process_exec", 2, "1.0")).is_err());
        assert!(Lifecycle::parse(&text("process_exec", 1, "1")).is_err());
        assert!(Lifecycle::parse(&text("no_event", 1, "1.0")).is_err());
        assert!(Lifecycle::parse(&format!("{}\nx = 1", text("process_exec", 1, "1.0"))).is_err());
    }
}
