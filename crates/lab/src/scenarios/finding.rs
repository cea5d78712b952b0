// SPDX-License-Identifier: Apache-2.0
//! A finding of the guard reaches a product: `ringfenced` runs the guard, and a client that is the user
//! nobody is told of an attack in its ring, and that it is over.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::attacks::{self, DAY, OPENING, SHARE, Subject, began, time_of_day};
use super::grants;
use crate::kernels::Kernel;
use crate::process::Process;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::vm::{Boot, Vm};

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "finding",
    about: "an attack is told of to an unprivileged client, by ringfenced, within 10 s",
    // The way of a finding to a client is the same on the other flavour of a series.
    kernels: Kernel::is_for_clouds,
    core: |kernel| ["6.12-cloud-amd64", "7-cloud-amd64"].contains(&kernel.name.as_str()),
    timed: true,
    run,
};

/// The attack (tests/attacks), its technique, and the symbol that it writes over.
const ATTACK: (&str, &str, &str) = ("inline_start", "early return", "__do_sys_getpid");

/// From the attack to the client, by the guest's clock.
const WITHIN: Duration = Duration::from_secs(10);
/// When it counts as never.
const LIMIT: Duration = Duration::from_secs(120);

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let Some(subjects) = attacks::subjects(cell)? else {
        return Ok(Outcome::skipped("the mirror has no headers to build the subject with"));
    };
    let (name, technique, symbol) = ATTACK;
    let programs = cell.programs();
    let boot = Boot::new()
        .module("msr")
        .file(programs.ringfence(), "/usr/bin/ringfence")
        .file(programs.other("ringfenced")?, "/usr/bin/ringfenced")
        .file(subjects.join(format!("{name}.ko")), format!("/lab/{name}.ko"));
    let vm = cell.boot(&boot)?;
    attacks::taint(&vm)?;
    grants::install(&vm, [("events", grants::of_events("nobody", "kernel_finding"))])?;
    // An emulated processor is a hundred times slower than those that the default share is for.
    let guard = format!("#!/usr/bin/sh\nexec /usr/bin/ringfence \"$@\" {SHARE}\n");
    vm.put("/lab/guard", 0o755, guard.as_bytes())?;

    let daemon = vm.start(&["ringfenced", "--guard", "/lab/guard"], OPENING * 4)?;
    let status = until(&vm, OPENING, |status| status["status"]["guard"]["state"] == "watching")?;
    cell.keep("status.json", status.to_string().as_bytes())?;
    expect_same("findings before the attack", &status["status"]["guard"]["standing"], &0.into())?;

    let command = "exec /usr/bin/ringfence events --json --type kernel_finding";
    let mut client =
        vm.start(&["su", "-s", "/usr/bin/sh", "nobody", "-c", command], OPENING * 4)?;
    until(&vm, LIMIT, |status| status["status"]["sessions"] == 1)?;

    let lasts = Duration::from_secs(600);
    let subject = Subject { name, target: "", delay: Duration::from_secs(3), lasts };
    subject.load(&vm)?;
    let told = finding(cell, &mut client, "new")?;
    expect_same("the technique", &told["event"]["technique"], &technique.into())?;
    expect_same("the symbol", &told["event"]["finding"]["symbol"], &symbol.into())?;
    expect_same("what was lost before", &told["missed"], &0.into())?;
    let after = (time_of_day(&told)? + DAY - began(&vm)?) % DAY;
    ensure!(after < DAY / 2, "it was told of before it began");
    ensure!(u128::from(after) <= WITHIN.as_millis(), "it was told of after {after} ms");

    attacks::unload(&vm, name)?;
    let gone = finding(cell, &mut client, "gone")?;
    expect_same("what is gone", &gone["event"]["finding"]["symbol"], &symbol.into())?;

    // The guard is no child of init's, and ends with the daemon.
    vm.shell("killall -KILL ringfenced")?;
    daemon.wait()?;
    let began = Instant::now();
    while vm.try_run(&["sh", "-c", "ps | grep -q '[r]ingfence watch'"])?.code == 0 {
        ensure!(began.elapsed() < LIMIT, "the guard goes on without its daemon");
    }
    drop(client);
    vm.power_off();
    Ok(Outcome::passed(format!("told after {after} ms, as nobody")))
}

/// The next finding that the client is told of in this state; others are none of this attack's.
fn finding(cell: &Cell<'_>, client: &mut Process<'_>, state: &str) -> anyhow::Result<Value> {
    let began = Instant::now();
    let mut others = String::new();
    loop {
        let left = LIMIT.saturating_sub(began.elapsed());
        let line = client.line(left).with_context(|| format!("no finding; told was {others}"))?;
        let Some(line) = line else { bail!("the client has ended") };
        cell.keep(&format!("{state}.json"), line.as_bytes())?;
        let event: Value =
            serde_json::from_str(&line).with_context(|| format!("no event: {line}"))?;
        if event["type"] == "kernel_finding"
            && event["event"]["state"] == state
            && event["event"]["check"] == "text"
        {
            return Ok(event);
        }
        others.push_str(&line);
    }
}

/// Waits until what `ringfence status` says is so.
fn until(vm: &Vm, limit: Duration, so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        let said = vm.try_run(&["ringfence", "status", "--json"])?;
        let status: Value = serde_json::from_slice(&said.out).unwrap_or_default();
        if so(&status) {
            return Ok(status);
        }
        ensure!(began.elapsed() < limit, "never so: {status} {}", said.errors());
        std::thread::sleep(Duration::from_millis(500));
    }
}
