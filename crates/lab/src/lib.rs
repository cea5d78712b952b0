// SPDX-License-Identifier: Apache-2.0
//! The lab: boots real Debian kernels in QEMU and runs our binaries in them.
//!
//! A [`Boot`] says what a guest is like; it becomes a [`Vm`], in which commands run and files come and
//! go through an agent ([`agent`]) over a virtio serial port, and which can be looked at from outside:
//! its memory ([`Ram`]), and through QEMU's monitor ([`Qmp`]) its registers, and dumps.
//! docs/lab.md says how to use it all.
//!
//! Nothing outlives the lab: QEMU is killed when a [`Vm`] is dropped and when the lab dies, and what
//! both share has no name in any file system. What a failed scenario leaves behind is its logs, below
//! target/lab.

pub mod agent;
mod binaries;
pub mod coverage;
mod cpio;
pub mod detection;
mod error;
mod guest;
mod initramfs;
pub mod kernels;
mod lifecycle;
mod modules;
mod process;
mod programs;
mod protocol;
mod qemu;
mod ram;
pub mod scenario;
pub mod scenarios;
pub mod schedule;
pub mod table;
mod vm;

pub use error::{Error, Result};
pub use guest::Output;
pub use kernels::Kernel;
pub use modules::{Modules, name_of};
pub use process::Process;
pub use programs::Programs;
pub use qemu::{Machine, PROCESSOR};
pub use qmp::{DumpFormat, Qmp};
pub use ram::Ram;
pub use scenario::{Cell, Outcome, Scenario};
pub use table::Totals;
pub use vm::{Boot, Vm};

/// Where logs are kept: target/lab in the repository.
#[must_use]
pub fn logs() -> std::path::PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(Into::into);
    target.unwrap_or_else(|| kernels::repository().join("target")).join("lab")
}
