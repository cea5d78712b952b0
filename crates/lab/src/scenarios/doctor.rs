// SPDX-License-Identifier: Apache-2.0
//! What a kernel cannot do is said by `ringfence doctor`, with what is missing.

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

/// Events that tasks can be asked about where there is a gate.
const ASKED: [&str; 2] = ["process_exec", "image_map"];
/// The functions of the kernel without which a program cannot wait for an answer, 6.12.
const GATE: &str = "bpf_get_file_xattr";
/// And without which none can load from any address, 6.2.
const INLINE: &str = "bpf_rdonly_cast";

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let series = cell.kernel().series();
    let vm = cell.boot(&Boot::new().file(cell.programs().ringfence(), "/usr/bin/ringfence"))?;
    let said = vm.run_within(&["ringfence", "doctor", "--json"], LIMIT)?;
    cell.keep("doctor.json", &said.out)?;
    let doctor: Value = serde_json::from_slice(&said.out).context("no JSON")?;
    let mut reductions = 0;

    let features = doctor["features"].as_array().context("no features")?;
    for feature in features {
        let there = feature["state"] == "available";
        ensure!(there || has_reason(&feature["reason"]), "no reason is given: {feature}");
        reductions += u32::from(!there);
    }
    let feature = |name: &str| {
        let found = features.iter().find(|feature| feature["name"] == name);
        found.with_context(|| format!("it does not tell of {name}"))
    };
    missing(feature("inline reads")?, "state", "available", series >= (6, 2), INLINE)?;
    missing(feature("verdict gate")?, "state", "available", series >= (6, 12), GATE)?;

    let events = doctor["events"].as_array().context("no events")?;
    for event in events {
        for way in ["told", "denied", "asked"] {
            let there = !event[way]["by"].is_null();
            ensure!(there || has_reason(&event[way]["reason"]), "no reason is given: {event}");
            reductions += u32::from(!there);
        }
        let name = event["event"].as_str().unwrap_or_default();
        if ASKED.contains(&name) {
            missing(&event["asked"], "by", "LSM hook", series >= (6, 12), GATE)?;
        }
    }
    expect_same("whether the guard works", &doctor["can_check"], &true.into())?;
    vm.power_off();
    Ok(Outcome::passed(format!("{reductions} reductions, each with its reason")))
}

fn has_reason(reason: &Value) -> bool {
    reason.as_str().is_some_and(|reason| !reason.trim().is_empty())
}

/// What is there where it should be; where not, the reason names what the kernel lacks.
fn missing(of: &Value, field: &str, value: &str, there: bool, lacking: &str) -> anyhow::Result<()> {
    if there {
        return expect_same(&of.to_string(), &of[field], &value.into());
    }
    ensure!(of[field] != value, "this kernel has no {lacking}, but it says {of}");
    let reason = of["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(lacking), "it does not name {lacking}: {of}");
    Ok(())
}
