// SPDX-License-Identifier: Apache-2.0
//! What a guest says of itself: mitigations, features, processors, KASLR. An option had an effect if
//! that differs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;

use crate::vm::Vm;

/// Prints it. Starting a program takes an emulated processor long, so there are few of them.
///
/// The byte at 0x211 of the boot parameters is `loadflags`, whose bit 1 the decompressor sets when
/// KASLR is on (arch/x86/boot/compressed/kaslr.c, Documentation/arch/x86/boot.rst, 6.12).
const PRINT: &str = "cd /sys/devices/system/cpu
grep -s . vulnerabilities/* online smt/control
grep -m 1 ^flags /proc/cpuinfo
echo loadflags: $(od -A n -t u1 -j 529 -N 1 /sys/kernel/boot_params/data)";

/// Mitigations that decide which form code has; the others are switched by jump labels.
const OF_CODE: [&str; 4] =
    ["spectre_v2", "retbleed", "spec_rstack_overflow", "indirect_target_selection"];

/// What is said of each thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(BTreeMap<String, String>);

impl Facts {
    /// Asks a guest.
    pub(super) fn of(vm: &Vm) -> anyhow::Result<Self> {
        let facts = Self::parse(&vm.shell(PRINT)?);
        for name in ["spectre_v2", "online", "KASLR", "flag fpu"] {
            ensure!(facts.0.contains_key(name), "the guest does not say {name}: {:?}", facts.0);
        }
        Ok(facts)
    }

    fn parse(lines: &str) -> Self {
        let mut facts = BTreeMap::new();
        for (what, value) in lines.lines().filter_map(|line| line.split_once(':')) {
            let (what, value) = (what.trim_end(), value.trim());
            match what {
                "flags" => {
                    let flags = value.split(' ').map(|flag| format!("flag {flag}"));
                    facts.extend(flags.map(|flag| (flag, "set".to_owned())));
                }
                "loadflags" => {
                    let kaslr = value.parse::<u8>().map(|flags| (flags >> 1 & 1).to_string());
                    facts.extend(kaslr.ok().map(|on| ("KASLR".to_owned(), on)));
                }
                _ => {
                    let name = what.strip_prefix("vulnerabilities/").unwrap_or(what);
                    facts.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        Self(facts)
    }

    /// What is other than by default, in words.
    pub(super) fn other_than(&self, default: &Self) -> Vec<String> {
        let names: BTreeSet<_> = default.0.keys().chain(self.0.keys()).collect();
        let other = names.into_iter().filter(|name| default.0.get(*name) != self.0.get(*name));
        let words = |name: &String| match (self.0.get(name), default.0.get(name)) {
            (None, _) => format!("no {name}"),
            (Some(value), None) if value == "set" => name.clone(),
            (Some(value), Some(default)) if first(value) == first(default) => {
                format!("{name}: {value}")
            }
            (Some(value), _) => format!("{name}: {}", first(value)),
        };
        other.map(words).collect()
    }

    /// What is active of what decides which form code has.
    pub(super) fn mitigations(&self) -> String {
        let active = OF_CODE.iter().filter_map(|name| Some((name, self.0.get(*name)?)));
        let active = active.filter(|(_, value)| *value != "Not affected");
        let words = active.map(|(name, value)| format!("{name}: {}", first(value)));
        words.collect::<Vec<_>>().join("; ")
    }
}

/// The first part of what the kernel says of a mitigation; the others are of side issues.
fn first(value: &str) -> &str {
    value.split(';').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_changed_nothing_is_told_from_one_that_did() {
        let lines = |retbleed: &str, flags: &str| {
            Facts::parse(&format!(
                "vulnerabilities/retbleed:{retbleed}\nonline:0-1\nflags\t\t: {flags}\nloadflags: 3\n"
            ))
        };
        let plain = lines("Vulnerable", "fpu ibt");
        assert!(plain.other_than(&plain).is_empty());
        assert_eq!(plain.0["KASLR"], "1");
        let other = lines("Mitigation: Stuffing", "fpu x");
        let words = ["no flag ibt", "flag x", "retbleed: Mitigation: Stuffing"];
        assert_eq!(other.other_than(&plain), words);
        let fixed = Facts::parse("loadflags: 1\n");
        assert_eq!(fixed.other_than(&Facts::parse("loadflags: 3\n")), ["KASLR: 0"]);
    }

    #[test]
    fn of_mitigations_those_are_told_that_decide_which_form_code_has() {
        let facts = Facts::parse(
            "vulnerabilities/spectre_v2:Mitigation: Retpolines; STIBP: disabled\n\
             vulnerabilities/retbleed:Not affected\nvulnerabilities/mds:Vulnerable\n\
             vulnerabilities/spec_rstack_overflow:Mitigation: Safe RET\n",
        );
        let words =
            "spectre_v2: Mitigation: Retpolines; spec_rstack_overflow: Mitigation: Safe RET";
        assert_eq!(facts.mitigations(), words);
    }
}
