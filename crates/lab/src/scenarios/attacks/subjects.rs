// SPDX-License-Identifier: Apache-2.0
//! The subjects, tests/attacks/NAME: what they are, how they come into a guest, how they are carried out
//! and taken back, and how each is told of.
//!
//! Most are kernel modules. They load in the lab only and take back what they did.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::PATIENCE;
use crate::scenario::Cell;
use crate::vm::{Boot, Vm};

/// How an attack is told of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// A finding of this check, whose technique has these words.
    Finding(&'static str, &'static str),
    /// A hook of this mechanism, with the subject as its owner and these words for what is called: a
    /// legitimate mechanism, which policy judges.
    Hook(&'static str, &'static str),
    /// As a finding of one of these, which depends on the kernel.
    OneOf(&'static [(&'static str, &'static str)]),
    /// Not within the guest, for this reason: only who looks from outside can tell.
    Outside(&'static str),
}

use Told::{Finding, Hook, OneOf, Outside};

/// Why control registers are not seen.
pub(super) const REGISTERS: &str =
    "UMIP keeps CR0 from user mode, and memory remembers nothing of it";

/// The subjects with what is told of each.
pub(crate) const ATTACKS: &[(&str, Told)] = &[
    ("inline_start", Finding("text", "early return")),
    ("inline_jump", Finding("text", "inline patch at function start")),
    ("inline_middle", Finding("text", "inline patch within a function")),
    ("check_removed", Finding("text", "instructions removed")),
    ("syscall_dispatch", Finding("text", "system call dispatch retargeted")),
    ("syscall_table", Finding("rodata", "system call table entry redirected")),
    ("jump_label_flipped", Finding("jump_labels", "jump label does not follow its key")),
    ("file_operations", Finding("rodata", "function pointer redirected")),
    ("seq_operations", Finding("rodata", "function pointer redirected")),
    ("idt_entry", Finding("idt", "IDT vector redirected")),
    ("code_without_module", Finding("executable_pages", "without an owner")),
    ("writable_alias", Finding("text", "int3 without a kprobe")),
    ("ftrace_hook", Hook("ftrace", "")),
    ("kprobe_hook", Hook("kprobe", "")),
    ("tracepoint_hook", Hook("tracepoint", "")),
    ("helper_path", Finding("settings", "kernel starts a program from /tmp/")),
    ("core_pattern", Finding("settings", "kernel starts a program from /tmp/")),
    ("task_hidden", Finding("tasks", "unlinked")),
    ("module_hidden_list", Finding("modules", "module hidden")),
    ("module_hidden_sysfs", Finding("modules", "module hidden")),
    ("module_hidden_tree", Finding("modules", "module hidden")),
    ("netfilter_hook", Hook("netfilter", "")),
    ("keyboard_notifier", Hook("notifier", "")),
    ("module_notifier", Hook("notifier", "")),
    ("binfmt_handler", Hook("binfmt", "")),
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
    ("kretprobe_hook", Hook("kprobe", "")),
    ("static_call_key", Hook("static call", "")),
    // A list of functions in read-only data before 6.12.
    (
        "lsm_static_call",
        OneOf(&[
            ("text", "static call trampoline retargeted"),
            ("rodata", "function pointer redirected"),
        ]),
    ),
    ("livepatch_abuse", Hook("livepatch", "")),
    ("lockdown_lowered", Finding("settings", "setting weakened")),
    ("read_path_hook", Finding("read_paths", "read path hooked")),
    ("proc_operations", Finding("operations", "operations of an object replaced")),
    ("bpf_hides", Hook("bpf link", "writes memory of processes (bpf_probe_write_user)")),
    ("bpf_program_hidden", Finding("bpf", "BPF program removed from the id table")),
    ("bpf_path_hook", Finding("read_paths", "read path hooked")),
];

/// What is told of otherwise by a look from outside, which is one look and nothing before it.
const FROM_OUTSIDE: &[(&str, Told)] = &[
    ("write_protection_off", Finding("registers", "protection switched off in CR0 (WP)")),
    // Who looks from outside sees what the task has become, and not how.
    ("credentials_committed", Finding("credentials", "credentials overwritten")),
    // Whoever stands in the way of a read does not stand in this one, and is found as what he is.
    ("read_path_hook", Finding("text", "early return")),
    ("bpf_path_hook", Hook("ftrace", "")),
];

/// How a subject is told of from outside.
pub(crate) fn from_outside(name: &str, told: Told) -> Told {
    let other = FROM_OUTSIDE.iter().find(|(other, _)| *other == name);
    other.map_or(told, |(_, told)| *told)
}

/// Those that make a task powerful: the parameter `target` is its number.
const ON_A_TASK: [&str; 3] = ["credentials_written", "credentials_stolen", "credentials_committed"];

/// Starts a task of a user without rights and prints its number. busybox wants the user to have a name.
const START_TARGET: &str = "mkdir -p /etc && \
    echo 'nobody:x:65534:65534::/:/bin/sh' >>/etc/passwd && echo 'nogroup:x:65534:' >>/etc/group && \
    start-stop-daemon -S -b -m -p /run/target -c 65534:65534 -x /usr/bin/sleep -- 36000 && \
    sleep 1 && cat /run/target";

/// Starts the task that some become powerful by; gives the parameter that names it.
pub(crate) fn start_target(vm: &Vm) -> anyhow::Result<String> {
    Ok(format!("target={}", vm.run(&["sh", "-c", START_TARGET])?.text()))
}

/// Those that are programs, and not modules.
const PROGRAMS: [&str; 1] = ["bpf_hides"];

/// Those that do something to another, which is carried out before and ended after.
const BESIDE: [(&str, &str); 1] = [("bpf_program_hidden", "bpf_hides")];

fn beside(name: &str) -> Option<&'static str> {
    BESIDE.iter().find(|(one, _)| *one == name).map(|(_, other)| *other)
}

fn is_program(name: &str) -> bool {
    PROGRAMS.contains(&name)
}

/// What `bpf_hides` hides, and whether it does: a listing of the directory that it is in.
const HIDDEN: &str = "touch /run/hidden-by-bpf && ls /run | grep -c hidden-by-bpf";

/// Starts a program that attacks; gives when.
fn start(vm: &Vm, name: &str) -> anyhow::Result<Instant> {
    let began = Instant::now();
    let (number, program) = (format!("/run/{name}"), format!("/lab/{name}"));
    vm.run(&["start-stop-daemon", "-S", "-b", "-m", "-p", &number, "-x", &program])?;
    while vm.try_run(&["sh", "-c", HIDDEN])?.text().trim() != "0" {
        if let Some(why) = refused(vm)? {
            bail!("{NOT_LOADED}{why}");
        }
        ensure!(began.elapsed() < PATIENCE, "{program} hides nothing");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(began)
}

/// Ends it, and waits until nothing is left of it.
fn end(vm: &Vm, name: &str) -> anyhow::Result<()> {
    let end = format!(
        "number=$(cat /run/{name}) && kill $number && \
        while [ -e /proc/$number/exe ]; do sleep 0.1; done; {HIDDEN}"
    );
    let seen = vm.shell(&end)?;
    ensure!(seen.trim() == "1", "what {name} hid does not come back: {seen}");
    Ok(())
}

/// How a subject is carried out.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    /// The parameter that names the task which some make powerful.
    pub(crate) target: &'a str,
    /// How long after it was loaded it is carried out.
    pub(crate) delay: Duration,
    /// How long after that it takes itself back.
    pub(crate) lasts: Duration,
}

impl Subject<'_> {
    /// Loads it; gives when it is carried out.
    pub(crate) fn load(&self, vm: &Vm) -> anyhow::Result<Instant> {
        if is_program(self.name) {
            return start(vm, self.name);
        }
        if let Some(other) = beside(self.name) {
            start(vm, other)?;
        }
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

/// How an error begins where a subject could not be loaded.
pub(super) const NOT_LOADED: &str = "it was not loaded: ";

/// What the kernel said of a subject that could not be carried out; nothing if it was.
pub(crate) fn refused(vm: &Vm) -> anyhow::Result<Option<String>> {
    let said = vm.shell("dmesg | grep 'attack:' | tail -n 1")?;
    // ENOENT is a subject that does not find what it wants to change, and no refusal.
    let refused = said.contains("could not be carried out") && !said.trim_end().ends_with(": -2");
    Ok(refused.then_some(said))
}

/// Taints the kernel as the subjects do. A module without a signature taints it, which the check of
/// settings tells of by itself; so that no finding stands between two attacks, it is tainted before the
/// first look.
pub(crate) fn taint(vm: &Vm) -> anyhow::Result<()> {
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
pub(crate) fn takes_itself_back(name: &str) -> bool {
    name.starts_with("module_hidden") || name == "livepatch_abuse"
}

/// The files of all subjects, for a guest of this cell; none where they cannot be built.
pub(crate) fn bring(cell: &Cell<'_>, mut boot: Boot) -> anyhow::Result<Option<Boot>> {
    let Some(modules) = subjects(cell)? else { return Ok(None) };
    for (name, _) in ATTACKS {
        boot = match is_program(name) {
            true => boot.file(cell.programs().other(name)?, format!("/lab/{name}")),
            false => {
                let file = format!("{name}.ko");
                boot.file(modules.join(&file), format!("/lab/{file}"))
            }
        };
    }
    Ok(Some(boot))
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

/// Unloads it, when the kernel lets it go: all tasks must first have left a function that was replaced.
pub(crate) fn unload(vm: &Vm, name: &str) -> anyhow::Result<()> {
    if is_program(name) {
        return end(vm, name);
    }
    let began = Instant::now();
    // Kernel threads have an empty root of their own since 7.0 and reach no file by its path, so there
    // a livepatch is switched off for the subject.
    let enabled = format!("/sys/kernel/livepatch/{name}/enabled");
    vm.run(&["sh", "-c", &format!("if grep -qs 1 {enabled}; then echo 0 >{enabled}; fi")])?;
    loop {
        let unloaded = vm.try_run(&["rmmod", name])?;
        if unloaded.code == 0 {
            return beside(name).map_or(Ok(()), |other| end(vm, other));
        }
        ensure!(began.elapsed() < PATIENCE, "it cannot be unloaded: {}", unloaded.errors());
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Whether an event tells of a subject as it should be told of.
pub(crate) fn tells(event: &Value, name: &str, told: Told) -> bool {
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
        Hook(mechanism, words) => {
            let hook = &event["hook"];
            event["event"] == "hooked"
                && hook["mechanism"] == mechanism
                && has(&hook["handler"], words)
                && has(&hook["owner"], name)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_tells_of_an_attack_by_check_and_technique_or_by_mechanism() {
        let finding = json!({"event": "finding", "finding":
            {"check": "text", "technique": "early return"}});
        assert!(tells(&finding, "x", Finding("text", "early return")));
        assert!(!tells(&finding, "x", Finding("rodata", "early return")));
        assert!(!tells(&finding, "x", Finding("text", "call retargeted")));
        let hook = json!({"mechanism": "ftrace", "handler": "h", "owner": "module x"});
        let hooked = json!({"event": "hooked", "hook": hook});
        assert!(tells(&hooked, "x", Hook("ftrace", "")));
        assert!(!tells(&hooked, "x", Hook("kprobe", "")));
        // Whose it is and what is called are part of it.
        assert!(!tells(&hooked, "y", Hook("ftrace", "")));
        assert!(!tells(&hooked, "x", Hook("ftrace", "writes")));
        let unhooked = json!({"event": "unhooked", "hook": hook});
        assert!(!tells(&unhooked, "x", Hook("ftrace", "")));
    }
}
