// SPDX-License-Identifier: Apache-2.0
//! Verdicts, which go over a socket and not through the ring.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a client answers to a record of class ask: one message on the second descriptor of its
/// session, a socket of the type `SOCK_SEQPACKET`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Verdict {
    /// header.event_id of the record that asked.
    pub event_id: u64,
    /// `VERDICT_…`
    pub verdict: u32,
    /// The errno that the caller is to get; 0 with allow.
    pub error: u32,
    /// `VERDICT_FLAG_…`
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Comes back on the same socket, only for a verdict that does not count.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct VerdictRefused {
    /// As in the verdict.
    pub event_id: u64,
    /// `REFUSED_…`
    pub status: u32,
    /// Zero.
    pub reserved: u32,
}
