// SPDX-License-Identifier: Apache-2.0
//! Why rules or a collection were not installed.

use crate::error::ProbeError;

/// Why rules or a collection were not installed; what was there before stays.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Clients are slots from 0 to 63.
    #[error("there is no client {0}: slots are from 0 to 63")]
    NoClient(u32),
    /// What the set says cannot be.
    #[error("the rules are refused: {0}")]
    Refused(rules::Refused),
    /// A rule, or the caller, names a collection that the client has not.
    #[error("there is no collection {0:?}: install it before the rules that ask it")]
    NoCollection(String),
    /// A rule asks this collection.
    #[error("the collection {0:?} is asked by a rule: replace the rules first")]
    InUse(String),
    /// The hooks of this host cannot deny this.
    #[error("rule {rule} cannot deny {kind} on this host: {reason}")]
    CannotDeny {
        /// The client's number of the rule.
        rule: u32,
        /// Which event.
        kind: &'static str,
        /// Why not.
        reason: String,
    },
    /// Nothing on this host sees this.
    #[error("rule {rule} is for {kind}, which this host cannot tell of: {reason}")]
    CannotTell {
        /// The client's number of the rule.
        rule: u32,
        /// Which event.
        kind: &'static str,
        /// Why not.
        reason: String,
    },
    /// Programs on this host cannot read the digests that files have, so none would be in any collection.
    #[error(
        "rule {rule} asks for the digest of a file, which {kind} cannot tell on this host: {reason}"
    )]
    NoDigest {
        /// The client's number of the rule.
        rule: u32,
        /// Which event.
        kind: &'static str,
        /// Why not.
        reason: String,
    },
    /// The client has 16.
    #[error("a client has 16 collections at most")]
    TooManyCollections,
    /// All clients together have 64.
    #[error("the descendants of 64 processes at most are told apart, of all clients together")]
    TooManyRoots,
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] ProbeError),
}
