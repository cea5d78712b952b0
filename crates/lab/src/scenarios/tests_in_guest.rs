// SPDX-License-Identifier: Apache-2.0
//! Programs of tests, run in a guest.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::scenario::Cell;
use crate::vm::Vm;

const LIMIT: Duration = Duration::from_secs(600);

/// Which tests are run of a program, and how.
#[derive(Default)]
pub(super) struct Tests<'a> {
    /// The program; in the guest it is `/lab/PROGRAM`.
    pub(super) program: &'a str,
    /// Variables of the environment, as NAME=VALUE.
    pub(super) environment: &'a [&'a str],
    /// Which of them, if not all that are ignored elsewhere.
    pub(super) arguments: &'a [&'a str],
    /// Of how many things it may say that they cannot be looked for.
    pub(super) lacking: usize,
}

/// What came of tests that all passed.
pub(super) struct Passed {
    pub(super) count: u32,
    /// What they printed.
    pub(super) said: String,
}

impl Tests<'_> {
    /// Runs them, and keeps what they said.
    pub(super) fn run(self, cell: &Cell<'_>, vm: &Vm) -> anyhow::Result<Passed> {
        let Self { program, environment, arguments, lacking } = self;
        let path = format!("/lab/{program}");
        // Processors are emulated, beside other guests: what is measured there is the host.
        let before = ["/usr/bin/env", "RINGFENCE_SLOW=1"];
        let test = [&*path, "--ignored", "--nocapture", "--test-threads=1"];
        let words = [&before[..], environment, &test[..], arguments].concat();
        let ran = vm.try_run_within(&words, LIMIT)?;
        cell.keep(&format!("{program}.out"), &ran.out)?;
        cell.keep(&format!("{program}.err"), &ran.err)?;
        let (said, errors) = (ran.text(), ran.errors());
        let failed: Vec<_> = said.lines().filter(|line| line.ends_with("FAILED")).collect();
        ensure!(ran.code == 0, "{program}: exit code {}: {failed:?}: {errors}", ran.code);
        let lines = said.lines().chain(errors.lines());
        let missing: Vec<_> = lines.filter(|line| line.contains("not looked for")).collect();
        ensure!(missing.len() <= lacking, "the kernel does not take all: {missing:?}");
        let count = said.lines().find_map(|line| {
            line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u32>().ok()
        });
        let count = count.filter(|count| *count > 0);
        let count = count.with_context(|| format!("{program}: no test ran"))?;
        Ok(Passed { count, said })
    }
}
