// SPDX-License-Identifier: Apache-2.0
//! Attacks that are carried out in a guest while nothing of ours runs in it: each is found by `ringfence
//! check` on the host, in the guest's memory, which no attacker in the guest can answer for.
//!
//! The subjects and how each is told of are those of the scenario `attacks`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::scenario::{Cell, Outcome, Scenario};
use crate::scenarios::attacks::{
    ATTACKS, Subject, Told, start_target, subjects, takes_itself_back, tells, unload,
};
use crate::scenarios::check::{clean_from_outside, report_from_outside};
use crate::scenarios::outside::Socket;
use crate::vm::{Boot, Vm};

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "attacks-outside",
    about: "each attack is found from outside, in the memory of the guest",
    // Until CR4 without SMEP is told of from outside, which this shows it is not.
    core: |_| false,
    run,
};

/// Attacks that a single look from outside does not see, and why.
const NOT_SEEN: &[(&str, &str)] = &[
    ("lstar", "a model-specific register, which QEMU's monitor does not tell"),
    ("lockdown_lowered", "a setting is held to what it was at the first look"),
    ("credentials_committed", "a task's credentials are held to what it had before"),
];

/// After so many seconds a module that hides takes itself back: it cannot be unloaded before.
const HIDES_FOR: u64 = 40;

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let Some(subjects) = subjects(cell)? else {
        return Ok(Outcome::skipped("the mirror has no headers to build the subjects with"));
    };
    let socket = Socket::new();
    let mut boot = Boot::new().monitor(&socket.0);
    for (name, _) in ATTACKS {
        let file = format!("{name}.ko");
        boot = boot.file(subjects.join(&file), format!("/lab/{file}"));
    }
    let vm = cell.boot(&boot)?;
    let (ram, socket) = (vm.ram_path().display().to_string(), socket.0.display().to_string());
    let arguments = ["--guest-ram", &ram, "--qmp", &socket];
    let target = start_target(&vm)?;
    let mut before = clean_from_outside(cell, "before", &arguments)?;
    let mut log = String::from("attack\tcheck\ttechnique\tseconds\n");
    let (mut found, mut missed) = (0, Vec::new());
    for (name, told) in ATTACKS {
        let attack =
            Attack { cell, vm: &vm, arguments: &arguments, name, target: &target, told: *told };
        let line = match attack.carry_out(&before) {
            Ok(seen) => {
                found += 1;
                seen
            }
            Err(error) => match NOT_SEEN.iter().find(|(not, _)| not == name) {
                Some((_, why)) => format!("not seen\t{why}\t"),
                None => {
                    missed.push(format!("{name}: {error:#}"));
                    format!("missed\t{error:#}\t")
                }
            },
        };
        log.push_str(&format!("{name}\t{line}\n"));
        cell.keep("attacks-outside.tsv", log.as_bytes())?;
        // What was taken back is there no more, so that nothing is taken for the next one.
        before = report_from_outside(cell, "after", &arguments)?;
    }
    ensure!(missed.is_empty(), "{} of {}: {}", missed.len(), ATTACKS.len(), missed.join("; "));
    vm.power_off();
    Ok(Outcome::passed(format!("{found} attacks found")))
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

impl Attack<'_> {
    /// Carries it out, looks once from outside, and takes it back. Gives the check, the technique, and
    /// how long looking took.
    fn carry_out(&self, before: &Value) -> anyhow::Result<String> {
        let hides = takes_itself_back(self.name);
        let (name, target, delay) = (self.name, self.target, Duration::ZERO);
        let lasts = Duration::from_secs(if hides { HIDES_FOR } else { 600 });
        Subject { name, target, delay, lasts }.load(self.vm)?;
        let began = Instant::now();
        let report = report_from_outside(self.cell, self.name, self.arguments);
        let took = began.elapsed();
        if hides {
            let left = Duration::from_secs(HIDES_FOR + 2).saturating_sub(began.elapsed());
            std::thread::sleep(left);
        }
        unload(self.vm, self.name)?;
        let Some((check, technique)) = new(before, &report?, self.told) else {
            anyhow::bail!("nothing was found that was not there before");
        };
        Ok(format!("{check}\t{technique}\t{:.2}", took.as_secs_f64()))
    }
}

/// What tells of an attack and was not there before: as it is told of from inside, else any finding.
fn new(before: &Value, report: &Value, told: Told) -> Option<(String, String)> {
    let old = events(before);
    let news: Vec<Value> = events(report)
        .into_iter()
        .filter(|event| !old.iter().any(|old| same(old, event)))
        .collect();
    let best = news.iter().find(|event| tells(event, told));
    let any = news.iter().find(|event| event["event"] == "finding");
    let event = match told {
        // Whoever stands in the way of a read does not stand in this one, but is a hook all the same.
        Told::Finding(..) | Told::OneOf(_) => best.or(any).or(news.first())?,
        Told::Outside(_) => any?,
        Told::Hook(_) => best?,
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(match event["event"] == "finding" {
        true => (text(&event["finding"]["check"]), text(&event["finding"]["technique"])),
        false => {
            let hook = &event["hook"];
            let words = format!("{} on {}", text(&hook["mechanism"]), text(&hook["target"]));
            ("hooks".to_owned(), words)
        }
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
        json!({"findings": findings, "hooks": [{"mechanism": "lsm", "target": "x"}]})
    }

    #[test]
    fn only_what_was_not_there_before_tells_of_an_attack() {
        let (clean, one) = (report(&[]), report(&[("text", "early return")]));
        let told = Told::Finding("text", "early");
        let found = new(&clean, &one, told).unwrap();
        assert_eq!(found, ("text".to_owned(), "early return".to_owned()));
        assert_eq!(new(&one, &one, told), None);
        assert_eq!(new(&clean, &clean, told), None);
        // Another check may see it first from outside; a hook must be told of as one.
        assert!(new(&clean, &one, Told::Finding("read_paths", "")).is_some());
        assert_eq!(new(&clean, &one, Told::Hook("lsm")), None);
    }
}
