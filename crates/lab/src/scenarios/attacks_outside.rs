// SPDX-License-Identifier: Apache-2.0
//! Attacks that are carried out in a guest while nothing of ours runs in it: each is found by `ringfence
//! check` on the host, in the guest's memory, which no attacker in the guest can answer for.
//!
//! The subjects and how each is told of are those of the scenario `attacks`. What only the past can
//! tell of is found as well, because the first look is sealed in a state directory; and where system calls
//! lead, because the looks may halt the guest for a moment.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::scenarios::attacks::{
    ATTACKS, Subject, Told, bring, from_outside, start_target, taint, tells, unload,
};
use crate::scenarios::check::{clean_from_outside, report_from_outside};
use crate::scenarios::outside::Socket;
use crate::vm::{Boot, Vm};

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "attacks-outside",
    about: "each attack is found from outside, in the memory of the guest",
    // What lies in memory is the same on the other flavour of a series, where the guard looks from inside.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    timed: false,
    run,
};

/// After so many seconds a module that hides takes itself back: it cannot be unloaded before. A look
/// takes one or two.
const HIDES_FOR: u64 = 12;

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let socket = Socket::new();
    let Some(boot) = bring(cell, Boot::new().monitor(&socket.0))? else {
        return Ok(Outcome::skipped("the mirror has no headers to build the subjects with"));
    };
    let vm = cell.boot(&boot)?;
    let state = state_directory(cell.logs())?;
    let (ram, socket) = (vm.ram_path().display().to_string(), socket.0.display().to_string());
    let arguments = ["--guest-ram", &ram, "--qmp", &socket, "--pause", "--state-dir", &state];
    let target = start_target(&vm)?;
    taint(&vm)?;
    // The kernel makes up the id of its boot when it is first asked, and nothing is sealed without.
    vm.shell("cat /proc/sys/kernel/random/boot_id")?;
    let first = clean_from_outside(cell, "before", &arguments)?;
    let mut before = first.clone();
    let mut log = String::from("attack\tcheck\ttechnique\tseconds\n");
    let (mut found, mut missed, mut looks) = (0, Vec::new(), Duration::ZERO);
    for (name, told) in ATTACKS {
        let told = from_outside(name, *told);
        let attack = Attack { cell, vm: &vm, arguments: &arguments, name, target: &target, told };
        let line = match attack.carry_out(&before) {
            Ok(seen) => {
                found += 1;
                looks += seen.took;
                before = seen.report;
                format!("{}\t{}\t{:.2}", seen.check, seen.technique, seen.took.as_secs_f64())
            }
            Err(error) => {
                missed.push(format!("{name}: {error:#}"));
                format!("missed\t{error:#}\t")
            }
        };
        log.push_str(&format!("{name}\t{line}\n"));
        cell.keep("attacks-outside.tsv", log.as_bytes())?;
    }
    cell.keep("dmesg.txt", vm.shell("dmesg")?.as_bytes())?;
    ensure!(missed.is_empty(), "{} of {}: {}", missed.len(), ATTACKS.len(), missed.join("; "));
    // What was taken back is seen no more.
    let after = clean_from_outside(cell, "after", &arguments)?;
    let hooks = |report: &Value| report["hooks"].as_array().map_or(0, Vec::len);
    expect_same("hooks after all was taken back", hooks(&after), hooks(&first))?;
    vm.power_off();
    let mean = looks.as_secs_f64() / f64::from(found);
    Ok(Outcome::passed(format!("{found} attacks found, each by one look of {mean:.1} s")))
}

/// An empty directory for what the first look seals.
fn state_directory(logs: &Path) -> anyhow::Result<String> {
    fs::create_dir_all(logs).with_context(|| logs.display().to_string())?;
    let logs = fs::canonicalize(logs).with_context(|| logs.display().to_string())?;
    let state = logs.join("state");
    if state.exists() {
        fs::remove_dir_all(&state).with_context(|| state.display().to_string())?;
    }
    Ok(state.display().to_string())
}

/// An attack that is carried out.
struct Attack<'a> {
    cell: &'a Cell<'a>,
    vm: &'a Vm,
    arguments: &'a [&'a str],
    name: &'a str,
    target: &'a str,
    told: Told,
}

/// An attack that was found.
struct Seen {
    check: String,
    technique: String,
    took: Duration,
    report: Value,
}

impl Attack<'_> {
    /// Carries it out, looks once from outside, and takes it back.
    fn carry_out(&self, before: &Value) -> anyhow::Result<Seen> {
        let hides = self.name.starts_with("module_hidden");
        let (name, target, delay) = (self.name, self.target, Duration::ZERO);
        let lasts = Duration::from_secs(if hides { HIDES_FOR } else { 600 });
        Subject { name, target, delay, lasts }.load(self.vm)?;
        let began = Instant::now();
        let report = report_from_outside(self.cell, self.name, self.arguments);
        let took = began.elapsed();
        if hides {
            let left = Duration::from_secs(HIDES_FOR + 1).saturating_sub(began.elapsed());
            std::thread::sleep(left);
        }
        unload(self.vm, self.name)?;
        let report = report?;
        let (check, technique) = new(before, &report, name, self.told)?;
        Ok(Seen { check, technique, took, report })
    }
}

/// What tells of an attack as it should be told of, and was not there before.
fn new(before: &Value, report: &Value, name: &str, told: Told) -> anyhow::Result<(String, String)> {
    let old = events(before);
    let news: Vec<Value> = events(report)
        .into_iter()
        .filter(|event| !old.iter().any(|old| same(old, event)))
        .collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |event: &Value| match event["event"] == "finding" {
        true => (text(&event["finding"]["check"]), text(&event["finding"]["technique"])),
        false => {
            let hook = &event["hook"];
            let words = format!("{} on {}", text(&hook["mechanism"]), text(&hook["target"]));
            ("hooks".to_owned(), words)
        }
    };
    let told = news.iter().find(|event| tells(event, name, told)).map(words);
    told.with_context(|| {
        let news: Vec<_> =
            news.iter().map(words).map(|(by, what)| format!("{by}: {what}")).collect();
        format!("not told of as it should be; new is {news:?}")
    })
}

/// The findings and hooks of a report, as `ringfence watch` would tell of them.
fn events(report: &Value) -> Vec<Value> {
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let findings = list("findings").into_iter().map(|f| json!({"event": "finding", "finding": f}));
    let hooks = list("hooks").into_iter().map(|hook| json!({"event": "hooked", "hook": hook}));
    findings.chain(hooks).collect()
}

fn same(one: &Value, other: &Value) -> bool {
    let place = |event: &Value| {
        let finding = &event["finding"];
        [&finding["check"], &finding["address"], &finding["technique"], &finding["seen"]]
            .map(ToString::to_string)
    };
    one["hook"] == other["hook"] && place(one) == place(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[(&str, &str)]) -> Value {
        let findings: Vec<_> = findings
            .iter()
            .map(|(check, technique)| json!({"check": check, "technique": technique}))
            .collect();
        let hook = json!({"mechanism": "lsm", "target": "x", "handler": "f", "owner": "module m"});
        json!({"findings": findings, "hooks": [hook]})
    }

    #[test]
    fn only_what_was_not_there_before_and_is_the_right_finding_tells_of_an_attack() {
        let (clean, one) = (report(&[]), report(&[("text", "early return")]));
        let told = Told::Finding("text", "early");
        let found = new(&clean, &one, "m", told).unwrap();
        assert_eq!(found, ("text".to_owned(), "early return".to_owned()));
        assert!(new(&one, &one, "m", told).is_err() && new(&clean, &clean, "m", told).is_err());
        // Something else that is new is not it, and is said.
        let other = new(&clean, &one, "m", Told::Finding("read_paths", "")).unwrap_err();
        assert!(other.to_string().contains("text: early return"), "{other}");
        assert!(new(&clean, &one, "m", Told::Hook("lsm", "")).is_err());
        let nothing = json!({"findings": [], "hooks": []});
        assert!(new(&nothing, &clean, "m", Told::Hook("lsm", "")).is_ok());
        assert!(new(&nothing, &clean, "other", Told::Hook("lsm", "")).is_err());
    }
}
