// SPDX-License-Identifier: Apache-2.0
//! What several scenarios do with `ringfence check`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::scenario::{Cell, expect_same};
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

/// Runs `ringfence check --json` on this host, on what the arguments name, with the image and the modules
/// of the cell's kernel, and keeps what it prints. Gives the report, which may have findings.
///
/// # Errors
/// When there is none.
pub(crate) fn report_from_outside(
    cell: &Cell<'_>,
    name: &str,
    arguments: &[&str],
) -> anyhow::Result<Value> {
    let kernel = cell.kernel();
    let check = Command::new(cell.programs().ringfence())
        .args(["check", "--json", "--image"])
        .arg(kernel.vmlinuz())
        .arg("--modules")
        .arg(kernel.modules())
        .args(arguments)
        .output()
        .context("cannot run ringfence")?;
    cell.keep(&format!("{name}.json"), &check.stdout)?;
    cell.keep(&format!("{name}.err"), &check.stderr)?;
    let errors = String::from_utf8_lossy(&check.stderr);
    let report: Value = serde_json::from_slice(&check.stdout)
        .with_context(|| format!("no report of {name}, {}: {errors}", check.status))?;
    let findings = report["findings"].as_array().context("a report without findings")?.len();
    let promised = i32::from(findings > 0);
    let code = check.status.code();
    ensure!(code == Some(promised), "{name}: exit code {code:?} with {findings} findings");
    Ok(report)
}

/// The same for a kernel that nobody touched: no findings, and each byte of its text explained.
///
/// # Errors
/// When it is not so.
pub(crate) fn clean_from_outside(
    cell: &Cell<'_>,
    name: &str,
    arguments: &[&str],
) -> anyhow::Result<Value> {
    let report = report_from_outside(cell, name, arguments)?;
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    let first = report["findings"][0].to_string();
    ensure!(findings == 0, "{name}: {findings} findings, the first: {first}");
    expect_same(&format!("{name}, baseline"), &report["baseline"], &Value::from("image"))?;
    let unexplained = &report["text"]["unexplained"];
    expect_same(&format!("{name}, unexplained changes"), unexplained, &Value::from(0))?;
    for check in NEEDS_MEMORY_ONLY {
        let found = report["checks"].as_array().into_iter().flatten();
        let status = found.filter(|one| one["name"] == *check).map(|one| &one["status"]).next();
        ensure!(status == Some(&Value::from("ok")), "{name}: the check {check} is {status:?}");
    }
    Ok(report)
}

/// The checks that work from memory alone.
const NEEDS_MEMORY_ONLY: &[&str] = &[
    "text",
    "rodata",
    "module_text",
    "jump_labels",
    "static_calls",
    "hooks",
    "bpf",
    "tasks",
    "settings",
    "modules",
    "executable_pages",
];

/// How many checks a report is of. Each of them ran.
///
/// # Errors
/// When one could not.
pub(crate) fn all_checked(report: &Value) -> anyhow::Result<usize> {
    let checks = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(!checks.is_empty(), "no check ran");
    for check in checks {
        let status = check["status"].as_str().unwrap_or_default();
        ensure!(["ok", "reduced"].contains(&status), "a check that could not run: {check}");
    }
    Ok(checks.len())
}

/// The report of a guest whose kernel nobody touched: there must be no findings.
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
