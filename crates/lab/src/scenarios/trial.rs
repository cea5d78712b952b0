// SPDX-License-Identifier: Apache-2.0
//! Programs that try things out in a guest, and print a line for each that holds.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::scenario::{Cell, expect_same};
use crate::vm::Vm;

/// Runs one, which must end well, and keeps what it says by this name. Gives what it prints.
pub(super) fn run(
    cell: &Cell<'_>,
    vm: &Vm,
    name: &str,
    command: &[&str],
    limit: Duration,
) -> anyhow::Result<String> {
    let ran = vm.try_run_within(command, limit)?;
    cell.keep(&format!("{name}.out"), &ran.out)?;
    cell.keep(&format!("{name}.err"), &ran.err)?;
    let (text, errors) = (ran.text(), ran.errors());
    ensure!(ran.code == 0, "{name}: exit code {}: {}\n{text}", ran.code, errors.trim());
    Ok(text)
}

/// How many things hold, of what it printed: some.
pub(super) fn held(text: &str) -> anyhow::Result<usize> {
    let held = text.lines().filter(|line| line.starts_with("ok: ")).count();
    ensure!(held > 0, "nothing was tried");
    Ok(held)
}

/// The same of one that says at its end how many there are.
pub(super) fn held_as_said(text: &str) -> anyhow::Result<usize> {
    let held = held(text)?;
    let said = text.lines().find_map(|line| line.strip_suffix(" things hold"));
    let said: usize = said.context("it does not say how many things hold")?.parse()?;
    expect_same("things that hold", held, said)?;
    Ok(held)
}
