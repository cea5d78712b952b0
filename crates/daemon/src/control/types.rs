// SPDX-License-Identifier: Apache-2.0
//! The types of api/ringfence.varlink that more than one method has.

use std::time::Duration;

use broker::event::{Class, ClassSet, EventSet, EventType};
use broker::session::subscription::Subscription;
use broker::slot::ProcessKey;
use serde::{Deserialize, Serialize};

use super::ControlError;
use crate::kernel::{Availability, Counts, MuteTarget};

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// No results.
#[derive(Debug, Serialize)]
pub(super) struct Done {}

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// See [`broker::session::version::Version`].
    pub major: u16,
    /// See there.
    pub minor: u16,
}

impl From<broker::session::version::Version> for Version {
    fn from(version: broker::session::version::Version) -> Self {
        Self { major: version.major, minor: version.minor }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) pid: u32,
    pub(super) start: u64,
}

impl From<ProcessKey> for Key {
    fn from(key: ProcessKey) -> Self {
        Self { pid: key.pid, start: key.start }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct EventClasses {
    pub(super) event: &'static str,
    pub(super) classes: Vec<&'static str>,
}

impl EventClasses {
    pub(super) fn new(event: EventType, classes: ClassSet) -> Self {
        Self { event: event.name(), classes: names(classes) }
    }
}

pub(super) fn names(classes: ClassSet) -> Vec<&'static str> {
    classes.iter().map(Class::name).collect()
}

/// A `Subscription` of the interface, as it is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedEvent {
    event: String,
    classes: Vec<String>,
    deadline: Option<u64>,
}

impl NamedEvent {
    pub(super) fn parse(&self) -> Result<Subscription, ControlError> {
        let class = |name: &String| {
            let help = || format!("{name:.40} is not one of notify, rule, ask");
            Class::from_name(name).ok_or_else(|| ControlError::invalid("classes", help()))
        };
        Ok(Subscription {
            event: event(&self.event)?.number(),
            classes: self.classes.iter().map(class).collect::<Result<_, _>>()?,
            deadline: self.deadline.map(Duration::from_nanos),
        })
    }
}

/// An event by its name.
fn event(name: &str) -> Result<EventType, ControlError> {
    let help = || format!("{name:.40} is no event; GetCoverage has all of them");
    EventType::from_name(name).ok_or_else(|| ControlError::invalid("event", help()))
}

pub(super) fn event_names(events: EventSet) -> Vec<&'static str> {
    events.iter().map(EventType::name).collect()
}

/// A `Subscription` of the interface, as it is answered.
#[derive(Debug, Serialize)]
pub(super) struct HeldEvent {
    pub(super) event: &'static str,
    pub(super) classes: Vec<&'static str>,
    pub(super) deadline: Option<u64>,
}

impl HeldEvent {
    pub(super) fn new(event: EventType, classes: ClassSet, deadline: Duration) -> Self {
        let deadline = (!deadline.is_zero()).then(|| nanoseconds(deadline));
        Self { event: event.name(), classes: names(classes), deadline }
    }
}

pub(super) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A `MuteTarget` of the interface.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<FileId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<u64>,
}

/// Longest prefix, in bytes: the longest key that the kernel's prefix tree takes.
const PREFIX_MAX: usize = 256;

impl Target {
    pub(super) fn parse(self) -> Result<MuteTarget, ControlError> {
        let Self { process, executable, path_prefix, cgroup } = self;
        match (process, executable, path_prefix, cgroup) {
            (Some(Key { pid, start }), None, None, None) => {
                Ok(MuteTarget::Process(ProcessKey { pid, start }))
            }
            (None, Some(FileId { device, inode }), None, None) => {
                Ok(MuteTarget::Executable { device, inode })
            }
            (None, None, Some(prefix), None) if !prefix.starts_with('/') => {
                Err(ControlError::invalid("path_prefix", "a path begins with /"))
            }
            (None, None, Some(prefix), None) if prefix.len() > PREFIX_MAX => {
                Err(ControlError::LimitExceeded { what: "path_prefix", limit: 256 })
            }
            (None, None, Some(prefix), None) => Ok(MuteTarget::PathPrefix(prefix.into_bytes())),
            (None, None, None, Some(id)) => Ok(MuteTarget::Cgroup(id)),
            _ => {
                let help = "give exactly one of process, executable, path_prefix, cgroup";
                Err(ControlError::invalid("mutes", help))
            }
        }
    }
}

impl From<&MuteTarget> for Target {
    fn from(target: &MuteTarget) -> Self {
        let nothing = Self::default();
        match target {
            MuteTarget::Process(key) => Self { process: Some((*key).into()), ..nothing },
            MuteTarget::Executable { device, inode } => {
                let executable = Some(FileId { device: *device, inode: *inode });
                Self { executable, ..nothing }
            }
            MuteTarget::PathPrefix(prefix) => {
                Self { path_prefix: Some(String::from_utf8_lossy(prefix).into()), ..nothing }
            }
            MuteTarget::Cgroup(id) => Self { cgroup: Some(*id), ..nothing },
        }
    }
}

/// A `RuleProblem` of the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleProblem {
    /// Counted from 1.
    pub line: Option<u32>,
    /// Counted from 1, in characters.
    pub column: Option<u32>,
    /// Where in the document.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl From<rules::Problem> for RuleProblem {
    fn from(problem: rules::Problem) -> Self {
        Self {
            line: problem.place.map(|place| place.line),
            column: problem.place.map(|place| place.column),
            path: problem.path,
            message: problem.message,
        }
    }
}

/// An `Availability` of the interface.
#[derive(Debug, Serialize)]
pub(super) struct ClassState {
    state: &'static str,
    mechanism: Option<String>,
    reason: Option<String>,
}

impl From<Option<Availability>> for ClassState {
    fn from(availability: Option<Availability>) -> Self {
        let (state, mechanism, reason) = match availability {
            None => ("undefined", None, None),
            Some(Availability::Available { mechanism }) => ("available", Some(mechanism), None),
            Some(Availability::Reduced { mechanism, reason }) => {
                ("reduced", Some(mechanism), Some(reason))
            }
            Some(Availability::Unavailable { reason }) => ("unavailable", None, Some(reason)),
        };
        Self { state, mechanism, reason }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct RecordCounts {
    written: u64,
    lost: u64,
}

impl From<Counts> for RecordCounts {
    fn from(counts: Counts) -> Self {
        Self { written: counts.written, lost: counts.lost }
    }
}
