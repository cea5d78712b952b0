// SPDX-License-Identifier: Apache-2.0
//! What several scenarios do with `ringfence check`.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::scenario::Cell;
use crate::vm::Vm;

/// Opening an image takes an emulated processor many seconds, and a hundred modules many more.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs `ringfence check --json` in the guest, where it must be on the path, and keeps what it prints.
/// Gives the report, which may have findings.
///
/// # Errors
/// When there is none.
pub(crate) fn report(cell: &Cell<'_>, vm: &Vm, name: &str) -> anyhow::Result<Value> {
    let check = vm.try_run_within(&["ringfence", "check", "--json"], LIMIT)?;
    cell.keep(&format!("{name}.json"), &check.out)?;
    cell.keep(&format!("{name}.err"), &check.err)?;
    let report: Value = serde_json::from_slice(&check.out)
        .with_context(|| format!("no report, exit code {}: {}", check.code, check.errors()))?;
    let findings = report["findings"].as_array().context("a report without findings")?.len();
    // What the command promises: 0 without findings, 1 with some.
    let promised = i32::from(findings > 0);
    ensure!(check.code == promised, "exit code {} with {findings} findings", check.code);
    Ok(report)
}

/// The same for a kernel that nobody touched: there must be no findings.
///
/// # Errors
/// When there are, with the first of them.
pub(crate) fn clean_report(cell: &Cell<'_>, vm: &Vm) -> anyhow::Result<Value> {
    let report = report(cell, vm, "check")?;
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    let first = report["findings"][0].to_string();
    ensure!(findings == 0, "{findings} findings, the first: {first}");
    Ok(report)
}
