// SPDX-License-Identifier: Apache-2.0
//! Attacks that are really carried out while `ringfence watch` runs: each is found, by the check and
//! under the name that it should be, and is gone when it is taken back.
//!
//! Which there are, and how each is told of, is in `subjects`.

mod subjects;
mod watch;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use subjects::Told::{Hook, Outside};
pub(super) use subjects::{
    ATTACKS, Subject, Told, bring, from_outside, start_target, subjects, taint, tells, unload,
};
use subjects::{NOT_LOADED, REGISTERS, refused, takes_itself_back};
use watch::Watch;

use crate::detection::{self, Class, Line};
use crate::scenario::{Cell, Outcome, Scenario, everywhere};
use crate::vm::{Boot, Vm};

/// What it is called.
pub(crate) const NAME: &str = "attacks";

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: NAME,
    about: "each attack is found by the check and under the name that it should be",
    kernels: everywhere,
    core: |kernel| ["6.12-cloud-amd64", "7-cloud-amd64"].contains(&kernel.name.as_str()),
    timed: true,
    run,
};

/// How often each of those is carried out that stand in the way by which the guard reads.
const ROUNDS: usize = 10;

/// When one counts as not found. An emulated processor on a busy host needs several seconds for a
/// pass; how long it took is in attacks.tsv.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the watch in a guest may use of its processor. An emulated one is a hundred times slower than
/// those that the default is for, so with that it would look all the time at the text alone.
pub(super) const SHARE: &str = "--share=100";

/// How long after it was loaded an attack by writing memory is carried out: what the guard does because
/// a module was loaded is over by then. It is another time for each, so that they come at any time
/// between two passes.
fn delay(number: usize) -> Duration {
    Duration::from_millis(3000 + (number as u64 * 379) % 1000)
}

/// Opening takes the image apart, which an emulated processor on a busy host takes a minute for.
pub(super) const OPENING: Duration = Duration::from_secs(180);

/// Within this a pass that was under way when something changed has ended.
const SETTLING: Duration = Duration::from_millis(1500);

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    // With the registers of system calls, which `ringfence` does not load the driver for by itself.
    let boot = Boot::new().module("msr").file(cell.programs().ringfence(), "/usr/bin/ringfence");
    let Some(boot) = bring(cell, boot)? else {
        return Ok(Outcome::skipped("the mirror has no headers to build the subjects with"));
    };
    let vm = cell.boot(&boot)?;
    let target = start_target(&vm)?;
    taint(&vm)?;
    let mut watch = Watch::start(&vm)?;
    let (mut log, mut lines) = (String::new(), String::new());
    let (mut missed, mut prevented, mut outside) = (Vec::new(), Vec::new(), 0);
    for (number, (name, told)) in ATTACKS.iter().enumerate() {
        if let Outside(reason) = told {
            outside += 1;
            log.push_str(&format!("{name}\tnot carried out inside: {reason}\n"));
            lines.push_str(&not_seen(name, reason).to_tsv());
            continue;
        }
        // Whoever stands in the guard's own way must not be found by luck.
        let often = detection::ON_READ_PATH.contains(name) && !cell.is_core();
        for round in 0..if often { ROUNDS } else { 1 } {
            watch.told.clear();
            // What goes through an interface of the kernel is announced by it, the module's loading too.
            let at_once = matches!(told, Hook(..));
            let delay = if at_once { Duration::ZERO } else { delay(number + round) };
            let lasts = Duration::from_secs(if takes_itself_back(name) { HIDES_FOR } else { 600 });
            let subject = Subject { name, target: &target, delay, lasts };
            let result = one(&vm, &mut watch, &subject, *told);
            lines.push_str(&line(name, *told, &watch.told, &result).to_tsv());
            match result {
                Ok(after) => log.push_str(&format!("{name}\t{} ms\n", after.as_millis())),
                Err(error) => {
                    log.push_str(&format!("{name}\t{error:#}\n"));
                    if error.to_string().starts_with(PREVENTED) {
                        prevented.push(name);
                        continue;
                    }
                    missed.push(format!("{name}: {error:#}"));
                }
            }
        }
        cell.keep("attacks.tsv", log.as_bytes())?;
        cell.keep(detection::INSIDE, lines.as_bytes())?;
        cell.keep("watch.json", watch.seen.as_bytes())?;
    }
    drop(watch);
    ensure!(missed.is_empty(), "{} of {}: {}", missed.len(), ATTACKS.len(), missed.join("; "));
    vm.power_off();
    let found = ATTACKS.len() - outside - prevented.len();
    let prevented = match prevented.is_empty() {
        true => String::new(),
        false => format!("; {prevented:?} prevented by the kernel"),
    };
    Ok(Outcome::passed(format!(
        "{found} attacks found{prevented}; {outside} only from outside ({REGISTERS})"
    )))
}

/// How one begins where it was, and the kernel would not have what it does.
const PREVENTED: &str = "the kernel prevented it: ";

/// Milliseconds of a day.
pub(super) const DAY: u64 = 86_400_000;

/// When the last attack began, in milliseconds of the day by the guest's clock.
pub(super) fn began(vm: &Vm) -> anyhow::Result<u64> {
    let said = vm.shell("dmesg | sed -n 's/.*attack: begins at //p' | tail -n 1")?;
    said.trim().parse().with_context(|| format!("the subject did not say when it began: {said:?}"))
}

/// The time of day of an event, in milliseconds, out of `2026-11-26T12:13:28.758Z`.
pub(super) fn time_of_day(event: &Value) -> anyhow::Result<u64> {
    let time = event["time"].as_str().context("an event without a time")?;
    let part = |range| time.get(range).and_then(|digits: &str| digits.parse::<u64>().ok());
    let [hours, minutes, seconds, milliseconds] = [11..13, 14..16, 17..19, 20..23].map(part);
    let seconds = || Some((hours? * 60 + minutes?) * 60 + seconds?);
    let all = || Some(seconds()? * 1000 + milliseconds?);
    all().with_context(|| format!("{time} is no time"))
}

/// What is kept of one, by what the watch told meanwhile; the last event is the one that was waited
/// for, if it came.
fn line(name: &str, told: Told, events: &[Value], result: &anyhow::Result<Duration>) -> Line {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let event = events.iter().find(|event| tells(event, name, told)).or(events.first());
    let (by, technique) = match event {
        Some(event) if event["event"] == "hooked" => {
            (format!("hook: {}", text(&event["hook"]["mechanism"])), text(&event["hook"]["owner"]))
        }
        Some(event) => (text(&event["finding"]["check"]), text(&event["finding"]["technique"])),
        None => (String::new(), String::new()),
    };
    let refused = |error: &anyhow::Error| {
        let said = error.to_string();
        let why = [NOT_LOADED, PREVENTED].iter().find_map(|begins| said.strip_prefix(begins));
        why.map(|why| detection::Result::NotPossible(why.into()))
    };
    Line {
        attack: name.to_owned(),
        class: if matches!(told, Hook(..)) { Class::Interface } else { Class::Write },
        by,
        technique,
        result: match result {
            Ok(after) => detection::Result::Found(*after),
            Err(error) => refused(error).unwrap_or(match events.is_empty() {
                true => detection::Result::Missed,
                false => detection::Result::Misnamed,
            }),
        },
    }
}

/// What is kept of one that only the outside sees.
fn not_seen(name: &str, reason: &str) -> Line {
    Line {
        attack: name.to_owned(),
        class: Class::Write,
        by: String::new(),
        technique: String::new(),
        result: detection::Result::NotSeen(reason.to_owned()),
    }
}

/// For so many seconds a module hides, which cannot be unloaded meanwhile.
const HIDES_FOR: u64 = 8;

/// Carries one out, waits until it is told of, and takes it back.
fn one(
    vm: &Vm,
    watch: &mut Watch<'_>,
    subject: &Subject<'_>,
    told: Told,
) -> anyhow::Result<Duration> {
    let began_here = subject.load(vm)?;
    // What lies between is the guest's own time: how long it takes an emulated serial port to tell the
    // host does not count.
    let found = watch.until(subject.name, told, began_here).and_then(|event| {
        let after = (time_of_day(&event)? + DAY - began(vm)?) % DAY;
        ensure!(after < DAY / 2, "it was told of before it began");
        Ok(Duration::from_millis(after))
    });
    if found.is_err()
        && let Some(why) = refused(vm)?
    {
        unload(vm, subject.name)?;
        bail!("{PREVENTED}{why}");
    }
    if takes_itself_back(subject.name) {
        std::thread::sleep((subject.lasts + SETTLING).saturating_sub(began_here.elapsed()));
    }
    unload(vm, subject.name)?;
    watch.until_quiet().with_context(|| format!("after {} was taken back", subject.name))?;
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_of_an_event_is_that_of_the_day() {
        let at = |time: &str| time_of_day(&json!({ "time": time }));
        assert_eq!(at("2026-11-26T12:13:28.758Z").unwrap(), 44_008_758);
        assert!(at("12:13").is_err() && at("2026-11-26T12:13:28.7xxZ").is_err());
    }
}
