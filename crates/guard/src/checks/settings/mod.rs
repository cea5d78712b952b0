// SPDX-License-Identifier: Apache-2.0
//! Settings: what protects the kernel by configuration, against what was sealed.
//!
//! An attacker who cannot change code turns off what would stop him, or has the kernel start a
//! program of his: `modprobe`, a handler of core dumps. The values are noted when a baseline is
//! sealed ([`collect`]); a value that is weaker since, a program path that is another, a taint that
//! was not there is a finding. What became stricter is none.

mod table;

use std::collections::BTreeMap;

use kernel_memory::Kernel;
use table::{OPEN_PLACES, Rule, SETTINGS, Setting, TAINTS, WAITING};

use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::Finding;
use crate::memory_views::{MemoryViews, lockdown_level};
use crate::recover::Recovered;
use crate::views::Views;

/// What facts about settings begin with in a baseline.
const PREFIX: &str = "setting:";

/// The settings that the kernel has, as facts for a baseline: `setting:kernel.modprobe` and so on.
pub fn collect(views: &dyn Views) -> BTreeMap<String, String> {
    let present = SETTINGS.iter().filter_map(|setting| {
        let value = value(views, setting).ok()?;
        Some((format!("{PREFIX}{}", setting.name), value))
    });
    present.collect()
}

/// See the module.
#[derive(Debug, Default)]
pub struct Settings {
    recovered: Recovered,
}

impl Check for Settings {
    fn name(&self) -> &'static str {
        "settings"
    }

    fn about(&self) -> About {
        About {
            needs: "/proc/sys; securityfs for lockdown and the list of security modules",
            reads: "sysctls, module parameters and securityfs files that protect the kernel or \
                    name programs that it starts",
            means: "protection is weaker than when the baseline was sealed, the kernel starts \
                    another program, or something tainted it",
            blind_to: "settings of programs; what was weak when the baseline was sealed",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let mut absent = Vec::new();
        let mut unsealed = Vec::new();
        for setting in SETTINGS {
            let Ok((seen, source)) = value_now(system, setting) else {
                absent.push(setting.name);
                continue;
            };
            let sealed = system.baseline.fact(&format!("{PREFIX}{}", setting.name));
            if sealed.is_none() {
                unsealed.push(setting.name);
            }
            let Some(technique) = judge(setting.rule, sealed, &seen) else { continue };
            // Read again: a setting may be changed and changed back by its owner.
            match value_now(system, setting) {
                Ok((again, _)) if again == seen => {
                    let mut found = finding(setting, sealed, seen, technique);
                    found.evidence.push(format!("read twice from {source}"));
                    outcome.findings.push(found);
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.lockdown(system, outcome);
        if absent.len() == SETTINGS.len() {
            return Err(Missing("none of the settings could be read".to_owned()));
        }
        if !absent.is_empty() {
            outcome
                .reduced
                .push(format!("not on this kernel, or not to be seen: {}", absent.join(", ")));
        }
        if !unsealed.is_empty() {
            outcome.reduced.push(format!(
                "{} settings are not in the sealed baseline and are not compared",
                unsealed.len()
            ));
        }
        Ok(())
    }
}

impl Settings {
    /// The level of lockdown is a variable: what it holds must be what the kernel tells.
    fn lockdown(&mut self, system: &System<'_>, outcome: &mut Outcome) {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == "lockdown") else {
            return;
        };
        let mut look = || {
            let told = value(system.views, setting).ok()?;
            let held = lockdown_in_memory(&system.kernel, &mut self.recovered)?;
            (told != held).then_some((told, held))
        };
        // Twice, because it may be raised between the two halves of a look.
        let Some((told, held)) = look().filter(|first| look().as_ref() == Some(first)) else {
            return;
        };
        let expected = format!("lockdown = {told}, as {} tells", setting.path);
        let mut found = finding(setting, None, held, "lockdown level misreported".to_owned());
        found.expected = expected;
        found.evidence = vec!["memory and file were compared twice".to_owned()];
        outcome.findings.push(found);
    }
}

/// The level of lockdown by its variable.
fn lockdown_in_memory(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Option<String> {
    let level = recovered.data_symbol(kernel, "kernel_locked_down").ok()?;
    Some(lockdown_level(kernel, kernel.u32_at(level.address).ok()?))
}

/// The value of a setting, without what surrounds it.
fn value(views: &dyn Views, setting: &Setting) -> Result<String, Missing> {
    let content = views.file(setting.path)?;
    Ok(match setting.rule {
        Rule::Order(_) => chosen(&content).to_owned(),
        _ => content.trim().to_owned(),
    })
}

/// The same, and where it was read. A file that waits for whoever changes the kernel would hold up a
/// pass, so what it shows is read where it takes it from; where that is not known, the file is read.
fn value_now(system: &System<'_>, setting: &Setting) -> Result<(String, String), Missing> {
    if WAITING.contains(&setting.path) {
        let views = MemoryViews::new(system.kernel);
        if let Ok(value) = value(&views, setting) {
            return Ok((value, views.source_of(setting.path)));
        }
    }
    Ok((value(system.views, setting)?, system.views.source_of(setting.path)))
}

/// Of `none [integrity] confidentiality` the one in brackets, which is in force.
fn chosen(content: &str) -> &str {
    let inner = content.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or_else(|| content.trim(), |(chosen, _)| chosen)
}

/// What was done to a setting, if it is worse than it was or bad by itself.
fn judge(rule: Rule, sealed: Option<&str>, seen: &str) -> Option<String> {
    if rule == Rule::Program
        && let Some(place) = open_place(seen)
    {
        return Some(format!("kernel starts a program from {place}"));
    }
    let sealed = sealed.filter(|sealed| *sealed != seen)?;
    let weakened = || Some("setting weakened".to_owned());
    match rule {
        Rule::Program => Some("program that the kernel starts replaced".to_owned()),
        Rule::Fixed => Some("setting changed".to_owned()),
        Rule::Larger | Rule::Smaller => {
            let worse = match (number(sealed), number(seen)) {
                (Some(sealed), Some(seen)) if rule == Rule::Larger => seen < sealed,
                (Some(sealed), Some(seen)) => seen > sealed,
                _ => true,
            };
            if worse { weakened() } else { None }
        }
        Rule::Order(order) => {
            let rank = |value: &str| order.iter().position(|known| *known == value);
            if rank(seen) >= rank(sealed) && rank(seen).is_some() { None } else { weakened() }
        }
        Rule::Permissions => {
            let bits = |value: &str| match number(value) {
                Some(1) | None => u64::MAX,
                Some(bits) => bits as u64,
            };
            if bits(seen) & !bits(sealed) == 0 { None } else { weakened() }
        }
        Rule::Taint => {
            let bits = |value: &str| number(value).map_or(0, |bits| bits as u64);
            let gained = bits(seen) & !bits(sealed);
            (gained != 0).then(|| format!("kernel tainted: {}", taints(gained)))
        }
    }
}

fn number(value: &str) -> Option<i64> {
    match value {
        "Y" | "y" => Some(1),
        "N" | "n" => Some(0),
        value => value.parse().ok(),
    }
}

fn taints(bits: u64) -> String {
    let named = (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| {
        let name = TAINTS.get(bit as usize);
        name.map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned())
    });
    named.collect::<Vec<_>>().join(", ")
}

/// The place of a program that the kernel would start, if anyone can put one there.
fn open_place(value: &str) -> Option<&str> {
    // A core pattern without `|` is the name of a file, and an empty path starts nothing.
    let program = value.strip_prefix('|').or_else(|| value.starts_with('/').then_some(value))?;
    let path = program.split_whitespace().next()?;
    if !path.starts_with('/') {
        return value.starts_with('|').then_some("a relative path");
    }
    let place = OPEN_PLACES.iter().find(|place| path.starts_with(*place))?;
    // A core pattern that is a path without `|` only says where dumps go.
    (!value.contains('%') || value.starts_with('|')).then_some(*place)
}

fn finding(setting: &Setting, sealed: Option<&str>, seen: String, technique: String) -> Finding {
    let expected = match sealed {
        Some(sealed) => format!("{} = {sealed}, as sealed in the baseline", setting.name),
        None => format!("{} names a program that only root can replace", setting.name),
    };
    Finding {
        check: "settings",
        symbol: None,
        offset: 0,
        address: 0,
        expected,
        seen: format!("{} = {seen}", setting.name),
        technique,
        owner: None,
        evidence: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worse(rule: Rule, sealed: &str, seen: &str) -> bool {
        judge(rule, Some(sealed), seen).is_some()
    }

    #[test]
    fn what_became_stricter_is_no_finding_and_what_became_weaker_is_one() {
        assert!(worse(Rule::Larger, "2", "1") && !worse(Rule::Larger, "1", "2"));
        assert!(worse(Rule::Larger, "Y", "N") && !worse(Rule::Larger, "N", "Y"));
        assert!(worse(Rule::Larger, "2", "-1"));
        assert!(worse(Rule::Smaller, "0", "2") && !worse(Rule::Smaller, "2", "0"));
        let bpf = Rule::Order(&["0", "2", "1"]);
        assert!(worse(bpf, "2", "0") && worse(bpf, "1", "2") && !worse(bpf, "0", "1"));
        assert!(worse(bpf, "2", "something"));
        assert!(worse(Rule::Permissions, "176", "1") && !worse(Rule::Permissions, "1", "0"));
        assert!(worse(Rule::Permissions, "16", "48") && !worse(Rule::Permissions, "48", "16"));
    }

    #[test]
    fn the_level_in_force_is_the_one_in_brackets() {
        assert_eq!(chosen("none [integrity] confidentiality\n"), "integrity");
        assert_eq!(chosen("2\n"), "2");
    }

    #[test]
    fn only_gained_taints_count_and_they_are_named() {
        assert_eq!(judge(Rule::Taint, Some("4096"), "0"), None);
        let found = judge(Rule::Taint, Some("512"), "12800").unwrap();
        assert_eq!(
            found,
            "kernel tainted: module from outside the kernel tree loaded, unsigned module loaded"
        );
    }

    #[test]
    fn a_program_path_must_not_change_and_never_be_in_an_open_place() {
        assert!(worse(Rule::Program, "/sbin/modprobe", "/sbin/modprobf"));
        assert!(judge(Rule::Program, None, "/tmp/x").is_some());
        assert!(judge(Rule::Program, None, "|/dev/shm/.x %p").is_some());
        assert!(judge(Rule::Program, None, "|core.sh").is_some());
        for fine in
            ["/sbin/modprobe", "core", "|/usr/lib/systemd/systemd-coredump %P", "", "/tmp/core.%p"]
        {
            assert_eq!(judge(Rule::Program, None, fine), None, "{fine}");
        }
    }

    #[test]
    fn each_setting_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = SETTINGS.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
