// SPDX-License-Identifier: Apache-2.0
//! Parts of the events that a session itself has, and of those of the guard.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::constants::TYPES;

use super::StringRef;

/// Records did not reach this client. Comes as soon as there is place again. No actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Loss {
    /// Since the last loss record.
    pub records: u64,
    /// `LOST_…`
    pub why: u32,
    /// Zero.
    pub reserved: u32,
    /// How many of each type, by its number.
    pub by_type: [u32; TYPES],
}

/// The verdict of this client came too late or not at all. No actor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct DeadlineMissed {
    /// Whose deadline it was.
    pub missed_event_id: u64,
    /// How long it took until there was a verdict, in nanoseconds; 0: none came.
    pub took: u64,
    /// Misses within the last minute.
    pub misses: u32,
    /// 1: this client is not asked any more.
    pub demoted: u32,
}

/// What can be had of an event changed: see GetCoverage. No actor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct StageChanged {
    /// Which event.
    pub event_type: u16,
    /// `STAGE_…`
    pub before: u16,
    /// `STAGE_…`
    pub after: u16,
    /// Zero.
    pub reserved: u16,
    /// Why, for people.
    pub reason: StringRef,
}

/// The daemon ends; rules stay as the grant says. No actor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ShuttingDown {
    /// `SHUTDOWN_…`
    pub why: u32,
    /// Zero.
    pub reserved: u32,
}

/// A finding of the guard. No actor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct KernelFinding {
    /// Name of the check.
    pub check: StringRef,
    /// Name of the technique.
    pub technique: StringRef,
    /// The finding as JSON (docs/check-report.md).
    pub finding: StringRef,
    /// `FINDING_…`
    pub state: u32,
    /// Zero.
    pub reserved: u32,
    /// When the daemon was told of it, in nanoseconds of CLOCK_BOOTTIME.
    pub found: u64,
}
