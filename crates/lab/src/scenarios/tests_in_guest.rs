// SPDX-License-Identifier: Apache-2.0
//! Programs of tests, run in a guest.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::scenario::Cell;
use crate::vm::Vm;

const LIMIT: Duration = Duration::from_secs(600);

/// Runs the tests of a program that is `/lab/PROGRAM`, which may say of so many things that they cannot be
/// looked for. Gives how many passed, and keeps what they said.
pub(super) fn passed(
    cell: &Cell<'_>,
    vm: &Vm,
    program: &str,
    environment: &[&str],
    lacking: usize,
) -> anyhow::Result<u32> {
    let path = format!("/lab/{program}");
    // Processors are emulated, beside other guests: what is measured there is the host.
    let before = ["/usr/bin/env", "RINGFENCE_SLOW=1"];
    let test = [&*path, "--ignored", "--nocapture", "--test-threads=1"];
    let ran = vm.try_run_within(&[&before[..], environment, &test[..]].concat(), LIMIT)?;
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
    count.with_context(|| format!("{program}: no test ran"))
}
