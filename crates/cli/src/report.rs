// SPDX-License-Identifier: Apache-2.0
//! What `check` reports, and its JSON form. The schema is docs/check-report.schema.json.

use std::time::Duration;

use guard::baseline::{BaselineKind, Identity};
use guard::{CheckResult, Finding, Hook, ModulesSummary, Report, Status, TextSummary};
use serde::{Serialize, Serializer};

/// The baseline in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaselineUsed {
    /// Which of the two it was.
    pub(crate) kind: BaselineKind,
    /// Where it came from, for people: a path, when it was taken.
    pub(crate) words: String,
}

/// What kind of thing was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SubjectKind {
    /// The kernel that runs here.
    Running,
    /// The memory of a guest that runs.
    GuestRam,
    /// A dump.
    Core,
}

/// What was looked at, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Subject {
    /// What kind of thing it was.
    pub(crate) kind: SubjectKind,
    /// How memory was read, for people.
    pub(crate) reader: String,
    /// How far the kernel was moved from where it was linked to; none where nobody asked.
    #[serde(serialize_with = "hexadecimal")]
    pub(crate) slide: Option<u64>,
}

fn hexadecimal<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(&format_args!("{value:#x}")),
        None => serializer.serialize_none(),
    }
}

/// All that a check reports.
#[derive(Clone, Debug)]
pub(crate) struct CheckReport {
    /// Which kernel was looked at.
    pub(crate) kernel: Identity,
    /// What memory was compared with.
    pub(crate) baseline: BaselineUsed,
    /// What was looked at, and how.
    pub(crate) subject: Subject,
    /// What the caller should know of how this check was made, one line each: a new baseline, a
    /// reader that fell back.
    pub(crate) notices: Vec<String>,
    /// What the guard found.
    pub(crate) pass: Report,
    /// From the start of the command to the verdict.
    pub(crate) elapsed: Duration,
}

/// The JSON form, field by field in the order in which it is written.
#[derive(Serialize)]
struct Json<'a> {
    kernel: &'a Identity,
    subject: &'a Subject,
    baseline: BaselineKind,
    text: Option<TextSummary>,
    module_text: Option<ModulesSummary>,
    checks: &'a [CheckResult],
    findings: &'a [Finding],
    hooks: &'a [Hook],
    notices: &'a [String],
    #[serde(serialize_with = "milliseconds")]
    elapsed_ms: Duration,
}

impl CheckReport {
    /// The report as one JSON object over several lines.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        let mut text = serde_json::to_string_pretty(&Json {
            kernel: &self.kernel,
            subject: &self.subject,
            baseline: self.baseline.kind,
            text: self.pass.text,
            module_text: self.pass.module_text,
            checks: &self.pass.checks,
            findings: &self.pass.findings,
            hooks: &self.pass.hooks,
            notices: &self.notices,
            elapsed_ms: self.elapsed,
        })?;
        text.push('\n');
        Ok(text)
    }

    /// Whether at least one check could run: otherwise nothing can be said about the kernel.
    pub(crate) fn could_check(&self) -> bool {
        self.pass.checks.iter().any(|check| check.status != Status::Unavailable)
    }
}

/// Serialises a duration as milliseconds with three decimals.
pub(crate) fn milliseconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::schema;

    /// A report in which every field of the JSON form holds something.
    pub(crate) fn with_everything() -> CheckReport {
        let result = |name, status, reason: Option<&str>| CheckResult {
            name,
            status,
            reason: reason.map(String::from),
            elapsed_us: 1234,
        };
        let finding = Finding {
            check: "text",
            symbol: Some("__x64_sys_getdents64".into()),
            offset: 5,
            address: 0xffff_ffff_8123_4565,
            expected: "0f 1f 44 00 00  nop dword ptr [rax+rax]".into(),
            seen: "e9 fb 0f 00 00  jmp 0xffffffff81235565\n90  nop".into(),
            technique: "inline patch".into(),
            owner: None,
            evidence: vec!["read 3 times, the same each time".into(), "no journal entry".into()],
        };
        let hidden = Finding {
            check: "bpf",
            symbol: None,
            offset: 0,
            address: 0,
            expected: "listed by the bpf system call".into(),
            seen: "program 12 only in the kernel's own table".into(),
            technique: "hidden BPF program".into(),
            owner: Some("program 12 `hide`".into()),
            evidence: vec![],
        };
        let hook = |target: &str, owner: &str| Hook {
            mechanism: "tracepoint",
            target: target.into(),
            handler: "__bpf_trace_run".into(),
            owner: owner.into(),
        };
        CheckReport {
            kernel: Identity {
                release: "6.12.0-test".into(),
                build_id: "00112233445566778899aabbccddeeff00112233".into(),
                boot_id: "89a118be-a800-49d4-a2e1-299f435a5137".into(),
            },
            baseline: BaselineUsed {
                kind: BaselineKind::FirstCheck,
                words: "the state at first check".into(),
            },
            subject: Subject {
                kind: SubjectKind::GuestRam,
                reader: "guest RAM".into(),
                slide: Some(0x1a00_0000),
            },
            notices: vec!["took a new baseline".into()],
            pass: Report {
                text: Some(TextSummary {
                    bytes: 18_911_432,
                    pinned: 18_586_432,
                    mutable: 325_000,
                    explained_changes: 12,
                    unexplained: 1,
                }),
                module_text: Some(ModulesSummary {
                    compared: 61,
                    not_compared: 1,
                    text: TextSummary {
                        bytes: 4_211_300,
                        pinned: 4_151_300,
                        mutable: 60_000,
                        explained_changes: 2,
                        unexplained: 0,
                    },
                }),
                checks: vec![
                    result("text", Status::Finding, None),
                    result("rodata", Status::Ok, None),
                    result("tasks", Status::Ok, Some("the cgroup view is not mounted")),
                    result("kprobes", Status::Unavailable, Some("this kernel has no kprobes")),
                ],
                findings: vec![finding, hidden],
                hooks: vec![
                    hook("sched_switch", "program 7 `watcher` of watcherd (pid 71)"),
                    hook("sched_wakeup", "program 7 `watcher` of watcherd (pid 71)"),
                    hook("sys_enter", "perf event of perf (pid 90)"),
                ],
                elapsed: Duration::from_micros(23_456),
            },
            elapsed: Duration::from_micros(412_345),
        }
    }

    #[test]
    fn a_report_without_any_check_that_ran_says_nothing_about_the_kernel() {
        let mut report = with_everything();
        assert!(report.could_check());
        report.pass.checks.retain(|check| check.status == Status::Unavailable);
        assert!(!report.could_check());
    }

    #[test]
    fn the_json_form_has_the_published_fields_in_their_order() {
        let text = with_everything().to_json().unwrap();
        let fields = [
            "kernel",
            "subject",
            "baseline",
            "text",
            "module_text",
            "checks",
            "findings",
            "hooks",
            "notices",
            "elapsed_ms",
        ];
        let places: Vec<_> =
            fields.iter().map(|field| text.find(&format!("\n  \"{field}\":")).unwrap()).collect();
        assert!(places.is_sorted());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_object().unwrap().len(), fields.len());
        assert_eq!(value["baseline"], "first-check");
        assert_eq!(value["elapsed_ms"], 412.345);
        assert_eq!(value["subject"]["kind"], "guest-ram");
        assert_eq!(value["subject"]["slide"], "0x1a000000");
        assert_eq!(value["findings"][0]["address"], "0xffffffff81234565");
        assert_eq!(value["checks"][3]["status"], "unavailable");
    }

    #[test]
    fn the_lines_that_ringfenced_is_tested_with_are_those_of_a_watch() {
        for line in include_str!("../../daemon/tests/guard-lines.jsonl").lines() {
            let line = serde_json::from_str(line).unwrap();
            schema::assert_follows(&schema::watch_event(), &line);
        }
    }

    #[test]
    fn the_schema_is_a_valid_schema() {
        jsonschema::draft202012::meta::validate(&schema::document()).unwrap();
    }

    #[test]
    fn a_report_with_everything_follows_the_schema() {
        let text = with_everything().to_json().unwrap();
        schema::assert_follows(&schema::report(), &serde_json::from_str(&text).unwrap());
    }

    #[test]
    fn a_report_of_one_check_without_text_follows_the_schema() {
        let mut with_less = with_everything();
        with_less.subject.kind = SubjectKind::Running;
        with_less.subject.slide = None;
        with_less.pass.text = None;
        with_less.pass.module_text = None;
        with_less.pass.checks.truncate(1);
        with_less.pass.findings.clear();
        let text = with_less.to_json().unwrap();
        schema::assert_follows(&schema::report(), &serde_json::from_str(&text).unwrap());
    }

    #[test]
    fn the_schema_refuses_what_is_not_published() {
        let text = with_everything().to_json().unwrap();
        let good: Value = serde_json::from_str(&text).unwrap();
        let published = schema::report();
        let mut refused = 0;
        for (pointer, value) in [
            ("/baseline", json!("none")),
            ("/kernel/boot_id", json!("yesterday")),
            ("/subject/kind", json!("photograph")),
            ("/subject/slide", json!(12)),
            ("/checks/0/status", json!("fine")),
            ("/checks/3/reason", json!(null)),
            ("/findings/0/address", json!(5)),
            ("/text/bytes", json!(-1)),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert!(!published.is_valid(&bad), "{pointer}");
            refused += 1;
        }
        let mut more = good.clone();
        more["surprise"] = json!(1);
        assert!(!published.is_valid(&more));
        assert_eq!(refused, 8);
    }
}
