// SPDX-License-Identifier: Apache-2.0
//! The named errors of the control interface (`api/ringfence.varlink`), with a text for people.

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::connection::INTERFACE;
use super::interface::ApiVersion;

/// Something that is wrong in a text of rules.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RuleProblem {
    /// Counted from 1; `None` if it is about all of it.
    pub line: Option<u32>,
    /// Counted from 1, in characters.
    pub column: Option<u32>,
    /// Where in the document, such as `rule[3].actor.uid`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl std::fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

fn listed(problems: &[RuleProblem]) -> String {
    problems.iter().map(RuleProblem::to_string).collect::<Vec<_>>().join("; ")
}

/// What the daemon refused, and why. There will be more: [`Refusal::Other`] is whatever has no name
/// here.
#[derive(Clone, Debug, Deserialize, Error, PartialEq, Eq)]
#[serde(tag = "error", content = "parameters")]
#[non_exhaustive]
pub enum Refusal {
    /// There is no valid grant of this name.
    #[error("there is no grant for `{client}`: an administrator adds one in {directory}")]
    NoGrant {
        /// Which client.
        client: String,
        /// Where grants are.
        directory: String,
    },
    /// The caller is not who the grant is for.
    #[error("the grant of `{client}` is for somebody else: {reason} (this is {found})")]
    IdentityRefused {
        /// Which client.
        client: String,
        /// What does not fit.
        reason: String,
        /// What the caller is.
        found: String,
    },
    /// The daemon knows no version that this program knows.
    #[error(
        "Ringfence speaks {} of the API, this program {}: one of the two needs an update",
        versions(supported),
        abi::ABI
    )]
    VersionUnsupported {
        /// The versions that it knows.
        supported: Vec<ApiVersion>,
    },
    /// The grant shows less than the whole host, and this host cannot do that.
    #[error("`{client}` is to see its {scope} only, and this host cannot do that: {reason}")]
    ScopeUnavailable {
        /// Which client.
        client: String,
        /// `descendants` or `cgroup`.
        scope: String,
        /// What is missing.
        reason: String,
    },
    /// The session that was to go on is over.
    #[error("the earlier session is over; a new one must be opened")]
    NothingToResume {},
    /// The client has a session already.
    #[error("`{client}` is connected already, as process {pid}; it has one session at a time")]
    AlreadyConnected {
        /// Which client.
        client: String,
        /// Whose session it is.
        pid: u32,
    },
    /// This connection has a session already.
    #[error("this connection has a session already, of `{client}`")]
    SessionOpen {
        /// Which client's.
        client: String,
    },
    /// The session is over, or was not opened.
    #[error("there is no session on this connection")]
    NoSession {},
    /// The method is for root.
    #[error("{method} is for root")]
    NotAdministrator {
        /// Which method.
        method: String,
    },
    /// The grant does not give it.
    #[error("the grant does not give {event} with class {class}: {reason}")]
    NotGranted {
        /// Which event.
        event: String,
        /// Which class.
        class: String,
        /// Why.
        reason: String,
    },
    /// This host does not give it.
    #[error("this host does not give {event} with class {class}: {reason}")]
    EventUnavailable {
        /// Which event.
        event: String,
        /// Which class.
        class: String,
        /// Why, and what would help.
        reason: String,
    },
    /// A value makes no sense.
    #[error("`{parameter}` cannot be that: {reason}")]
    InvalidArgument {
        /// Which.
        parameter: String,
        /// What is expected.
        reason: String,
    },
    /// Too much of something.
    #[error("too much: {what}, of which there can be {limit}")]
    LimitExceeded {
        /// Of what.
        what: String,
        /// How much there can be.
        limit: u64,
    },
    /// Something is wrong in the rules; nothing was changed.
    #[error("the rules are refused: {}", listed(problems))]
    RulesRefused {
        /// In the order of the text.
        problems: Vec<RuleProblem>,
    },
    /// There is no such process.
    #[error("there is no process {pid} any more, or not the one that is meant")]
    ProcessNotFound {
        /// Which.
        pid: u32,
    },
    /// There is no such cgroup.
    #[error("there is no cgroup {cgroup} any more")]
    CgroupNotFound {
        /// Which.
        cgroup: u64,
    },
    /// The file cannot be measured.
    #[error("{path} cannot be measured: {reason}")]
    FileUnavailable {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The grant does not say that this is given of the memory of processes.
    #[error("the grant has no \"{what}\" in memory")]
    MemoryNotGranted {
        /// `map` or `read`.
        what: String,
    },
    /// The memory of a process cannot be read.
    #[error("the memory of process {pid} at {address:#x} cannot be read: {reason}")]
    MemoryUnavailable {
        /// Whose.
        pid: u32,
        /// Where.
        address: u64,
        /// Why.
        reason: String,
    },
    /// The kernel refused what should work.
    #[error("the kernel refused to {operation}: {reason}")]
    KernelRefused {
        /// What the daemon tried.
        operation: String,
        /// The kernel's reason.
        reason: String,
    },
    /// An error that has no name here: of varlink itself, or of a newer daemon.
    #[error("Ringfence refused: {name} {parameters}")]
    #[serde(skip)]
    Other {
        /// Its full name.
        name: String,
        /// What it says.
        parameters: Value,
    },
}

fn versions(supported: &[ApiVersion]) -> String {
    supported.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Refusal {
    /// The error of this full name. What has not the parameters that it should have is `Other` too.
    pub(crate) fn named(name: &str, parameters: Value) -> Self {
        name.strip_prefix(INTERFACE)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|error| {
                let tagged = json!({ "error": error, "parameters": &parameters });
                serde_json::from_value(tagged).ok()
            })
            .unwrap_or_else(|| Self::Other { name: name.to_owned(), parameters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_error_becomes_its_variant_and_reads_as_a_sentence() {
        let parameters =
            json!({ "event": "image_map", "class": "ask", "reason": "no gate", "new": 1 });
        let refusal = Refusal::named("io.ringfence.Control.EventUnavailable", parameters);
        assert_eq!(
            refusal.to_string(),
            "this host does not give image_map with class ask: no gate"
        );
        assert_eq!(
            Refusal::named("io.ringfence.Control.NoSession", json!({})),
            Refusal::NoSession {}
        );
        let parameters = json!({ "supported": [{ "major": 2, "minor": 0 }] });
        let refusal = Refusal::named("io.ringfence.Control.VersionUnsupported", parameters);
        assert_eq!(
            refusal.to_string(),
            "Ringfence speaks 2.0 of the API, this program 1: one of the two needs an update"
        );
    }

    #[test]
    fn an_error_without_a_name_here_keeps_what_it_says() {
        for (name, parameters) in [
            ("org.varlink.service.MethodNotFound", json!({ "method": "io.ringfence.Control.X" })),
            ("io.ringfence.Control.NoGrant", json!({ "client": 3 })),
            ("io.ringfence.Control.Other", json!({ "name": "x", "parameters": 1 })),
        ] {
            let refusal = Refusal::named(name, parameters.clone());
            assert_eq!(refusal, Refusal::Other { name: name.to_owned(), parameters });
        }
    }
}
