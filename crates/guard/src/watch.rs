// SPDX-License-Identifier: Apache-2.0
//! What `ringfence watch` tells: what is news, and how a change reads.

use std::collections::BTreeMap;

use kernel_memory::Kernel;

use crate::announced;
use crate::check::{CheckResult, Status};
use crate::code;
use crate::finding::{Finding, Hook};
use crate::journal::{Change, Entry};
use crate::run::Report;
use crate::sites::Sites;

/// Something that was not so in the pass before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A finding that is new.
    Found(Finding),
    /// A finding that is there no more.
    Cleared(Finding),
    /// Somebody asked the kernel to be called.
    Hooked(Hook),
    /// Somebody is called no more.
    Unhooked(Hook),
    /// A check could not run any more, and why.
    Lost {
        /// Its name.
        check: &'static str,
        /// What is missing.
        reason: String,
    },
    /// A check runs again.
    Back {
        /// Its name.
        check: &'static str,
    },
}

/// What makes two findings one.
type Key = (&'static str, u64, String, Option<String>, String);

fn key(finding: &Finding) -> Key {
    let Finding { check, address, technique, symbol, expected, .. } = finding;
    (*check, *address, technique.clone(), symbol.clone(), expected.clone())
}

/// What was told already, so that each finding is told once, and once that it is gone.
#[derive(Clone, Debug, Default)]
pub struct Told {
    findings: BTreeMap<Key, Finding>,
    lost: BTreeMap<&'static str, String>,
    /// How often each hook was there, by the check that lists it; none before its first look.
    hooks: BTreeMap<&'static str, BTreeMap<Hook, usize>>,
}

/// What the inventory of BPF adds to the list of hooks: programs that no link ties to a place. Those
/// come and go with their code, which the kernel announces itself.
const OF_INVENTORY: &str = "bpf";

/// Hooks of this mechanism are listed by the check `operations`, all others by the check `hooks`; the
/// two are not due in the same passes.
const OF_OPERATIONS: &str = "operation";

/// Whether a check lists hooks of a mechanism.
type Lists = fn(&str) -> bool;

/// The checks that list hooks, and of which mechanisms.
const LISTS: [(&str, Lists); 2] = [
    ("hooks", |mechanism| ![OF_INVENTORY, OF_OPERATIONS].contains(&mechanism)),
    ("operations", |mechanism| mechanism == OF_OPERATIONS),
];

impl Told {
    /// What is news in a pass. A check that was not due says nothing about its findings.
    pub fn news(&mut self, report: &Report) -> Vec<News> {
        let mut news = Vec::new();
        for check in &report.checks {
            let reason = check.reason.clone().unwrap_or_default();
            match (check.status, self.lost.remove(check.name)) {
                (Status::Unavailable, before) => {
                    if before.as_ref() != Some(&reason) {
                        news.push(News::Lost { check: check.name, reason: reason.clone() });
                    }
                    self.lost.insert(check.name, reason);
                }
                (Status::Ok | Status::Finding, Some(_)) => {
                    news.push(News::Back { check: check.name });
                }
                (Status::Ok | Status::Finding, None) => {}
            }
        }
        for (check, lists) in LISTS {
            self.news_of_hooks(check, lists, report, &mut news);
        }
        let now: BTreeMap<Key, &Finding> =
            report.findings.iter().map(|finding| (key(finding), finding)).collect();
        let ran = |name: &str| {
            report
                .checks
                .iter()
                .any(|check| check.name == name && check.status != Status::Unavailable)
        };
        self.findings.retain(|known, finding| {
            if now.contains_key(known) || !ran(finding.check) {
                return true;
            }
            // An event is over when it was told; only a state can be cleared.
            if finding.technique != announced::TECHNIQUE {
                news.push(News::Cleared(finding.clone()));
            }
            false
        });
        for finding in &report.findings {
            if self.findings.insert(key(finding), finding.clone()).is_none() {
                news.push(News::Found(finding.clone()));
            }
        }
        news
    }

    fn news_of_hooks(
        &mut self,
        name: &'static str,
        lists: fn(&str) -> bool,
        report: &Report,
        news: &mut Vec<News>,
    ) {
        let ran = |check: &CheckResult| check.name == name && check.status != Status::Unavailable;
        if !report.checks.iter().any(ran) {
            return;
        }
        let mut now = BTreeMap::new();
        for hook in report.hooks.iter().filter(|hook| lists(hook.mechanism)) {
            *now.entry(hook.clone()).or_default() += 1;
        }
        let Some(before) = self.hooks.insert(name, now.clone()) else { return };
        for (hook, count) in &before {
            let gone = count.saturating_sub(now.get(hook).copied().unwrap_or(0));
            news.extend(std::iter::repeat_n(News::Unhooked(hook.clone()), gone));
        }
        for (hook, count) in &now {
            let came = count.saturating_sub(before.get(hook).copied().unwrap_or(0));
            news.extend(std::iter::repeat_n(News::Hooked(hook.clone()), came));
        }
    }

    /// How many findings stand.
    pub fn standing(&self) -> usize {
        self.findings.len()
    }
}

/// A change as one line: who, what, where, from what to what.
pub fn describe_journal_entry(entry: &Entry, kernel: &Kernel<'_>, sites: &Sites) -> String {
    let actor = &entry.actor;
    let who = match (actor.pid, actor.comm.as_str()) {
        (0, "" | "swapper") => "kernel".to_owned(),
        (pid, "") => format!("process {pid} (gone)"),
        (pid, comm) => format!("{comm}[{pid}]"),
    };
    format!("{who}: {}", describe_change(entry, kernel, sites))
}

/// The same without who caused it.
pub fn describe_change(entry: &Entry, kernel: &Kernel<'_>, sites: &Sites) -> String {
    let text = bounds(kernel);
    match &entry.change {
        Change::TextPoke { address, old, new } => {
            let kind = match sites.at(*address) {
                Some(site) => site.kind.name(),
                None if !(text.0..text.1).contains(address) => "code outside the text",
                None => "text outside any site",
            };
            let place = code::name(kernel.symbols, text, *address);
            let show = |bytes: &[u8]| match bytes {
                [] => "nothing".to_owned(),
                bytes if bytes.len() > 16 => format!("{} bytes", bytes.len()),
                bytes => meaning(bytes, *address, kernel, text),
            };
            format!("{kind} at {place}: {} -> {}", show(old), show(new))
        }
        Change::Symbol { address, length, registered, kind, name } => {
            // PERF_RECORD_KSYMBOL_TYPE_BPF and _OOL of include/uapi/linux/perf_event.h.
            let what = match kind {
                1 => "BPF code",
                2 => "out-of-line code",
                _ => "code",
            };
            let verb = if *registered { "came" } else { "went" };
            format!("{what} {name} {verb}, {length} bytes at {address:#x}")
        }
        Change::Module { loaded, name, .. } => {
            format!("module {name} was {}", if *loaded { "loaded" } else { "unloaded" })
        }
    }
}

fn meaning(bytes: &[u8], address: u64, kernel: &Kernel<'_>, text: (u64, u64)) -> String {
    let lines = code::disassemble(bytes, address, kernel.symbols, text);
    let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    match lines.as_slice() {
        [one] if one.starts_with("nop") => "nop".to_owned(),
        lines => lines.join("; "),
    }
}

fn bounds(kernel: &Kernel<'_>) -> (u64, u64) {
    let symbol = |name| kernel.symbols.address_of(name).unwrap_or_default();
    (symbol("_stext"), symbol("_etext"))
}
