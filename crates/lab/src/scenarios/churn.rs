// SPDX-License-Identifier: Apache-2.0
//! All that may change a kernel does so at once, for thousands of passes of `ringfence watch`: none of it is
//! a finding.
//!
//! A kind of change is a part of churn.sh, which runs in the guest as a process of its own.
//! `RINGFENCE_CHURN_KINDS=cpus,tracer` runs some of them only, so that one can find out which of them a false
//! finding comes from, and `RINGFENCE_CHURN_PASSES` says for how many passes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::kernels::Kernel;
use crate::modules::Modules;
use crate::process::Process;
use crate::scenario::{Cell, Outcome, Scenario};
use crate::scenarios::attacks;
use crate::vm::{Boot, Vm};

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "churn",
    about: "`ringfence watch` finds nothing while a kernel is changed in every legitimate way at once",
    // The other flavour of a series is changed by the same code and has more drivers only.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    timed: false,
    run,
};

/// The ways to change a kernel that churn.sh knows.
const KINDS: [&str; 10] = [
    "tracer",
    "tracepoints",
    "kprobes",
    "fprobes",
    "bpf",
    "modules",
    "cpus",
    "kfence",
    "livepatch",
    "switches",
];

/// What `make test` has the time for.
const CORE_KINDS: [&str; 6] = ["tracer", "tracepoints", "kprobes", "modules", "cpus", "kfence"];

/// What does it, in the guest.
const DRIVER: &str = "/lab/churn";

/// Modules that come and go: none needs another of them or a device, and most have sites of all kinds.
const MODULES: [&str; 8] = ["dummy", "ifb", "loop", "overlay", "squashfs", "tun", "veth", "xfs"];

/// The largest, ten times the others together: an emulated processor takes seconds to load it and to
/// compare it with its file, so it comes after the others have come once, and again when they have come so often more.
const LARGEST: &str = "xfs";
const OTHERS_MORE: usize = 3;

/// How long it goes on.
#[derive(Clone, Copy, Debug)]
struct Length {
    passes: u64,
    /// Modules that come and go at least; see [`least`] for the other kinds.
    rounds: u64,
    /// How often each check looks at least: while the kernel announces changes most passes are of those that
    /// look each time.
    looks: u64,
    /// When it takes too long.
    limit: Duration,
}

const CORE: Length = Length { passes: 200, rounds: 10, looks: 10, limit: Duration::from_secs(300) };
const FULL: Length =
    Length { passes: 2000, rounds: 200, looks: 200, limit: Duration::from_secs(3600) };

/// How many rounds of a kind are enough. Many wait for grace periods, and for a livepatch the kernel changes
/// thousands of places, one after the other.
fn least(kind: &str, length: Length) -> u64 {
    length.rounds.div_ceil(match kind {
        "modules" => 1,
        "livepatch" => 40,
        _ => 20,
    })
}

/// Opening takes the image apart, which an emulated processor on a busy host takes a minute for.
const OPENING: Duration = Duration::from_secs(180);

/// Seconds from one pass to the next, of which a pass takes a third where nothing else runs. What changes the
/// kernel has the rest: if both ran all the time, each change of text would wait for the other processor,
/// which the same thread emulates.
const PERIOD: &str = "0.2";

/// How long a pass may take. All else that runs in the guest takes time from it.
const PASS: Duration = Duration::from_secs(120);

/// Passes after the last change, in which each check runs at least once.
const AFTER: u64 = 12;

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let length = length(cell)?;
    let wanted = wanted(cell)?;
    let vm = boot(cell, &wanted)?;
    let (mut kinds, mut left_out) = (Vec::new(), Vec::new());
    for kind in wanted {
        match vm.try_run(&["sh", DRIVER, kind, "can"])?.code {
            0 => kinds.push(kind),
            _ => left_out.push(kind),
        }
    }
    for kind in &left_out {
        ensure!(lacks(cell, kind)?, "this kernel should be able to do {kind}");
    }
    let mut watch = Watch::start(&vm)?;
    let churned = churn(cell, &vm, &mut watch, &kinds, length);
    // Whatever happened, what was seen is kept.
    let rounds = rounds(&vm, &kinds);
    cell.keep("watch.json", watch.lines.as_bytes())?;
    let findings: String = watch.findings.iter().map(|finding| format!("{finding}\n")).collect();
    cell.keep("findings.json", findings.as_bytes())?;
    let mut figure = format!("{}; {}", watch.figure(), figure_of(&rounds));
    if !left_out.is_empty() {
        figure.push_str(&format!("; this kernel has no {}", left_out.join(", ")));
    }
    churned.context(figure.clone())?;
    ensure!(watch.findings.is_empty(), "{}; {figure}", watch.techniques());
    // What no journal was held against says little about changes that nobody announced.
    ensure!(watch.blind * 2 < watch.passes, "the journal was hardly ever whole: {figure}");
    let code = watch.end()?;
    ensure!(code == 0, "the watch ended with {code}; {figure}");
    vm.power_off();
    Ok(Outcome::passed(figure))
}

fn length(cell: &Cell<'_>) -> anyhow::Result<Length> {
    let length = if cell.is_core() { CORE } else { FULL };
    match env::var("RINGFENCE_CHURN_PASSES") {
        // Short ones are for finding a culprit; how many rounds fit in does not matter then.
        Ok(passes) => {
            let passes = passes.parse().context("RINGFENCE_CHURN_PASSES is no number")?;
            let limit = Duration::from_secs(60 + 3 * passes);
            Ok(Length { passes, rounds: 1, looks: 1, limit })
        }
        Err(_) => Ok(length),
    }
}

fn wanted(cell: &Cell<'_>) -> anyhow::Result<Vec<&'static str>> {
    let Ok(names) = env::var("RINGFENCE_CHURN_KINDS") else {
        return Ok(if cell.is_core() { CORE_KINDS.to_vec() } else { KINDS.to_vec() });
    };
    let known = |name: &str| {
        let kind = KINDS.into_iter().find(|kind| *kind == name);
        kind.with_context(|| format!("no kind of churn is called {name}; there are {KINDS:?}"))
    };
    names.split(',').filter(|name| !name.is_empty()).map(known).collect()
}

/// Whether this kernel lacks what a kind of change needs, by its configuration; a livepatch is built for
/// it from its headers.
fn lacks(cell: &Cell<'_>, kind: &str) -> anyhow::Result<bool> {
    let option = match kind {
        "fprobes" => "CONFIG_FPROBE_EVENTS=y",
        "kfence" => "CONFIG_KFENCE=y",
        "livepatch" => return Ok(attacks::subjects(cell)?.is_none()),
        _ => return Ok(false),
    };
    let config = cell.kernel().config();
    let config = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
    Ok(!config.lines().any(|line| line == option))
}

/// Modules in the order in which they come and go, a line each.
fn in_turn(modules: &[&str]) -> String {
    let (largest, others): (Vec<&str>, Vec<&str>) =
        modules.iter().partition(|module| **module == LARGEST);
    [others.clone(), largest, others.repeat(OTHERS_MORE)].concat().join("\n")
}

fn boot(cell: &Cell<'_>, kinds: &[&str]) -> anyhow::Result<Vm> {
    let packaged = Modules::of(cell.kernel())?;
    let mut boot = Boot::new().file(cell.programs().ringfence(), "/usr/bin/ringfence");
    let mut names = Vec::new();
    for module in MODULES {
        // What is part of the kernel cannot go.
        if packaged.order([module]).is_ok_and(|files| !files.is_empty()) {
            boot = boot.module(module);
            names.push(module);
        }
    }
    if kinds.contains(&"bpf") {
        boot = boot.file(cell.programs().other("watch_churn")?, "/lab/watch_churn");
    }
    let subjects = if kinds.contains(&"livepatch") { attacks::subjects(cell)? } else { None };
    if let Some(subjects) = &subjects {
        let file = "livepatch_abuse.ko";
        boot = boot.file(subjects.join(file), format!("/lab/{file}"));
    }
    let vm = cell.boot(&boot)?;
    vm.put(DRIVER, 0o755, include_bytes!("churn.sh"))?;
    vm.put("/lab/churn-modules", 0o644, in_turn(&names).as_bytes())?;
    if subjects.is_some() {
        // A livepatch of somebody else taints the kernel, which is a finding of its own: by TAINT_OOT_MODULE,
        // TAINT_UNSIGNED_MODULE and TAINT_LIVEPATCH (include/linux/panic.h).
        let taints = (1 << 12) | (1 << 13) | (1 << 15);
        vm.shell(&format!("echo {taints} >/proc/sys/kernel/tainted"))?;
    }
    Ok(vm)
}

/// Changes the kernel until there were passes and rounds enough, and then looks for some passes more.
fn churn(
    cell: &Cell<'_>,
    vm: &Vm,
    watch: &mut Watch<'_>,
    kinds: &[&'static str],
    length: Length,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let start = |kind: &&str| Ok(vm.start(&["sh", DRIVER, kind], length.limit)?);
    let drivers: Vec<Process<'_>> = kinds.iter().map(start).collect::<anyhow::Result<_>>()?;
    let (mut enough, mut failed) = (false, false);
    while !enough && !failed && started.elapsed() < length.limit {
        // Asking costs the guest time too.
        let until = watch.passes + 20;
        while watch.passes < until && started.elapsed() < length.limit {
            watch.event(PASS)?;
        }
        vm.put("/run/churn/passes", 0o644, watch.passes.to_string().as_bytes())?;
        let done = rounds(vm, kinds);
        enough = watch.passes >= length.passes
            && watch.fewest_looks().is_some_and(|(_, looks)| looks >= length.looks)
            && done.iter().all(|(kind, rounds)| *rounds >= least(kind, length));
        failed = vm.get("/run/churn/failed").is_ok();
        // For whoever wants to know how far it is.
        let seconds = started.elapsed().as_secs();
        let figure = format!("{seconds} s: {}; {}\n", watch.figure(), figure_of(&done));
        cell.keep("figure.txt", figure.as_bytes())?;
        cell.keep("watch.json", watch.lines.as_bytes())?;
    }
    vm.shell("mkdir -p /run/churn && touch /run/churn/stop")?;
    for (kind, driver) in kinds.iter().zip(drivers) {
        let ended = driver.wait()?;
        ensure!(ended.code == 0, "{kind}: {}{}", ended.text(), ended.errors());
    }
    // What was told meanwhile has not been read yet.
    let now = vm.shell("date -u +%Y-%m-%dT%H:%M:%S")?;
    while watch.time.as_str() <= now.trim() {
        watch.event(PASS)?;
    }
    let until = watch.passes + AFTER;
    while watch.passes < until {
        watch.event(PASS)?;
    }
    ensure!(enough, "not done in {} s", length.limit.as_secs());
    Ok(())
}

/// How many rounds each kind has done until now.
fn rounds(vm: &Vm, kinds: &[&'static str]) -> BTreeMap<&'static str, u64> {
    let done = |kind: &&'static str| {
        let read = vm.get(&format!("/run/churn/{kind}")).ok();
        let rounds = read.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
        (*kind, rounds.unwrap_or(0))
    };
    kinds.iter().map(done).collect()
}

fn figure_of(rounds: &BTreeMap<&str, u64>) -> String {
    let each: Vec<_> = rounds.iter().map(|(kind, rounds)| format!("{kind} {rounds}")).collect();
    format!("rounds: {}", each.join(", "))
}

/// `ringfence watch --json` in the guest, with what it told.
struct Watch<'vm> {
    process: Process<'vm>,
    lines: String,
    /// When the last pass was over.
    time: String,
    passes: u64,
    entries: u64,
    lost: u64,
    /// Passes in which changes of the text could not be held against the journal.
    blind: u64,
    hooked: u64,
    unhooked: u64,
    /// How often each check looked that could at first, and how often one could not.
    looks: BTreeMap<String, u64>,
    unable: BTreeMap<String, u64>,
    findings: Vec<Value>,
}

impl<'vm> Watch<'vm> {
    fn start(vm: &'vm Vm) -> anyhow::Result<Self> {
        let command = [
            "ringfence",
            "watch",
            "--json",
            "--quiet-journal",
            "--period",
            PERIOD,
            "--share",
            "100",
        ];
        let process = vm.start(&command, FULL.limit + OPENING)?;
        let (lines, time, findings) = (String::new(), String::new(), Vec::new());
        let mut watch = Self {
            process,
            lines,
            time,
            passes: 0,
            entries: 0,
            lost: 0,
            blind: 0,
            hooked: 0,
            unhooked: 0,
            looks: BTreeMap::new(),
            unable: BTreeMap::new(),
            findings,
        };
        // In the first two it waits for whatever the kernel is changing.
        while watch.passes < 3 {
            watch.event(OPENING)?;
        }
        ensure!(watch.findings.is_empty(), "before any change: {}", watch.techniques());
        Ok(watch)
    }

    fn event(&mut self, limit: Duration) -> anyhow::Result<()> {
        let Some(line) = self.process.line(limit)? else { bail!("the watch has ended") };
        self.lines.push_str(&line);
        self.lines.push('\n');
        let event = serde_json::from_str(&line).with_context(|| format!("no event: {line}"))?;
        self.take(&event);
        Ok(())
    }

    fn take(&mut self, event: &Value) {
        match event["event"].as_str() {
            Some("finding") => self.findings.push(event["finding"].clone()),
            Some("hooked") => self.hooked += 1,
            Some("unhooked") => self.unhooked += 1,
            Some("pass") => {
                let count = |name: &str| event[name].as_u64().unwrap_or_default();
                event["time"].as_str().unwrap_or_default().clone_into(&mut self.time);
                self.passes = count("number");
                (self.entries, self.lost) = (count("journal_entries"), count("journal_lost"));
                let checks = event["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
                let blind = |check: &&Value| {
                    let reason = check["reason"].as_str().unwrap_or_default();
                    check["name"] == "text" && reason.contains("journal")
                };
                self.blind += u64::from(checks.iter().any(|check| blind(&check)));
                for check in checks {
                    let able = check["status"] != "unavailable";
                    let counts = if able { &mut self.looks } else { &mut self.unable };
                    let name = check["name"].as_str().unwrap_or_default();
                    *counts.entry(name.to_owned()).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// Asks it to end, and gives its exit code.
    fn end(self) -> anyhow::Result<i32> {
        Ok(self.process.interrupt()?.code)
    }

    /// The check that looked least often, and how often it did.
    fn fewest_looks(&self) -> Option<(&str, u64)> {
        let fewest = self.looks.iter().min_by_key(|(_, looks)| **looks)?;
        Some((fewest.0, *fewest.1))
    }

    fn figure(&self) -> String {
        let Self { passes, entries, lost, blind, hooked, unhooked, findings, .. } = self;
        let findings = findings.len();
        let (check, looks) = self.fewest_looks().unwrap_or_default();
        let unable: Vec<_> = self
            .unable
            .iter()
            .map(|(check, times)| format!(", {check} {times} times not"))
            .collect();
        format!(
            "{findings} findings in {passes} passes ({blind} without a whole journal; each check looked \
             at least {looks} times ({check}){}), {entries} journal entries and {lost} lost, {hooked} \
             hooks came and {unhooked} went",
            unable.join("")
        )
    }

    /// What was found, by check and technique, with how often.
    fn techniques(&self) -> String {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for finding in &self.findings {
            let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            *counts.entry(format!("{}: {}", text("check"), text("technique"))).or_default() += 1;
        }
        let each: Vec<_> =
            counts.iter().map(|(what, count)| format!("{count} of {what}")).collect();
        each.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_module_comes_once_for_four_times_of_the_others() {
        assert_eq!(in_turn(&["dummy", LARGEST]), "dummy\nxfs\ndummy\ndummy\ndummy");
        assert_eq!(in_turn(&[LARGEST]), LARGEST);
    }

    #[test]
    fn each_kind_is_a_part_of_the_driver() {
        let driver = include_str!("churn.sh");
        for kind in KINDS {
            for part in ["can", "begin", "round", "end"] {
                assert!(driver.contains(&format!("\n{kind}_{part}() {{")), "{kind}_{part}");
            }
        }
    }
}
