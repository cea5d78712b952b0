// SPDX-License-Identifier: Apache-2.0
//! What a kernel can and cannot do is said by `ringfence doctor`: all of it, and for what it cannot what is
//! missing.
//!
//! What it must say stands here, series by series, and not what it said once: a unit test holds the table to
//! api/lifecycle.toml, the tests of doors (docs/coverage.md) show that what it says can be had is had.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "doctor",
    about: "doctor names each thing that a kernel cannot do, with what is missing",
    // The other flavour of a series has the same hooks.
    kernels: Kernel::is_for_clouds,
    core: |kernel| ["6.1-cloud-amd64", "7-cloud-amd64"].contains(&kernel.name.as_str()),
    timed: false,
    run,
};

const LIMIT: Duration = Duration::from_secs(300);

/// The functions of the kernel without which a program cannot wait for an answer, 6.12.
const GATE: &str = "bpf_get_file_xattr";
/// And without which none can load from any address, 6.2.
const INLINE: &str = "bpf_rdonly_cast";

const WAYS: [&str; 3] = ["told", "denied", "asked"];

/// By what something can be had; or, if it cannot, what the reason must name.
type Had = Result<&'static str, &'static str>;

const TRACEPOINT: Had = Ok("tracepoint");
const HOOK: Had = Ok("LSM hook");
const DONE: Had = Err("what tells of it is passed when it is done");
const UNASKED: Had = Err("no program asks about it");

/// Each event that programs of the kernel make, and how it is told of, denied and asked about on a kernel that
/// lacks nothing.
const EVENTS: [(&str, [Had; 3]); 19] = [
    ("process_exec", [TRACEPOINT, HOOK, HOOK]),
    ("process_fork", [TRACEPOINT, DONE, UNASKED]),
    ("process_exit", [TRACEPOINT, DONE, UNASKED]),
    ("process_signal", [TRACEPOINT, HOOK, UNASKED]),
    ("process_trace", [HOOK, HOOK, UNASKED]),
    // What an exec changes is passed when it can no longer be denied.
    ("process_credentials", [HOOK, DONE, UNASKED]),
    ("thread_create", [TRACEPOINT, DONE, UNASKED]),
    ("image_map", [HOOK, HOOK, HOOK]),
    ("module_load", [HOOK, HOOK, HOOK]),
    ("module_unload", [TRACEPOINT, DONE, UNASKED]),
    ("bpf_load", [HOOK, HOOK, HOOK]),
    ("kexec_load", [HOOK, HOOK, HOOK]),
    ("firmware_load", [HOOK, HOOK, UNASKED]),
    ("memory_map", [HOOK, HOOK, UNASKED]),
    ("memory_protect", [HOOK, HOOK, UNASKED]),
    ("memory_access", [HOOK, HOOK, UNASKED]),
    ("memory_fileless", [HOOK, HOOK, UNASKED]),
    ("file_open", [HOOK, HOOK, HOOK]),
    ("file_modify", [HOOK, DONE, UNASKED]),
];

/// What fanotify asks about where there is no gate.
const BY_FANOTIFY: [&str; 2] = ["process_exec", "file_open"];

/// The hook that is passed as what was open is no more, 6.9.
const RELEASE: &str = "no LSM hook file_release";

/// What a process that ends has given up before it is told of, until 6.15.
const EXITS: &str = "without what the process ran";

/// How an event can be had on a series.
fn had(event: &str, way: &str, full: Had, series: (u32, u32)) -> Had {
    if event == "file_modify" && way == "told" && series < (6, 9) {
        return Err(RELEASE);
    }
    let needs_gate = way == "asked" && full == HOOK;
    if !needs_gate || series >= (6, 12) {
        full
    } else if BY_FANOTIFY.contains(&event) {
        Ok("fanotify")
    } else {
        Err(GATE)
    }
}

/// All features of the host, and what lacks where not all is well.
const FEATURES: [&str; 21] = [
    "privilege",
    "lockdown",
    "kernel types (BTF)",
    "kernel symbols",
    "kernel image",
    "inline reads",
    "helper reads",
    "kcore",
    "text poke journal",
    "ksymbol journal",
    "module journal",
    "BPF iterators",
    "tracefs",
    "securityfs",
    "BPF LSM programs",
    "verdict gate",
    "fs-verity digests",
    "fentry programs",
    "kprobes",
    "fanotify permission events",
    "peer pidfds",
];

/// The state of a feature on a series, and what the reason must name if it is not available.
fn state(feature: &str, series: (u32, u32)) -> (&'static str, &'static str) {
    match feature {
        // The guests are booted without.
        "lockdown" => ("reduced", "lockdown=integrity"),
        "inline reads" if series < (6, 2) => ("unavailable", INLINE),
        "peer pidfds" if series < (6, 5) => ("reduced", "before 6.5"),
        "verdict gate" if series < (6, 12) => ("unavailable", GATE),
        _ => ("available", ""),
    }
}

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let series = cell.kernel().series();
    let vm = cell.boot(&Boot::new().file(cell.programs().ringfence(), "/usr/bin/ringfence"))?;
    let said = vm.run_within(&["ringfence", "doctor", "--json"], LIMIT)?;
    cell.keep("doctor.json", &said.out)?;
    let doctor: Value = serde_json::from_slice(&said.out).context("no JSON")?;
    let mut reductions = 0;

    let features = doctor["features"].as_array().context("no features")?;
    let names: Vec<_> = features.iter().map(|feature| &feature["name"]).collect();
    ensure!(names == FEATURES, "its features are {names:?}");
    for (name, feature) in FEATURES.into_iter().zip(features) {
        let (state, lacking) = state(name, series);
        expect_same(name, &feature["state"], &state.into())?;
        names_what_lacks(feature, lacking)?;
        reductions += u32::from(state != "available");
    }

    let events = doctor["events"].as_array().context("no events")?;
    let names: Vec<_> = events.iter().map(|event| &event["event"]).collect();
    ensure!(names == EVENTS.map(|(name, _)| name), "its events are {names:?}");
    for ((name, full), event) in EVENTS.into_iter().zip(events) {
        for (way, full) in WAYS.into_iter().zip(full) {
            let said = &event[way];
            let what = format!("{name} {way}: {said}");
            match had(name, way, full, series) {
                Ok(by) => expect_same(&what, &said["by"], &by.into())?,
                Err(lacking) => {
                    expect_same(&what, &said["by"], &Value::Null)?;
                    names_what_lacks(said, lacking)?;
                    reductions += 1;
                }
            }
        }
    }
    let exits = events.iter().find(|event| event["event"] == "process_exit");
    let exits = &exits.context("nothing of process_exit")?["told"];
    if series < (6, 16) {
        names_what_lacks(exits, EXITS)?;
        reductions += 1;
    } else {
        expect_same("what of process_exit is not told", &exits["reason"], &Value::Null)?;
    }
    expect_same("whether the guard works", &doctor["can_check"], &true.into())?;
    vm.power_off();
    Ok(Outcome::passed(format!("{reductions} reductions, each as it must be and with its reason")))
}

fn names_what_lacks(of: &Value, lacking: &str) -> anyhow::Result<()> {
    let reason = of["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(lacking), "it does not name {lacking}: {of}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::lifecycle;

    use super::*;

    #[test]
    fn what_a_kernel_that_lacks_nothing_has_is_what_is_promised() {
        let areas = ["process", "image", "memory", "file"];
        let entries = lifecycle::entries();
        for (event, entry) in entries.iter().filter(|(_, entry)| areas.contains(&&*entry.area)) {
            let row = EVENTS.iter().find(|(name, _)| name == event);
            for (class, at) in [("notify", 0), ("rule", 1), ("ask", 2)] {
                let there = row.is_some_and(|(_, ways)| ways[at].is_ok());
                assert_eq!(entry.has(class), there, "{event} {class}");
            }
        }
        let known = |name: &str| entries.contains_key(name);
        assert!(EVENTS.iter().all(|(name, _)| known(name)));
    }

    #[test]
    fn without_a_gate_exec_and_open_are_asked_about_by_fanotify_and_the_rest_is_not() {
        assert_eq!(had("process_exec", "asked", HOOK, (6, 1)), Ok("fanotify"));
        assert_eq!(had("image_map", "asked", HOOK, (6, 1)), Err(GATE));
        assert_eq!(had("image_map", "denied", HOOK, (6, 1)), HOOK);
        assert_eq!(had("image_map", "asked", HOOK, (6, 12)), HOOK);
        assert_eq!(had("process_fork", "asked", UNASKED, (6, 1)), UNASKED);
        assert_eq!(had("file_modify", "told", HOOK, (6, 1)), Err(RELEASE));
        assert_eq!(had("file_modify", "told", HOOK, (6, 12)), HOOK);
    }
}
