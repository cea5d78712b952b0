// SPDX-License-Identifier: Apache-2.0
//! QEMU's monitor (QMP): stop and go on, registers, where memory lies, dumps, the state of devices.
//!
//! What QEMU says of registers and memory it says in text made for people; [`registers`] and
//! [`memory`] read that. It comes from outside the guest, so nothing in the guest can forge it.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod device_state;
pub mod memory;
mod monitor;
pub mod registers;

pub use monitor::{DumpFormat, Qmp};

/// QEMU's monitor refused a command, says something that is no answer, or is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("QEMU's monitor, {command}: {problem}")]
pub struct Error {
    /// The command.
    pub command: String,
    /// What is wrong.
    pub problem: String,
}

/// A result of the monitor.
pub type Result<T, E = Error> = std::result::Result<T, E>;
