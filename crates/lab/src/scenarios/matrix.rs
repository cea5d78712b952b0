// SPDX-License-Identifier: Apache-2.0
//! Kernels × processors × boot options: whatever form the kernel gave its code at boot, each byte of
//! text, of modules and of read-only data is explained, seen from inside and from outside.
//!
//! An option counts only if it had an effect: what the guest says of itself (mitigations, features,
//! processors, KASLR) must differ from what the same processor says without the option. One that
//! changed nothing here is not checked, and is told as skipped with that reason. How each came out
//! is kept in matrix.tsv and printed at the end.

mod facts;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::error::Error;
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, everywhere, expect_same};
use crate::scenarios::check::{all_checked, clean_from_outside, report};
use crate::scenarios::modules::{AT_LEAST, MODULES};
use crate::table::aligned;
use crate::vm::{Boot, Vm};
use facts::Facts;

/// What it is called.
pub(crate) const NAME: &str = "matrix";

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: NAME,
    about: "each byte is explained on each processor with each boot option that has an effect there",
    kernels: everywhere,
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    timed: false,
    run,
};

/// A processor with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    cpu: &'static str,
    /// A kernel parameter, [`ONE`], or nothing.
    option: &'static str,
    runs: Runs,
    /// Whether more than sixty modules are loaded.
    modules: bool,
}

/// Where a variant is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    /// On all kernels, and in `make test`.
    Core,
    /// On all kernels.
    Everywhere,
    /// On kernels for clouds only: the other flavour of the same series patches itself by the same code,
    /// and the forms that this gives come with other variants as well.
    Cloud,
}

impl Variant {
    fn runs_in(&self, cell: &Cell<'_>) -> bool {
        match self.runs {
            Runs::Core => true,
            Runs::Everywhere => !cell.is_core(),
            Runs::Cloud => !cell.is_core() && cell.kernel().is_for_clouds(),
        }
    }
}

/// Stands in the place of a kernel parameter: a guest with one processor, whose kernel leaves the
/// lock prefixes out (`alternatives_smp_unlock`).
const ONE: &str = "one processor";

const fn variant(cpu: &'static str, option: &'static str) -> Variant {
    Variant { cpu, option, runs: Runs::Everywhere, modules: false }
}

const fn core(cpu: &'static str, option: &'static str) -> Variant {
    Variant { runs: Runs::Core, ..variant(cpu, option) }
}

const fn cloud(cpu: &'static str, option: &'static str) -> Variant {
    Variant { runs: Runs::Cloud, ..variant(cpu, option) }
}

/// A processor without options comes before the same with some. `max` is all that QEMU can emulate,
/// and affected by nothing but Spectre; a Skylake is affected by Retbleed and ITS, the first EPYC by
/// Retbleed (and does unasked what `retbleed=unret` asks for) and SRSO, Milan by SRSO. None has Intel's
/// CET or IBRS, so nothing can be seen of `ibt=off` and of a mitigation by IBRS (QEMU 7.2,
/// target/i386/cpu.c, TCG_7_0_EDX_FEATURES).
const VARIANTS: [Variant; 15] = [
    Variant { modules: true, ..variant("max", "") },
    cloud("max", "mitigations=off"),
    variant("max", "nokaslr"),
    variant("max", "ibt=off"),
    variant("max", ONE),
    core("Skylake-Client", ""),
    Variant { modules: true, ..core("Skylake-Client", "retbleed=stuff") },
    core("Skylake-Client", "mitigations=off"),
    variant("Skylake-Client", "spectre_v2=retpoline"),
    variant("Skylake-Client", "nosmt"),
    cloud("EPYC", ""),
    cloud("EPYC", "retbleed=off"),
    cloud("EPYC", "spectre_v2=retpoline,lfence"),
    cloud("EPYC-Milan", ""),
    cloud("EPYC-Milan", "spec_rstack_overflow=off"),
];

/// A line of matrix.tsv.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    variant: Variant,
    /// What is other than without the option, or the mitigations without one.
    active: String,
    result: Explained,
}

/// How the bytes of a guest were accounted for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Explained {
    /// Each of them, from inside and from outside.
    All(Counts),
    /// Not checked, with the reason.
    Skipped(String),
    /// Not all of them, or not to be found out, with the error.
    Failed(String),
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// Bytes of text.
    text: u64,
    /// Loaded modules that were compared, and bytes of their text and read-only data.
    modules: (u64, u64),
    /// Places that differ from the file and are explained.
    changes: u64,
}

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let vmlinux = cell.kernel().vmlinux()?;
    let mut defaults: BTreeMap<&str, Facts> = BTreeMap::new();
    let mut rows: Vec<Row> = Vec::new();
    for variant in VARIANTS.iter().filter(|one| one.runs_in(cell)) {
        // One that fails says nothing of the others.
        let row = one(cell, variant, &vmlinux, &mut defaults).unwrap_or_else(|error| {
            let result = Explained::Failed(format!("{error:#}"));
            Row { variant: *variant, active: String::new(), result }
        });
        rows.push(row);
        let lines: String = rows.iter().map(|row| row.cells().join("\t") + "\n").collect();
        cell.keep("matrix.tsv", lines.as_bytes())?;
    }
    let failed: Vec<String> = rows.iter().filter_map(Row::failure).collect();
    ensure!(failed.is_empty(), "{} of {}: {}", failed.len(), rows.len(), failed.join("\n"));
    let explained = rows.iter().filter(|row| matches!(row.result, Explained::All(_))).count();
    ensure!(explained > 0, "no option had an effect");
    Ok(Outcome::passed(format!("{explained} explained, {} skipped", rows.len() - explained)))
}

/// Boots one and has it checked, if the option has an effect.
fn one<'a>(
    cell: &Cell<'_>,
    variant: &'a Variant,
    vmlinux: &Arc<[u8]>,
    defaults: &mut BTreeMap<&'a str, Facts>,
) -> anyhow::Result<Row> {
    // Loading them takes the time that the core set has for all.
    let many = variant.modules && !cell.is_core();
    let skipped = |active: String, why: &str| Row {
        variant: *variant,
        active,
        result: Explained::Skipped(why.to_owned()),
    };
    let vm = match boot(cell, variant, vmlinux, many) {
        Ok(vm) => vm,
        // 6.18 and 7.3 with retpolines of lfence: at a call in Rust code the kernel warns there (arch/x86/
        // kernel/alternative.c, 728 of 6.18) and ends. It is not ours to explain.
        Err(error) if ends_in(&error, "apply_retpolines") => {
            return Ok(skipped(String::new(), "the kernel itself ends in apply_retpolines"));
        }
        Err(error) => return Err(error),
    };
    let facts = Facts::of(&vm)?;
    let active = match defaults.get(variant.cpu) {
        Some(default) => facts.other_than(default).join("; "),
        None => facts.mitigations(),
    };
    let is_default = variant.option.is_empty();
    if is_default {
        defaults.insert(variant.cpu, facts);
    }
    let result = if active.is_empty() && !is_default {
        vm.power_off();
        return Ok(skipped(
            active,
            "no effect here: mitigations, features and processors as without",
        ));
    } else if is_default && cell.is_core() {
        // Another scenario of the core set checks a kernel without options.
        Explained::Skipped("only compared with".to_owned())
    } else {
        let name = format!("{} {}", variant.cpu, variant.option).trim_end().replace(' ', "_");
        let report = report(cell, &vm, &name)?;
        all_checked(&report)?;
        let inside = explained(&report, many)?;
        from_outside(cell, &vm, &name, many, inside)?;
        Explained::All(inside)
    };
    vm.power_off();
    Ok(Row { variant: *variant, active, result })
}

fn boot(cell: &Cell<'_>, variant: &Variant, vmlinux: &Arc<[u8]>, many: bool) -> anyhow::Result<Vm> {
    let boot = Boot::new().cpu(variant.cpu).file(cell.programs().ringfence(), "/usr/bin/ringfence");
    // Loud enough for what a kernel says as it goes wrong.
    let boot = boot.append("loglevel=5");
    let boot = match variant.option {
        ONE => boot.processors(1),
        option => boot.append(option),
    };
    // The first has the boot image as systems have it. An emulated processor takes seconds to unpack it.
    let is_first = *variant == VARIANTS[0];
    let boot = if is_first { boot } else { boot.image(Arc::clone(vmlinux)) };
    // Both processors share a core, so that there is something for `nosmt`.
    let boot = if variant.cpu.starts_with("Skylake") { boot.threads(2) } else { boot };
    let boot = if many { MODULES.into_iter().fold(boot.memory(1024), Boot::module) } else { boot };
    cell.boot(&boot)
}

/// Has the same guest checked from the host: nothing is unexplained there, of as many bytes and modules.
fn from_outside(
    cell: &Cell<'_>,
    vm: &Vm,
    name: &str,
    many: bool,
    inside: Counts,
) -> anyhow::Result<()> {
    let ram = vm.ram_path().display().to_string();
    let report = clean_from_outside(cell, &format!("{name}.outside"), &["--guest-ram", &ram])?;
    let outside = explained(&report, many).context("from outside")?;
    expect_same("bytes of text, from outside and inside", outside.text, inside.text)?;
    let modules = "modules and their bytes, from outside and inside";
    expect_same(modules, outside.modules, inside.modules)
}

/// Whether a guest ended because its kernel went wrong in this function, by its console.
fn ends_in(error: &anyhow::Error, function: &str) -> bool {
    let Some(Error::Gone { console, .. }) = error.downcast_ref() else { return false };
    let said = fs::read_to_string(console).unwrap_or_default();
    said.contains(&format!("RIP: 0010:{function}+"))
}

/// Whether a report accounts for each byte, and of how many modules if there are to be many.
fn explained(report: &Value, many: bool) -> anyhow::Result<Counts> {
    let findings = report["findings"].as_array().context("a report without findings")?;
    ensure!(findings.is_empty(), "{} findings, the first: {}", findings.len(), findings[0]);
    expect_same("the baseline", report["baseline"].as_str(), Some("image"))?;
    for name in ["text", "rodata", "module_text"] {
        let checks = report["checks"].as_array().context("a report without checks")?;
        let check = checks.iter().find(|check| check["name"] == name);
        let check = check.with_context(|| format!("the check {name} did not run"))?;
        ensure!(check["status"] == "ok", "{check}");
    }
    let number = |value: &Value| value.as_u64().context("a report without a count");
    let (text, modules) = (&report["text"], &report["module_text"]);
    let (mut changes, mut compared) = (number(&text["explained_changes"])?, (0, 0));
    expect_same("unexplained places of text", number(&text["unexplained"])?, 0)?;
    if !modules.is_null() {
        let of_modules = |name: &str| number(&modules[name]);
        expect_same("unexplained places of modules", of_modules("unexplained")?, 0)?;
        expect_same("modules not compared", of_modules("not_compared")?, 0)?;
        compared = (of_modules("compared")?, of_modules("bytes")?);
        changes += of_modules("explained_changes")?;
    }
    let wanted = if many { AT_LEAST as u64 } else { 0 };
    ensure!(compared.0 >= wanted, "{} modules compared, of {wanted} at least", compared.0);
    Ok(Counts { text: number(&text["bytes"])?, modules: compared, changes })
}

const HEADING: [&str; 10] = [
    "kernel",
    "processor",
    "option",
    "bytes of text",
    "modules",
    "their bytes",
    "changes explained",
    "unexplained inside",
    "outside",
    "active, and what the option changed",
];

impl Row {
    /// Which variant failed, and why.
    fn failure(&self) -> Option<String> {
        let Explained::Failed(why) = &self.result else { return None };
        let Variant { cpu, option, .. } = self.variant;
        Some(format!("{cpu} {option}: {why}"))
    }

    /// The cells of matrix.tsv, which has no column for the kernel.
    fn cells(&self) -> Vec<String> {
        let option = if self.variant.option.is_empty() { "–" } else { self.variant.option };
        let mut cells = vec![self.variant.cpu.to_owned(), option.to_owned()];
        match &self.result {
            Explained::All(Counts { text, modules: (count, bytes), changes }) => {
                cells.extend([text, count, bytes, changes, &0, &0].map(u64::to_string));
                cells.push(self.active.clone());
            }
            Explained::Failed(why) => {
                cells.extend(std::iter::repeat_n("–".to_owned(), 6));
                cells.push(format!("FAILED: {}", why.replace(['\t', '\n'], " ")));
            }
            Explained::Skipped(why) => {
                cells.extend(std::iter::repeat_n("–".to_owned(), 6));
                let active = if self.active.is_empty() { "" } else { "; " };
                cells.push(format!("skipped: {why}{active}{}", self.active));
            }
        }
        cells
    }
}

/// All rows of all kernels, as far as they were kept.
pub(crate) fn closing(logs: &Path, kernels: &[Kernel]) -> Option<String> {
    let mut rows = Vec::new();
    for kernel in kernels {
        let lines = fs::read_to_string(logs.join(&kernel.name).join("matrix.tsv"));
        for line in lines.unwrap_or_default().lines() {
            let cells = line.split('\t').map(str::to_owned);
            rows.push(std::iter::once(kernel.name.clone()).chain(cells).collect());
        }
    }
    let heading = HEADING.map(str::to_owned).to_vec();
    (!rows.is_empty()).then(|| aligned(&[vec![heading], rows].concat()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_with_anything_unexplained_or_unchecked_is_an_error() {
        let check = |name: &str| json!({"name": name, "status": "ok", "reason": null});
        let summary = json!({"bytes": 9, "explained_changes": 2, "unexplained": 0});
        let mut report = json!({
            "baseline": "image", "findings": [], "text": summary, "module_text": null,
            "checks": [check("text"), check("rodata"), check("module_text")],
        });
        let all = Counts { text: 9, modules: (0, 0), changes: 2 };
        assert_eq!(explained(&report, false).unwrap(), all);
        assert!(explained(&report, true).is_err(), "many modules were asked for");
        for (place, wrong) in [
            ("/baseline", json!("first-check")),
            ("/text/unexplained", json!(1)),
            ("/checks/1/status", json!("unavailable")),
            ("/checks/2/name", json!("other")),
        ] {
            let right = report.pointer(place).unwrap().clone();
            *report.pointer_mut(place).unwrap() = wrong;
            assert!(explained(&report, false).is_err(), "{place}");
            *report.pointer_mut(place).unwrap() = right;
        }
        report["findings"] = json!([{"check": "text"}]);
        assert!(explained(&report, false).is_err());
    }
}
