// SPDX-License-Identifier: Apache-2.0
//! Attacks that are really carried out while `ringfence watch` runs: each is found, by the check and
//! under the name that it should be, and is gone when it is taken back.
//!
//! The subjects are kernel modules, tests/attacks/NAME/NAME.c. They load in the lab only and take
//! back what they did.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::detection::{self, Class, Line};
use crate::process::Process;
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

/// How an attack is told of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// A finding of this check, whose technique has these words.
    Finding(&'static str, &'static str),
    /// A hook of this mechanism, with its owner: a legitimate mechanism, which policy judges.
    Hook(&'static str),
    /// As a finding of one of these, which depends on the kernel.
    OneOf(&'static [(&'static str, &'static str)]),
    /// Not within the guest, for this reason: only who looks from outside can tell.
    Outside(&'static str),
}

use Told::{Finding, Hook, OneOf, Outside};

/// Why control registers are not seen.
const REGISTERS: &str = "UMIP keeps CR0 from user mode, and memory remembers nothing of it";

/// The subjects with what is told of each.
pub(super) const ATTACKS: &[(&str, Told)] = &[
    ("inline_start", Finding("text", "early return")),
    ("inline_jump", Finding("text", "inline patch at function start")),
    ("inline_middle", Finding("text", "inline patch within a function")),
    ("check_removed", Finding("text", "instructions removed")),
    ("syscall_dispatch", Finding("text", "system call dispatch retargeted")),
    ("syscall_table", Finding("rodata", "")),
    ("jump_label_flipped", Finding("jump_labels", "")),
    ("file_operations", Finding("rodata", "")),
    ("seq_operations", Finding("rodata", "")),
    ("idt_entry", Finding("idt", "IDT vector redirected")),
    ("code_without_module", Finding("executable_pages", "without an owner")),
    ("writable_alias", Finding("text", "")),
    ("ftrace_hook", Hook("ftrace")),
    ("kprobe_hook", Hook("kprobe")),
    ("tracepoint_hook", Hook("tracepoint")),
    ("helper_path", Finding("settings", "")),
    ("core_pattern", Finding("settings", "")),
    ("task_hidden", Finding("tasks", "unlinked")),
    ("module_hidden_list", Finding("modules", "")),
    ("module_hidden_sysfs", Finding("modules", "")),
    ("module_hidden_tree", Finding("modules", "")),
    ("netfilter_hook", Hook("netfilter")),
    ("keyboard_notifier", Hook("notifier")),
    ("module_notifier", Hook("notifier")),
    ("binfmt_handler", Hook("binfmt")),
    ("credentials_written", Finding("credentials", "credentials overwritten")),
    ("credentials_stolen", Finding("credentials", "credentials stolen")),
    ("credentials_committed", Finding("credentials", "without authorisation")),
    ("inode_operations", Finding("operations", "operations of an object replaced")),
    ("protocol_operations", Finding("operations", "operation replaced")),
    ("lstar", Finding("entry", "system call entry redirected (LSTAR)")),
    ("write_protection_off", Outside(REGISTERS)),
    ("smep_off", Finding("registers", "CR4")),
    ("remapped_text", Finding("executable_pages", "remapped to other memory")),
    ("writable_text", Finding("executable_pages", "writable and executable")),
    ("executable_alias", Finding("executable_pages", "writable and executable")),
    ("executable_data", Finding("executable_pages", "without an owner")),
    ("ftrace_hidden", Finding("hooks", "ftrace hook hidden")),
    ("kprobe_hidden", Finding("text", "kprobe hidden")),
    ("kretprobe_hook", Hook("kprobe")),
    ("static_call_key", Hook("static call")),
    // A list of functions in read-only data before 6.12.
    (
        "lsm_static_call",
        OneOf(&[("text", "static call trampoline retargeted"), ("rodata", "read-only data")]),
    ),
    ("livepatch_abuse", Hook("livepatch")),
    ("lockdown_lowered", Finding("settings", "setting weakened")),
    ("read_path_hook", Finding("read_paths", "read path hooked")),
    ("bpf_path_hook", Finding("read_paths", "read path hooked")),
];

/// How often each of those is carried out that stand in the way by which the guard reads.
const ROUNDS: usize = 10;

/// Those that make a task powerful: the parameter `target` is its number.
const ON_A_TASK: [&str; 3] = ["credentials_written", "credentials_stolen", "credentials_committed"];

/// Starts a task of a user without rights and prints its number. busybox wants the user to have a name.
const START_TARGET: &str = "mkdir -p /etc && \
    echo 'nobody:x:65534:65534::/:/bin/sh' >>/etc/passwd && echo 'nogroup:x:65534:' >>/etc/group && \
    start-stop-daemon -S -b -m -p /run/target -c 65534:65534 -x /usr/bin/sleep -- 36000 && \
    sleep 1 && cat /run/target";

/// Starts the task that some become powerful by; gives the parameter that names it.
pub(super) fn start_target(vm: &Vm) -> anyhow::Result<String> {
    Ok(format!("target={}", vm.run(&["sh", "-c", START_TARGET])?.text()))
}

/// How a subject is carried out.
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    /// The parameter that names the task which some make powerful.
    pub(super) target: &'a str,
    /// How long after it was loaded it is carried out.
    pub(super) delay: Duration,
    /// How long after that it takes itself back.
    pub(super) lasts: Duration,
}

impl Subject<'_> {
    /// Loads it; gives when it is carried out.
    pub(super) fn load(&self, vm: &Vm) -> anyhow::Result<Instant> {
        let file = format!("/lab/{}.ko", self.name);
        let delay = format!("delay_ms={}", self.delay.as_millis());
        let seconds = format!("seconds={}", self.lasts.as_secs());
        let target = ON_A_TASK.contains(&self.name).then_some(self.target);
        let words: Vec<&str> =
            ["insmod", &file, &delay, &seconds].into_iter().chain(target).collect();
        let began = Instant::now() + self.delay;
        let loaded = vm.try_run(&words)?;
        ensure!(loaded.code == 0, "{NOT_LOADED}{}", loaded.errors());
        Ok(began)
    }
}

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

/// What the kernel said of a subject that could not be carried out; nothing if it was.
fn refused(vm: &Vm) -> anyhow::Result<Option<String>> {
    let said = vm.shell("dmesg | grep 'attack:' | tail -n 1")?;
    Ok(said.contains("could not be carried out").then_some(said))
}

/// Taints the kernel as the subjects do. A module without a signature taints it, which the check of
/// settings tells of by itself; so that no finding stands between two attacks, it is tainted before the
/// first look.
pub(super) fn taint(vm: &Vm) -> anyhow::Result<()> {
    let (first, _) = ATTACKS[0];
    vm.run(&["insmod", &format!("/lab/{first}.ko")])?;
    vm.run(&["rmmod", first])?;
    // So does a livepatch, by TAINT_LIVEPATCH (include/linux/panic.h), and a kernel that warns, by
    // TAINT_WARN, as 6.1 does when a module is unloaded that had left sysfs (`sysfs_remove_group`).
    vm.shell("echo $((32768 + 512)) >/proc/sys/kernel/tainted")?;
    Ok(())
}

/// Whether a subject has to take itself back: a module that hides cannot be unloaded, nor one that
/// replaces functions.
fn takes_itself_back(name: &str) -> bool {
    name.starts_with("module_hidden") || name == "livepatch_abuse"
}

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
    let Some(subjects) = subjects(cell)? else {
        return Ok(Outcome::skipped("the mirror has no headers to build the subjects with"));
    };
    // With the registers of system calls, which `ringfence` does not load the driver for by itself.
    let mut boot = Boot::new().module("msr");
    boot = boot.file(cell.programs().ringfence(), "/usr/bin/ringfence");
    for (name, _) in ATTACKS {
        let file = format!("{name}.ko");
        boot = boot.file(subjects.join(&file), format!("/lab/{file}"));
    }
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
            let at_once = matches!(told, Hook(_));
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

/// Where the subjects for this kernel are; none if they cannot be built.
pub(crate) fn subjects(cell: &Cell<'_>) -> anyhow::Result<Option<PathBuf>> {
    let kernel = cell.kernel();
    let headers = kernel.directory.join("headers");
    if headers.read_dir().is_ok_and(|mut packages| packages.next().is_none()) {
        return Ok(None);
    }
    let cache = kernel.directory.ancestors().nth(2).context("a kernel without a cache")?;
    let subjects = cache.join("attacks").join(&kernel.name);
    ensure!(subjects.is_dir(), "{} is not there; run make attacks", subjects.display());
    Ok(Some(subjects))
}

/// How an error begins where a subject could not be loaded.
const NOT_LOADED: &str = "it was not loaded: ";

/// How one begins where it was, and the kernel would not have what it does.
const PREVENTED: &str = "the kernel prevented it: ";

/// What is kept of one, by what the watch told meanwhile; the last event is the one that was waited
/// for, if it came.
fn line(name: &str, told: Told, events: &[Value], result: &anyhow::Result<Duration>) -> Line {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let event = events.iter().find(|event| tells(event, told)).or(events.first());
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
        class: if matches!(told, Hook(_)) { Class::Interface } else { Class::Write },
        by,
        technique,
        has_name: match told {
            Finding(_, words) => !words.is_empty(),
            OneOf(each) => each.iter().all(|(_, words)| !words.is_empty()),
            Hook(_) | Outside(_) => false,
        },
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
        has_name: false,
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
    let found = watch.until(told, began_here).and_then(|event| {
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

/// Unloads it, when the kernel lets it go: all tasks must first have left a function that was replaced.
pub(super) fn unload(vm: &Vm, name: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    // Kernel threads have an empty root of their own since 7.0 and reach no file by its path, so there
    // a livepatch is switched off for the subject.
    let enabled = format!("/sys/kernel/livepatch/{name}/enabled");
    vm.run(&["sh", "-c", &format!("if grep -qs 1 {enabled}; then echo 0 >{enabled}; fi")])?;
    loop {
        let unloaded = vm.try_run(&["rmmod", name])?;
        if unloaded.code == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "it cannot be unloaded: {}", unloaded.errors());
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// `ringfence watch --json` in the guest.
struct Watch<'vm> {
    process: Process<'vm>,
    seen: String,
    /// Findings and hooks that were told while an attack was waited for.
    told: Vec<Value>,
}

impl<'vm> Watch<'vm> {
    fn start(vm: &'vm Vm) -> anyhow::Result<Self> {
        let process =
            vm.start(&["ringfence", "watch", "--json", SHARE], Duration::from_secs(1800))?;
        let mut watch = Self { process, seen: String::new(), told: Vec::new() };
        // All is well before the first attack, or nothing after it says anything.
        while watch.event(OPENING)?["event"] != "pass" {}
        ensure!(!watch.seen.contains("\"event\":\"finding\""), "findings before the first attack");
        Ok(watch)
    }

    fn event(&mut self, limit: Duration) -> anyhow::Result<Value> {
        let Some(line) = self.process.line(limit)? else { bail!("the watch has ended") };
        self.seen.push_str(&line);
        self.seen.push('\n');
        serde_json::from_str(&line).with_context(|| format!("no event: {line}"))
    }

    /// Waits until no finding stands, so that the next one is news.
    fn until_quiet(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let event = self.event(PATIENCE.saturating_sub(began.elapsed()))?;
            // What began before the attack was taken back may end after it.
            if event["event"] == "pass" && event["findings"] == 0 && began.elapsed() > SETTLING {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "a finding still stands: {event}");
        }
    }

    /// Waits for the event that tells of it.
    fn until(&mut self, told: Told, began: Instant) -> anyhow::Result<Value> {
        let mut others = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let event = if left.is_zero() { None } else { self.event(left).ok() };
            let Some(event) = event else {
                bail!("not told of in {} s; told was: {}", PATIENCE.as_secs(), others.join(", "))
            };
            if event["event"] == "finding" || event["event"] == "hooked" {
                self.told.push(event.clone());
            }
            if tells(&event, told) {
                return Ok(event);
            }
            match event["event"].as_str() {
                Some("finding") => {
                    let finding = &event["finding"];
                    others.push(format!("{}: {}", finding["check"], finding["technique"]));
                }
                Some("hooked") => others.push(format!("a hook of {}", event["hook"]["mechanism"])),
                _ => {}
            }
        }
    }
}

pub(super) fn tells(event: &Value, told: Told) -> bool {
    let has = |value: &Value, words: &str| value.as_str().is_some_and(|text| text.contains(words));
    let finds = |check: &str, technique: &str| {
        let finding = &event["finding"];
        event["event"] == "finding"
            && finding["check"] == check
            && has(&finding["technique"], technique)
    };
    match told {
        Finding(check, technique) => finds(check, technique),
        OneOf(each) => each.iter().any(|(check, technique)| finds(check, technique)),
        Outside(_) => false,
        Hook(mechanism) => event["event"] == "hooked" && event["hook"]["mechanism"] == mechanism,
    }
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

    #[test]
    fn an_event_tells_of_an_attack_by_check_and_technique_or_by_mechanism() {
        let finding = json!({"event": "finding", "finding":
            {"check": "text", "technique": "early return"}});
        assert!(tells(&finding, Finding("text", "early return")));
        assert!(tells(&finding, Finding("text", "")));
        assert!(!tells(&finding, Finding("rodata", "")));
        assert!(!tells(&finding, Finding("text", "call retargeted")));
        let hook = json!({"event": "hooked", "hook": {"mechanism": "ftrace"}});
        assert!(tells(&hook, Hook("ftrace")) && !tells(&hook, Hook("kprobe")));
        assert!(!tells(
            &json!({"event": "unhooked", "hook": {"mechanism": "ftrace"}}),
            Hook("ftrace")
        ));
    }
}
