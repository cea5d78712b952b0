// SPDX-License-Identifier: Apache-2.0
//! What a scenario is: boot this kernel with these options, do this, expect that.
//!
//! One is a file in `scenarios/` with a constant of this type, and a line in `scenarios::all`. It is
//! run once for each kernel, which makes a cell. It fails by returning an error, whose words are all
//! that somebody sees at first, so [`expect_same`] and `anyhow::ensure!` say what was expected and what
//! was seen.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::error::Error;
use crate::kernels::Kernel;
use crate::programs::Programs;
use crate::vm::{Boot, Vm};

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What holds if it passes, in one line.
    pub about: &'static str,
    /// Whether `make lab` runs it on this kernel, unless somebody names both: [`everywhere`], or one of
    /// the two flavours that a series has, where the other would show the same again.
    pub kernels: fn(&Kernel) -> bool,
    /// Whether `make test` runs it on this kernel.
    pub core: fn(&Kernel) -> bool,
    /// Whether something has to happen within a time in it. Its guests come first where processors are
    /// few, and those of the others yield to them.
    pub timed: bool,
    /// Does it.
    pub run: fn(&Cell<'_>) -> anyhow::Result<Outcome>,
}

/// For a scenario that each kernel is worth running it on.
#[must_use]
pub fn everywhere(_: &Kernel) -> bool {
    true
}

/// For [`Scenario::kernels`]: another scenario shows the same on each kernel, and takes too long for the core
/// set, which has this one in its place.
#[must_use]
pub fn only_core(_: &Kernel) -> bool {
    false
}

/// How a scenario came out that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected, with a figure for the table.
    Passed(String),
    /// Not run, with the reason.
    Skipped(String),
}

impl Outcome {
    /// Passed, with a figure for the table.
    #[must_use]
    pub fn passed(figure: impl Into<String>) -> Self {
        Self::Passed(figure.into())
    }

    /// Not run, because.
    #[must_use]
    pub fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped(reason.into())
    }
}

/// A scenario on a kernel.
#[derive(Debug)]
pub struct Cell<'lab> {
    kernel: &'lab Kernel,
    programs: &'lab Programs,
    logs: PathBuf,
    core: bool,
    yields: bool,
    boots: AtomicU32,
    again: AtomicU32,
    account: Arc<AtomicU64>,
}

impl<'lab> Cell<'lab> {
    pub(crate) fn new(
        kernel: &'lab Kernel,
        programs: &'lab Programs,
        logs: PathBuf,
        core: bool,
        yields: bool,
    ) -> Self {
        let (boots, again, account) = (AtomicU32::new(0), AtomicU32::new(0), Arc::default());
        Self { kernel, programs, logs, core, yields, boots, again, account }
    }

    /// Whether this is part of `make test`, where a long scenario does a part of what it can.
    #[must_use]
    pub fn is_core(&self) -> bool {
        self.core
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> &'lab Kernel {
        self.kernel
    }

    /// The programs that are tested.
    #[must_use]
    pub fn programs(&self) -> &'lab Programs {
        self.programs
    }

    /// Boots the kernel.
    ///
    /// # Errors
    /// When it does not come up as asked.
    pub fn boot(&self, boot: &Boot) -> anyhow::Result<Vm> {
        let boot = boot.clone().yields(self.yields).account(Arc::clone(&self.account));
        let start = || {
            let number = self.boots.fetch_add(1, Ordering::Relaxed);
            boot.start(self.kernel, &self.logs.join(format!("boot-{number}")))
        };
        let first = start();
        let Err(Error::Gone { booting: true, console, .. }) = &first else { return Ok(first?) };
        // About one of 170 guests ends so, by the emulator (docs/lab.md). Who reads the result is told.
        self.again.fetch_add(1, Ordering::Relaxed);
        eprintln!(
            "lab: a guest ended as it booted, and is booted again; see {}",
            console.display()
        );
        Ok(start()?)
    }

    /// How many guests were booted again, because the first one ended before anything could be run in it.
    pub(crate) fn booted_again(&self) -> u32 {
        self.again.load(Ordering::Relaxed)
    }

    /// The processor time that guests of it took which are gone.
    pub(crate) fn processor_time(&self) -> Duration {
        Duration::from_millis(self.account.load(Ordering::Relaxed))
    }

    /// Keeps a result beside the logs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.logs.join(name);
        fs::create_dir_all(&self.logs).with_context(|| self.logs.display().to_string())?;
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    }

    /// Where logs and results are.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }
}

/// Fails unless both are the same.
///
/// # Errors
/// When they are not.
pub fn expect_same<T: PartialEq + Debug>(what: &str, seen: T, expected: T) -> anyhow::Result<()> {
    ensure!(seen == expected, "{what}: expected {expected:?}, seen {seen:?}");
    Ok(())
}
