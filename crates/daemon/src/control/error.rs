// SPDX-License-Identifier: Apache-2.0
//! The errors of `io.ringfence.Control`, as api/ringfence.varlink declares them.

use std::fmt;

use serde::Serialize;

use super::types::{RuleProblem, Version};
use crate::kernel::KernelError;
use crate::varlink::ServiceError;

/// An answer that is not what the caller wanted. Fields are the error's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "api/ringfence.varlink says what each is and what to do")]
pub enum ControlError {
    NoGrant { client: String, directory: String },
    IdentityRefused { client: String, reason: String, found: String },
    ScopeUnavailable { client: String, scope: &'static str, reason: String },
    VersionUnsupported { supported: Vec<Version> },
    AlreadyConnected { client: String, pid: u32 },
    SessionOpen { client: String },
    NothingToResume {},
    NoSession {},
    NotAdministrator { method: &'static str },
    NotGranted { event: &'static str, class: &'static str, reason: String },
    EventUnavailable { event: &'static str, class: &'static str, reason: String },
    InvalidArgument { parameter: &'static str, reason: String },
    LimitExceeded { what: &'static str, limit: u64 },
    RulesRefused { problems: Vec<RuleProblem> },
    ProcessNotFound { pid: u32 },
    CgroupNotFound { cgroup: u64 },
    FileUnavailable { path: String, reason: String },
    MemoryNotGranted { what: &'static str },
    MemoryUnavailable { pid: u32, address: u64, reason: String },
    KernelRefused { operation: &'static str, reason: String },
    Service(ServiceError),
}

impl ControlError {
    /// Its full name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = match self {
            Self::NoGrant { .. } => "NoGrant",
            Self::IdentityRefused { .. } => "IdentityRefused",
            Self::ScopeUnavailable { .. } => "ScopeUnavailable",
            Self::VersionUnsupported { .. } => "VersionUnsupported",
            Self::AlreadyConnected { .. } => "AlreadyConnected",
            Self::SessionOpen { .. } => "SessionOpen",
            Self::NothingToResume {} => "NothingToResume",
            Self::NoSession {} => "NoSession",
            Self::NotAdministrator { .. } => "NotAdministrator",
            Self::NotGranted { .. } => "NotGranted",
            Self::EventUnavailable { .. } => "EventUnavailable",
            Self::InvalidArgument { .. } => "InvalidArgument",
            Self::LimitExceeded { .. } => "LimitExceeded",
            Self::RulesRefused { .. } => "RulesRefused",
            Self::ProcessNotFound { .. } => "ProcessNotFound",
            Self::CgroupNotFound { .. } => "CgroupNotFound",
            Self::FileUnavailable { .. } => "FileUnavailable",
            Self::MemoryNotGranted { .. } => "MemoryNotGranted",
            Self::MemoryUnavailable { .. } => "MemoryUnavailable",
            Self::KernelRefused { .. } => "KernelRefused",
            Self::Service(error) => return error.name().to_owned(),
        };
        format!("{}.{name}", super::INTERFACE.name)
    }

    pub(crate) fn invalid(parameter: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidArgument { parameter, reason: reason.into() }
    }
}

impl From<KernelError> for ControlError {
    fn from(error: KernelError) -> Self {
        crate::log::error(&error);
        Self::KernelRefused { operation: error.operation, reason: error.reason }
    }
}

impl From<ServiceError> for ControlError {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl std::error::Error for ControlError {}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{} {parameters}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// One of each.
    fn all() -> Vec<ControlError> {
        let text = String::new;
        let version = Version { major: 1, minor: 0 };
        vec![
            ControlError::NoGrant { client: text(), directory: text() },
            ControlError::IdentityRefused { client: text(), reason: text(), found: text() },
            ControlError::ScopeUnavailable { client: text(), scope: "", reason: text() },
            ControlError::VersionUnsupported { supported: vec![version] },
            ControlError::AlreadyConnected { client: text(), pid: 1 },
            ControlError::SessionOpen { client: text() },
            ControlError::NothingToResume {},
            ControlError::NoSession {},
            ControlError::NotAdministrator { method: "" },
            ControlError::NotGranted { event: "", class: "", reason: text() },
            ControlError::EventUnavailable { event: "", class: "", reason: text() },
            ControlError::InvalidArgument { parameter: "", reason: text() },
            ControlError::LimitExceeded { what: "", limit: 1 },
            ControlError::RulesRefused { problems: Vec::new() },
            ControlError::ProcessNotFound { pid: 1 },
            ControlError::CgroupNotFound { cgroup: 1 },
            ControlError::FileUnavailable { path: text(), reason: text() },
            ControlError::MemoryNotGranted { what: "" },
            ControlError::MemoryUnavailable { pid: 1, address: 1, reason: text() },
            ControlError::KernelRefused { operation: "", reason: text() },
        ]
    }

    /// Errors of the interface's text: names and the names of their fields.
    fn declared() -> BTreeMap<String, Vec<String>> {
        let lines = super::super::INTERFACE.description.lines();
        let errors = lines.filter_map(|line| line.strip_prefix("error "));
        errors
            .map(|error| {
                let (name, fields) = error.split_once('(').unwrap();
                let fields = fields.trim_end_matches(')').split(", ");
                let fields = fields.filter(|field| !field.is_empty());
                let fields = fields.map(|field| field.split_once(':').unwrap().0.to_owned());
                (name.trim().to_owned(), fields.collect())
            })
            .collect()
    }

    #[test]
    fn every_error_is_declared_with_its_fields_and_every_declared_one_is_there() {
        let sent: BTreeMap<String, Vec<String>> = all()
            .iter()
            .map(|error| {
                let name = error.name().rsplit('.').next().unwrap().to_owned();
                let value = serde_json::to_value(error).unwrap();
                (name, value.as_object().unwrap().keys().cloned().collect())
            })
            .collect();
        let mut declared = declared();
        declared.values_mut().for_each(|fields| fields.sort());
        assert_eq!(sent, declared);
    }
}
