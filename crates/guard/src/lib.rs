// SPDX-License-Identifier: Apache-2.0
//! Kernel patch protection: expected against seen, explained.
//!
//! Pure over `kernel-image` and `kernel-memory`: the guard reads memory through a trait and the
//! system's interfaces through another ([`Views`]), so the same checks run on the live kernel, on
//! a dump and on a guest seen from outside. Nothing here does I/O.

mod announced;
pub mod baseline;
mod batch;
pub mod check;
pub mod checks;
pub mod code;
pub mod compare;
pub mod confirm;
mod digest;
pub mod evidence;
pub mod explain;
pub mod fields;
pub mod finding;
pub mod journal;
mod keys;
pub mod known_pages;
mod kprobes;
mod memory_views;
pub mod modules;
pub mod mutation;
pub mod owners;
mod patience;
pub mod processor;
pub mod recover;
pub mod registers;
pub mod run;
pub mod schedule;
pub mod sites;
pub mod technique;
#[cfg(test)]
mod tests;
pub mod views;
pub mod watch;

pub use check::{About, Check, CheckResult, Missing, Outcome, Pace, Status, System};
pub use finding::{Finding, Hook, ModulesSummary, TextSummary};
pub use memory_views::MemoryViews;
pub use modules::{ModuleFiles, NoModuleFiles};
pub use registers::{NoRegisters, Registers};
pub use run::{Guard, Report};
pub use schedule::{Announced, Begun, Schedule};
pub use views::{NoViews, Views};
