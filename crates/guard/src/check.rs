// SPDX-License-Identifier: Apache-2.0
//! What a check is, and what it may look at.

use kernel_memory::{Kernel, KernelMemory};
use serde::Serialize;

use crate::baseline::Baseline;
use crate::finding::{Finding, Hook, ModulesSummary, TextSummary};
use crate::journal::Journal;
use crate::modules::ModuleFiles;
use crate::registers::Registers;
use crate::views::Views;

/// Why a check could not run: the symbol, configuration or permission that is missing, in words
/// that tell the administrator what to do where something can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

impl Missing {
    /// A reason from anything that can be shown.
    pub fn because(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl From<kernel_memory::ReadError> for Missing {
    fn from(error: kernel_memory::ReadError) -> Self {
        Self(error.to_string())
    }
}

impl From<kernel_memory::AccessError> for Missing {
    fn from(error: kernel_memory::AccessError) -> Self {
        Self(error.to_string())
    }
}

/// A check in words, shown by `ringfence doctor` and in the documentation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct About {
    /// What it needs of the kernel and of the caller.
    pub needs: &'static str,
    /// What it reads.
    pub reads: &'static str,
    /// What a finding means.
    pub means: &'static str,
    /// What it does not see.
    pub blind_to: &'static str,
}

/// How often a watch runs a check (see [`crate::schedule`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// In each pass, and at once after what the kernel announces.
    EachPass,
    /// In each pass that the share of a processor lasts for; who waited longest comes first.
    InTurn,
}

/// Everything a check may look at. Nothing in it can change the kernel.
#[derive(Clone, Copy)]
pub struct System<'a> {
    /// Memory through the most trusted path, with symbols and types.
    pub kernel: Kernel<'a>,
    /// Other paths to the same memory, to be compared with the first.
    pub other_paths: &'a [&'a dyn KernelMemory],
    /// What the system's own interfaces admit to.
    pub views: &'a dyn Views,
    /// What memory should hold.
    pub baseline: &'a Baseline,
    /// The files that modules were loaded from.
    pub modules: &'a dyn ModuleFiles,
    /// The registers of the processors.
    pub registers: &'a dyn Registers,
    /// What the kernel said it changed.
    pub journal: &'a Journal,
}

/// Where a check puts what it finds.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is not as it must be.
    pub findings: Vec<Finding>,
    /// Who hooked what, by interfaces made for it.
    pub hooks: Vec<Hook>,
    /// Filled by the check of the text.
    pub text: Option<TextSummary>,
    /// Filled by the check of the modules' text.
    pub module_text: Option<ModulesSummary>,
    /// What the check could not see this time although it ran, one line each.
    pub reduced: Vec<String>,
}

/// One check: what was expected against what is seen. One file each under `checks/`.
pub trait Check {
    /// Its name on the command line, in reports and in the documentation.
    fn name(&self) -> &'static str;

    /// The check in words.
    fn about(&self) -> About;

    /// How often a watch runs it. A single `check` runs all.
    fn pace(&self) -> Pace {
        Pace::InTurn
    }

    /// Looks, and puts what it finds into `outcome`.
    ///
    /// A finding must have been read at least twice: what the system changes while the check looks
    /// is not a finding. Fails with what is missing where the check cannot run on this system.
    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing>;
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It ran and everything was as expected.
    Ok,
    /// It ran and found something.
    Finding,
    /// It could not run.
    Unavailable,
}

/// A check's line in the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// The name of the check.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// Why it could not run, or what it could not see although it ran.
    pub reason: Option<String>,
    /// How long it took, in microseconds.
    pub elapsed_us: u64,
}
