// SPDX-License-Identifier: Apache-2.0
//! A product decides what runs: `ringfenced` as it is installed, and the example allow-list on it.
//!
//! The product is an ordinary process of the user nobody. With a gate it is asked about every exec;
//! where there is none (before 6.12) about what lies in a directory that the daemon was given. Then it
//! dies, and then the daemon: each time all goes on as the grant says.
//!
//! crates/daemon/examples/verdict_trial then tries all that can be asked about: through the gate programs,
//! images, modules, programs of BPF, kexec and files; through fanotify programs and files.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{grants, trial};
use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::vm::{Boot, Vm};

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "verdicts",
    about: "the example allow-list denies an unknown program with EPERM, and its end holds up nobody",
    // The other flavour of a series has the same hooks.
    kernels: Kernel::is_for_clouds,
    core: |kernel| matches!(&*kernel.name, "6.1-cloud-amd64" | "7-cloud-amd64"),
    timed: true,
    run,
};

/// What the grant of the example says, for this guest.
const GRANT: &str = r#"client = "org.example.allow-list"
altitude = "400000"
[identity]
executable = "/usr/bin/allow-list"
user = "nobody"
[events.process_exec]
classes = ["notify", "ask"]
deadline_ms = 10000
[events.process_exec.failure]
client_died = "allow"
not_connected = "allow"
"#;

/// What is allowed: all programs of the guest, and one of those that are tried.
const LIST: &str = "/usr/bin/busybox\n/bin/busybox\n/bin/env\n/usr/bin/ringfence\n/lab/agent\n/tried/busybox-known\n";

/// Grants of the trial: of one client that has all denied that it does not answer, and of one that has it
/// allowed.
fn trial_grant(client: &str, altitude: u32, default: &str, watched: &str) -> String {
    let mut text = format!(
        "client = \"org.example.{client}\"\naltitude = \"{altitude}\"\ndraft = true\n\
         watched = [\"{watched}\"]\n[identity]\nexecutable = \"{TRIAL}\"\nuser = \"nobody\"\n\
         [demotion]\nmisses = 100\n"
    );
    let events =
        ["process_exec", "image_map", "module_load", "bpf_load", "kexec_load", "file_open"];
    for event in events {
        text.push_str(&format!(
            "[events.{event}]\nclasses = [\"ask\"]\ndeadline_ms = 10000\n[events.{event}.failure]\n\
             deadline_missed = \"{default}\"\nqueue_full = \"{default}\"\n\
             client_died = \"{default}\"\nnot_connected = \"allow\"\n\
             ringfenced_gone = \"{default}\"\n"
        ));
    }
    text
}

/// One that has what it guards denied while it is away.
const GUARDING: &str = r#"client = "org.example.guarding"
altitude = "430000"
draft = true
watched = ["/tried/guarded"]
[identity]
executable = "/lab/verdict_trial"
user = "nobody"
[events.file_open]
classes = ["ask"]
deadline_ms = 10000
[events.file_open.failure]
not_connected = "deny"
"#;

/// One that is asked about nothing.
const WATCHING: &str = r#"client = "org.example.watching"
altitude = "440000"
[identity]
executable = "/lab/verdict_trial"
user = "nobody"
[events.process_exec]
classes = ["notify"]
"#;

/// What an event is explained by.
const RULES: &str = "[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"allow\"\nfile.path = \"/nowhere\"\n\
                     [[rule]]\nid = 2\nevent = \"process_exec\"\naction = \"deny\"\nerror = \"EACCES\"\n";

const TRIAL: &str = "/lab/verdict_trial";
/// A module that does nothing.
const MODULE: &str = "dummy";

const LIMIT: Duration = Duration::from_secs(120);

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let has_gate = cell.kernel().series() >= (6, 12);
    let programs = cell.programs();
    let boot = Boot::new()
        .file(programs.ringfence(), "/usr/bin/ringfence")
        .file(programs.other("ringfenced")?, "/usr/bin/ringfenced")
        .file(programs.other("allow-list")?, "/usr/bin/allow-list")
        .file(programs.other("verdict_trial")?, TRIAL)
        .module("binfmt_misc")
        .module(MODULE);
    let vm = cell.boot(&boot)?;
    vm.shell(
        "mkdir -p /tried && cp /bin/busybox /tried/busybox-known && \
         cp /bin/busybox /tried/busybox-unknown && cp /bin/busybox /tried/image",
    )?;
    let trial = [("strict", 410_000, "deny"), ("lax", 420_000, "allow")];
    // Through fanotify only what is directly in it.
    let watched = if has_gate { "/tried/watched" } else { "/tried/watched/below" };
    let trial = trial.map(|(client, altitude, default)| {
        (client, trial_grant(client, altitude, default, watched))
    });
    let others = [("allow-list", GRANT), ("guarding", GUARDING), ("watching", WATCHING)];
    let others = others.map(|(client, grant)| (client, grant.to_owned()));
    let events = [("events", grants::of_events("root", "process_exec"))];
    grants::install(&vm, others.into_iter().chain(events).chain(trial))?;
    vm.shell(
        "mkdir -p /tried/watched/below /tried/free /tried/elsewhere /tried/guarded && \
         echo 1 >/tried/free/other && echo 1 >/tried/guarded/secret && \
         echo 1 >/tried/watched/below/secret && cp /bin/busybox /tried/watched/below/ && mount --bind /tried/watched/below /tried/elsewhere && \
         rmmod dummy",
    )?;
    vm.put("/tried/list", 0o644, LIST.as_bytes())?;

    let mut command = vec!["ringfenced"];
    if !has_gate {
        command.extend(["--ask-directory", "/tried"]);
    }
    let daemon = vm.start(&command, LIMIT * 5)?;
    wait(&vm, "no socket", "[ -S /run/ringfence/control ]")?;
    let status: Value = serde_json::from_str(&vm.shell("ringfence status --json || [ $? = 1 ]")?)?;
    cell.keep("status.json", status.to_string().as_bytes())?;
    expect_same("a known program before anybody decides", tried(&vm, "known")?, None)?;
    expect_same("an unknown one before anybody decides", tried(&vm, "unknown")?, None)?;

    let command = "exec /usr/bin/allow-list /tried/list /run/ringfence/control";
    let product = vm.start(&["su", "-s", "/usr/bin/sh", "nobody", "-c", command], LIMIT * 2)?;
    let began = Instant::now();
    while tried(&vm, "unknown")?.is_none() {
        ensure!(began.elapsed() < LIMIT, "the product never denied anything");
    }
    expect_same(
        "an unknown program",
        tried(&vm, "unknown")?.as_deref(),
        Some("Operation not permitted"),
    )?;
    for _ in 0..20 {
        expect_same("a known program", tried(&vm, "known")?, None)?;
    }
    let clients = vm.shell("ringfence clients --json")?;
    cell.keep("clients.json", clients.as_bytes())?;
    ensure!(clients.contains("org.example.allow-list"), "not among the clients: {clients}");

    // The product dies with no word.
    vm.shell("killall -KILL allow-list")?;
    let ended = product.wait()?;
    ensure!(ended.code != 0, "it ended by itself: {}", ended.errors());
    ensure!(ended.text().contains("denied /tried/busybox-unknown"), "it says: {}", ended.text());
    let began = Instant::now();
    while tried(&vm, "unknown")?.is_some() {
        ensure!(began.elapsed() < LIMIT, "what a dead product denied is still denied");
    }

    let held = try_out(cell, &vm, has_gate)?;
    explained(cell, &vm)?;

    // And so does the daemon.
    vm.shell("killall -KILL ringfenced")?;
    daemon.wait()?;
    expect_same("a program without a daemon", tried(&vm, "unknown")?, None)?;
    vm.power_off();
    let by = if has_gate { "the gate" } else { "fanotify" };
    Ok(Outcome::passed(format!("through {by}; {held} things hold of what else is asked")))
}

/// Runs the trial. Gives how many things hold.
fn try_out(cell: &Cell<'_>, vm: &Vm, has_gate: bool) -> anyhow::Result<usize> {
    let module = format!("/lab/modules/{MODULE}.ko");
    let kernel = cell.kernel().vmlinuz_in_guest();
    let arguments: &[&str] = if has_gate { &[&module, &kernel] } else { &["fanotify"] };
    let command = [&[TRIAL], arguments].concat();
    trial::held_as_said(&trial::run(cell, vm, "trial", &command, LIMIT * 3)?)
}

/// An event as `ringfence events` selects and prints it is explained by rules of a file.
fn explained(cell: &Cell<'_>, vm: &Vm) -> anyhow::Result<()> {
    vm.put("/tried/rules", 0o644, RULES.as_bytes())?;
    let command =
        "ringfence events --json --record --count 1 --where 'file.path = \"/tried\"' >/tried/event";
    let listening = vm.start(&["sh", "-c", command], LIMIT)?;
    let began = Instant::now();
    while vm.try_run(&["sh", "-c", "[ -s /tried/event ]"])?.code != 0 {
        ensure!(began.elapsed() < LIMIT, "nothing was told");
        tried(vm, "known")?;
    }
    let listened = listening.wait()?;
    ensure!(listened.code == 0, "ringfence events: {}", listened.errors());
    let said = vm.shell("ringfence explain-event --rules /tried/rules </tried/event")?;
    cell.keep("explained", said.as_bytes())?;
    let [first, second] =
        ["rule 1: does not match: file.path", "rule 2: matches: denied with EACCES"];
    let says = said.contains(first) && said.contains(second);
    ensure!(says && said.contains("/tried/busybox-known"), "it says: {said}");
    Ok(())
}

/// Executes one of the two programs, which are busybox by names that it knows itself by. Gives why it could not be.
fn tried(vm: &Vm, name: &str) -> anyhow::Result<Option<String>> {
    let ran =
        vm.try_run_within(&["/usr/bin/env", &format!("/tried/busybox-{name}"), "true"], LIMIT)?;
    if ran.code == 0 {
        return Ok(None);
    }
    let said = ran.errors();
    let reason = said.trim().rsplit(": ").next().context("it says nothing")?;
    Ok(Some(reason.to_owned()))
}

/// Until a line of shell succeeds.
fn wait(vm: &Vm, what: &str, line: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while vm.try_run_within(&["sh", "-c", line], LIMIT)?.code != 0 {
        ensure!(began.elapsed() < LIMIT, "{what}");
    }
    Ok(())
}
