// SPDX-License-Identifier: Apache-2.0
//! Kernels × processors × boot options: whatever form the kernel gave its code at boot, each byte of
//! text, of modules and of read-only data is explained.
//!
//! An option counts only if it had an effect: what the guest says of itself (mitigations, features,
//! processors, KASLR) must differ from what the same processor says without the option. One that
//! changed nothing here is not checked, and is told as skipped with that reason. How each came out
//! is kept in matrix.tsv and printed at the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::error::Error;
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::scenarios::check::report;
use crate::scenarios::modules::{AT_LEAST, MODULES};
use crate::table::aligned;
use crate::vm::{Boot, Vm};

/// What it is called.
pub(crate) const NAME: &str = "matrix";

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: NAME,
    about: "each byte is explained on each processor with each boot option that has an effect there",
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    run,
};

/// A processor with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Variant {
    cpu: &'static str,
    /// A kernel parameter, [`ONE`], or nothing.
    option: &'static str,
    /// Whether `make test` has it.
    core: bool,
    /// Whether more than sixty modules are loaded.
    modules: bool,
}

/// Stands in the place of a kernel parameter: a guest with one processor, whose kernel leaves the
/// lock prefixes out (`alternatives_smp_unlock`).
const ONE: &str = "one processor";

const fn variant(cpu: &'static str, option: &'static str) -> Variant {
    Variant { cpu, option, core: false, modules: false }
}

const fn core(cpu: &'static str, option: &'static str) -> Variant {
    Variant { core: true, ..variant(cpu, option) }
}

/// A processor without options comes before the same with some. `max` is all that QEMU can emulate,
/// and affected by nothing but Spectre; a Skylake is affected by Retbleed and ITS, the first EPYC by
/// Retbleed and SRSO, Milan by SRSO. None has Intel's CET or IBRS, so nothing can be seen of `ibt=off`
/// and of a mitigation by IBRS (QEMU 7.2, target/i386/cpu.c, TCG_7_0_EDX_FEATURES).
const VARIANTS: [Variant; 16] = [
    Variant { modules: true, ..variant("max", "") },
    variant("max", "mitigations=off"),
    variant("max", "nokaslr"),
    variant("max", "ibt=off"),
    variant("max", ONE),
    core("Skylake-Client", ""),
    Variant { modules: true, ..core("Skylake-Client", "retbleed=stuff") },
    core("Skylake-Client", "mitigations=off"),
    variant("Skylake-Client", "spectre_v2=retpoline"),
    variant("Skylake-Client", "nosmt"),
    variant("EPYC", ""),
    variant("EPYC", "retbleed=unret"),
    variant("EPYC", "retbleed=off"),
    variant("EPYC", "spectre_v2=retpoline,lfence"),
    variant("EPYC-Milan", ""),
    variant("EPYC-Milan", "spec_rstack_overflow=off"),
];

/// Mitigations that decide which form code has; the others are switched by jump labels.
const OF_CODE: [&str; 4] =
    ["spectre_v2", "retbleed", "spec_rstack_overflow", "indirect_target_selection"];

/// What a guest says of itself, a line for each fact.
///
/// The byte at 0x211 of the boot parameters is `loadflags`, whose bit 1 the decompressor sets when
/// KASLR is on (arch/x86/boot/compressed/kaslr.c, Documentation/arch/x86/boot.rst, 6.12).
const FACTS: &str = r#"cd /sys/devices/system/cpu
for file in vulnerabilities/* online smt/control; do
    [ ! -e $file ] || echo "${file#vulnerabilities/}: $(cat $file)"
done
grep -m 1 ^flags /proc/cpuinfo | tr ' ' '\n' | sed -n 's/^[a-z].*/flag &: set/p' | grep -v '^flag flags'
loadflags=$(od -A n -t u1 -j 529 -N 1 /sys/kernel/boot_params/data)
echo "KASLR: $(( loadflags >> 1 & 1 ))""#;

type Facts = BTreeMap<String, String>;

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
    /// Each of them.
    All {
        /// Bytes of text.
        text: u64,
        /// Loaded modules that were compared, and bytes of their text and read-only data.
        modules: (u64, u64),
        /// Places that differ from the file and are explained.
        changes: u64,
    },
    /// Not checked, with the reason.
    Skipped(String),
}

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let mut defaults: BTreeMap<&str, Facts> = BTreeMap::new();
    let mut rows: Vec<Row> = Vec::new();
    for variant in VARIANTS.iter().filter(|one| one.core || !cell.is_core()) {
        let row = one(cell, variant, &mut defaults)
            .with_context(|| format!("{} {}", variant.cpu, variant.option))?;
        rows.push(row);
        let lines: String = rows.iter().map(|row| row.cells().join("\t") + "\n").collect();
        cell.keep("matrix.tsv", lines.as_bytes())?;
    }
    let skipped = rows.iter().filter(|row| matches!(row.result, Explained::Skipped(_))).count();
    let explained = rows.len() - skipped;
    ensure!(explained > 0, "no option had an effect");
    Ok(Outcome::passed(format!("{explained} explained, {skipped} skipped")))
}

/// Boots one and has it checked, if the option has an effect.
fn one<'a>(
    cell: &Cell<'_>,
    variant: &'a Variant,
    defaults: &mut BTreeMap<&'a str, Facts>,
) -> anyhow::Result<Row> {
    // Loading them takes the time that the core set has for all.
    let many = variant.modules && !cell.is_core();
    let skipped = |active: String, why: &str| Row {
        variant: *variant,
        active,
        result: Explained::Skipped(why.to_owned()),
    };
    let vm = match boot(cell, variant, many) {
        Ok(vm) => vm,
        // 6.18 and 7.3: `jmp *%r11` does not fit behind an lfence, and the kernel has BUG() for that.
        Err(error) if ends_in(&error, "apply_retpolines") => {
            return Ok(skipped(String::new(), "the kernel itself ends in apply_retpolines"));
        }
        Err(error) => return Err(error),
    };
    let facts = facts(&vm.shell(FACTS)?);
    ensure!(facts.contains_key("spectre_v2") && facts.contains_key("KASLR"), "{facts:?}");
    let active = match defaults.get(variant.cpu) {
        Some(default) => differences(default, &facts).join("; "),
        None => mitigations(&facts),
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
        explained(&report(cell, &vm, &name)?, many)?
    };
    vm.power_off();
    Ok(Row { variant: *variant, active, result })
}

fn boot(cell: &Cell<'_>, variant: &Variant, many: bool) -> anyhow::Result<Vm> {
    let boot = Boot::new().cpu(variant.cpu).file(cell.programs().ringfence(), "/usr/bin/ringfence");
    // Loud enough for what a kernel says as it goes wrong.
    let boot = boot.append("loglevel=5");
    let boot = match variant.option {
        ONE => boot.processors(1),
        option => boot.append(option),
    };
    // Both processors share a core, so that there is something for `nosmt`.
    let boot = if variant.cpu.starts_with("Skylake") { boot.threads(2) } else { boot };
    let boot = if many { MODULES.into_iter().fold(boot.memory(1024), Boot::module) } else { boot };
    cell.boot(&boot)
}

/// Whether a guest ended because its kernel went wrong in this function, by its console.
fn ends_in(error: &anyhow::Error, function: &str) -> bool {
    let Some(Error::Gone { console, .. }) = error.downcast_ref() else { return false };
    let said = fs::read_to_string(console).unwrap_or_default();
    said.contains(&format!("RIP: 0010:{function}+"))
}

fn facts(lines: &str) -> Facts {
    let pairs = lines.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(what, value)| (what.to_owned(), value.trim().to_owned())).collect()
}

/// What is other, in words.
fn differences(default: &Facts, facts: &Facts) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = default.keys().chain(facts.keys()).collect();
    let other = names.into_iter().filter(|name| default.get(*name) != facts.get(*name));
    let words = |name: &String| match (facts.get(name), default.get(name)) {
        (None, _) => format!("no {name}"),
        (Some(value), None) if value == "set" => name.clone(),
        (Some(value), Some(default)) if first(value) == first(default) => {
            format!("{name}: {value}")
        }
        (Some(value), _) => format!("{name}: {}", first(value)),
    };
    other.map(words).collect()
}

/// The first part of what the kernel says of a mitigation; the others are of side issues.
fn first(value: &str) -> &str {
    value.split(';').next().unwrap_or_default()
}

/// What is active of what decides which form code has.
fn mitigations(facts: &Facts) -> String {
    let active = OF_CODE.iter().filter_map(|name| Some((name, facts.get(*name)?)));
    let active = active.filter(|(_, value)| *value != "Not affected");
    let words = active.map(|(name, value)| format!("{name}: {}", first(value)));
    words.collect::<Vec<_>>().join("; ")
}

/// Whether a report accounts for each byte, and of how many modules if there are to be many.
fn explained(report: &Value, many: bool) -> anyhow::Result<Explained> {
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
    Ok(Explained::All { text: number(&text["bytes"])?, modules: compared, changes })
}

const HEADING: [&str; 9] = [
    "kernel",
    "processor",
    "option",
    "bytes of text",
    "modules",
    "their bytes",
    "changes explained",
    "unexplained",
    "active, and what the option changed",
];

impl Row {
    /// The cells of matrix.tsv, which has no column for the kernel.
    fn cells(&self) -> Vec<String> {
        let option = if self.variant.option.is_empty() { "–" } else { self.variant.option };
        let mut cells = vec![self.variant.cpu.to_owned(), option.to_owned()];
        match &self.result {
            Explained::All { text, modules: (count, bytes), changes } => {
                cells.extend([text, count, bytes, changes, &0].map(u64::to_string));
                cells.push(self.active.clone());
            }
            Explained::Skipped(why) => {
                cells.extend(std::iter::repeat_n("–".to_owned(), 5));
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
    fn an_option_that_changed_nothing_is_told_from_one_that_did() {
        let plain = facts("retbleed: Vulnerable\nflag ibt: set\nKASLR: 1\nonline: 0-1\n");
        assert!(differences(&plain, &plain).is_empty());
        let other = facts("retbleed: Mitigation: Stuffing\nKASLR: 1\nonline: 0-1\nflag x: set\n");
        let words = ["no flag ibt", "flag x", "retbleed: Mitigation: Stuffing"];
        assert_eq!(differences(&plain, &other), words);
    }

    #[test]
    fn of_mitigations_those_are_told_that_decide_which_form_code_has() {
        let facts = facts(
            "spectre_v2: Mitigation: Retpolines; STIBP: disabled\nretbleed: Not affected\n\
             mds: Vulnerable\nspec_rstack_overflow: Mitigation: Safe RET\n",
        );
        let words =
            "spectre_v2: Mitigation: Retpolines; spec_rstack_overflow: Mitigation: Safe RET";
        assert_eq!(mitigations(&facts), words);
    }

    #[test]
    fn a_report_with_anything_unexplained_or_unchecked_is_an_error() {
        let check = |name: &str| json!({"name": name, "status": "ok", "reason": null});
        let summary = json!({"bytes": 9, "explained_changes": 2, "unexplained": 0});
        let mut report = json!({
            "baseline": "image", "findings": [], "text": summary, "module_text": null,
            "checks": [check("text"), check("rodata"), check("module_text")],
        });
        let all = Explained::All { text: 9, modules: (0, 0), changes: 2 };
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
