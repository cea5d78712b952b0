// SPDX-License-Identifier: Apache-2.0
//! When `watch` looks, what it tells, and how a change reads.

use std::slice::from_ref;

use super::synthetic::*;
use crate::check::{CheckResult, Status};
use crate::finding::{Finding, Hook};
use crate::journal::{Actor, Change, Entry};
use crate::run::Report;
use crate::watch::{News, Told, describe_journal_entry};

fn result(name: &'static str, status: Status, reason: Option<&str>) -> CheckResult {
    CheckResult { name, status, reason: reason.map(str::to_owned), elapsed_us: 1 }
}

fn finding(address: u64, technique: &str) -> Finding {
    Finding {
        check: "text",
        symbol: None,
        offset: 0,
        address,
        expected: String::new(),
        seen: String::new(),
        technique: technique.to_owned(),
        owner: None,
        evidence: Vec::new(),
    }
}

fn pass(findings: &[Finding]) -> Report {
    let status = if findings.is_empty() { Status::Ok } else { Status::Finding };
    Report {
        checks: vec![result("text", status, None)],
        findings: findings.to_vec(),
        ..Report::default()
    }
}

fn hooked(owners: &[&str], status: Status) -> Report {
    let hook = |owner: &&str| Hook {
        mechanism: "tracepoint",
        target: "sched_switch".to_owned(),
        handler: "probe".to_owned(),
        owner: (*owner).to_owned(),
    };
    Report {
        checks: vec![result("hooks", status, None)],
        hooks: owners.iter().map(hook).collect(),
        ..Report::default()
    }
}

#[test]
fn hooks_that_come_and_go_are_news_once_each_and_the_first_ones_are_not() {
    let mut told = Told::default();
    let mut news = |owners: &[&str], status| -> Vec<String> {
        let news = told.news(&hooked(owners, status));
        let name = |one: &News| match one {
            News::Hooked(hook) => format!("+{}", hook.owner),
            News::Unhooked(hook) => format!("-{}", hook.owner),
            other => format!("{other:?}"),
        };
        news.iter().map(name).collect()
    };
    assert!(news(&["a"], Status::Ok).is_empty());
    assert_eq!(news(&["a", "b", "b"], Status::Ok), ["+b", "+b"]);
    assert_eq!(news(&["b"], Status::Finding), ["-a", "-b"]);
    assert!(news(&["b"], Status::Ok).is_empty());
}

#[test]
fn a_pass_that_did_not_look_at_hooks_says_nothing_of_them() {
    let mut told = Told::default();
    told.news(&hooked(&["a"], Status::Ok));
    assert!(told.news(&pass(&[])).is_empty());
    let unavailable = told.news(&hooked(&[], Status::Unavailable));
    assert!(!unavailable.iter().any(|news| matches!(news, News::Unhooked(_))));
    let mut programs = hooked(&["a", "own"], Status::Ok);
    programs.hooks[1].mechanism = "bpf";
    told.news(&hooked(&["a"], Status::Ok));
    assert!(told.news(&programs).is_empty());
}

#[test]
fn replaced_operations_are_news_of_their_own_check_which_is_due_in_other_passes() {
    let operations = |owners: &[&str]| {
        let mut report = hooked(owners, Status::Ok);
        report.checks[0].name = "operations";
        report.hooks.iter_mut().for_each(|hook| hook.mechanism = "operation");
        report
    };
    let mut told = Told::default();
    assert!(told.news(&operations(&["a"])).is_empty());
    assert!(told.news(&hooked(&["b"], Status::Ok)).is_empty());
    assert!(told.news(&operations(&["a"])).is_empty());
    assert!(told.news(&hooked(&["b"], Status::Ok)).is_empty());
    let news = told.news(&operations(&["a", "c"]));
    assert!(matches!(news.as_slice(), [News::Hooked(hook)] if hook.owner == "c"), "{news:?}");
}

#[test]
fn a_finding_is_told_once_and_once_more_when_it_is_gone() {
    let mut told = Told::default();
    let patch = finding(1, "inline patch at function start");
    assert_eq!(told.news(&pass(from_ref(&patch))), [News::Found(patch.clone())]);
    assert_eq!(told.news(&pass(from_ref(&patch))), []);
    assert_eq!(told.standing(), 1);
    assert_eq!(told.news(&pass(&[])), [News::Cleared(patch.clone())]);
    assert_eq!(told.news(&pass(from_ref(&patch))), [News::Found(patch)]);
}

#[test]
fn a_check_that_was_not_due_clears_nothing() {
    let mut told = Told::default();
    let patch = finding(1, "early return");
    told.news(&pass(from_ref(&patch)));
    let other = Report { checks: vec![result("rodata", Status::Ok, None)], ..Report::default() };
    assert_eq!(told.news(&other), []);
    assert_eq!(told.standing(), 1);
}

#[test]
fn an_event_is_never_told_as_cleared() {
    let mut told = Told::default();
    let event = finding(1, "change not announced by the kernel");
    assert_eq!(told.news(&pass(from_ref(&event))), [News::Found(event.clone())]);
    assert_eq!(told.news(&pass(&[])), []);
    assert_eq!(told.news(&pass(from_ref(&event))), [News::Found(event)]);
}

#[test]
fn a_check_that_stops_working_is_news_and_so_is_its_return() {
    let mut told = Told::default();
    let lost = |reason| Report {
        checks: vec![result("text", Status::Unavailable, Some(reason))],
        ..Report::default()
    };
    let patch = finding(1, "early return");
    told.news(&pass(from_ref(&patch)));
    let news = News::Lost { check: "text", reason: "BPF is refused".to_owned() };
    assert_eq!(told.news(&lost("BPF is refused")), [news]);
    assert_eq!(told.news(&lost("BPF is refused")), []);
    assert_eq!(told.news(&pass(&[patch])), [News::Back { check: "text" }]);
}

#[test]
fn a_change_reads_as_who_did_what_where() {
    let synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    let kernel = synthetic.kernel();
    let sites = baseline.sites(&kernel);
    let tell = |actor, change| {
        describe_journal_entry(&Entry { time_ns: 0, actor, change }, &kernel, sites)
    };
    let actor = Actor { pid: 42, tid: 43, comm: "bpftool".to_owned() };
    let poke = Change::TextPoke {
        address: LONG_LABEL,
        old: vec![0x0f, 0x1f, 0x44, 0, 0],
        new: to(&[0xe9], LONG_LABEL, LONG_TARGET),
    };
    assert_eq!(
        tell(actor, poke),
        "bpftool[42]: jump label at do_work+0x7: nop -> jmp do_work+0x400"
    );
    let symbol = Change::Symbol {
        address: NOWHERE,
        length: 64,
        registered: true,
        kind: 1,
        name: "bpf_prog_1234_watch".to_owned(),
    };
    assert_eq!(
        tell(Actor::default(), symbol),
        "kernel: BPF code bpf_prog_1234_watch came, 64 bytes at 0xffffffffc0001000"
    );
    let raw = Change::TextPoke { address: QUIET, old: vec![0x55], new: Vec::new() };
    let gone = Actor { pid: 7, tid: 7, comm: String::new() };
    assert_eq!(
        tell(gone, raw),
        "process 7 (gone): text outside any site at quiet: push rbp -> nothing"
    );
}
