// SPDX-License-Identifier: Apache-2.0
//! The report as people read it: what was looked at, what came out, and each finding with all of
//! its evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use guard::baseline::BaselineKind;
use guard::{CheckResult, Finding, Hook, ModulesSummary, Status, TextSummary};

use crate::report::CheckReport;
use crate::screen::{Style, Tone, grouped, wrap};

/// Hooks of one owner are listed one by one up to this many, and counted beyond.
const HOOKS_SHOWN: usize = 4;

/// Width of the column of headings.
const MARGIN: usize = 10;

/// The whole report.
pub(crate) fn render(report: &CheckReport, style: Style) -> String {
    let mut text = String::new();
    head(&mut text, report, style);
    if let Some(summary) = &report.pass.text {
        text.push('\n');
        accounting(&mut text, summary, style);
    }
    if let Some(summary) = &report.pass.module_text {
        modules(&mut text, summary, style);
    }
    text.push('\n');
    checks(&mut text, &report.pass.checks, style);
    if !report.pass.hooks.is_empty() {
        text.push('\n');
        hooks(&mut text, &report.pass.hooks, style);
    }
    for (index, finding) in report.pass.findings.iter().enumerate() {
        text.push('\n');
        text.push_str(&self::finding(finding, Some(index + 1), style));
    }
    text.push('\n');
    text.push_str(&conclusion(report, style));
    text
}

/// A line with a heading in the margin, wrapped beside it.
fn beside(text: &mut String, heading: &str, content: &str, style: Style) {
    let lines = wrap(content, style.width().saturating_sub(MARGIN));
    for (index, line) in lines.iter().enumerate() {
        let margin = format!("{:<MARGIN$}", if index == 0 { heading } else { "" });
        text.push_str(&style.paint(Tone::Heading, &margin));
        text.push_str(line);
        text.push('\n');
    }
}

fn head(text: &mut String, report: &CheckReport, style: Style) {
    let kernel = &report.kernel;
    beside(text, "Kernel", &format!("{}, build {}", kernel.release, kernel.build_id), style);
    beside(text, "", &format!("boot {}", kernel.boot_id), style);
    let kind = match report.baseline.kind {
        BaselineKind::Image => "the kernel's own image",
        BaselineKind::FirstCheck => "state at first check",
    };
    beside(text, "Baseline", &format!("{kind}: {}", report.baseline.words), style);
    beside(text, "Read by", &report.subject.reader, style);
    if let Some(slide) = report.subject.slide {
        beside(text, "", &format!("moved up by {slide:#x} from where it was linked to"), style);
    }
    for notice in &report.notices {
        beside(text, "Note", notice, style);
    }
}

fn accounting(text: &mut String, summary: &TextSummary, style: Style) {
    let share = summary.mutable as f64 * 100.0 / (summary.bytes.max(1)) as f64;
    let width = grouped(summary.bytes).len();
    let number = |value: u64| format!("{:>width$}", grouped(value));
    beside(text, "Text", &format!("{} bytes, each accounted for:", grouped(summary.bytes)), style);
    let pinned = format!("{}  pinned: equal to the baseline at all times", number(summary.pinned));
    beside(text, "", &pinned, style);
    let mutable = format!(
        "{}  mutable: {share:.2} %, in places that the kernel itself patches",
        number(summary.mutable)
    );
    beside(text, "", &mutable, style);
    let changes = format!("{}  changes explained", number(summary.explained_changes));
    beside(text, "", &changes, style);
    let line = format!("{}  changes unexplained", number(summary.unexplained));
    let tone = if summary.unexplained == 0 { Tone::Good } else { Tone::Bad };
    beside(text, "", &style.paint(tone, &line), style);
}

fn modules(text: &mut String, summary: &ModulesSummary, style: Style) {
    let ModulesSummary { compared, not_compared, text: bytes } = summary;
    let line = format!(
        "{compared} compared with their files, {} bytes; {} changes explained",
        grouped(bytes.bytes),
        grouped(bytes.explained_changes)
    );
    beside(text, "Modules", &line, style);
    let tone = if bytes.unexplained == 0 { Tone::Good } else { Tone::Bad };
    let line = format!("{} changes unexplained", grouped(bytes.unexplained));
    beside(text, "", &style.paint(tone, &line), style);
    if *not_compared > 0 {
        let line = format!("{not_compared} not compared; the check module_text says why");
        beside(text, "", &style.paint(Tone::Unknown, &line), style);
    }
}

fn checks(text: &mut String, checks: &[CheckResult], style: Style) {
    let name_width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for (index, check) in checks.iter().enumerate() {
        let (tone, word) = match check.status {
            Status::Ok => (Tone::Good, "ok"),
            Status::Finding => (Tone::Bad, "finding"),
            Status::Unavailable => (Tone::Unknown, "unavailable"),
        };
        let heading = if index == 0 { "Checks" } else { "" };
        text.push_str(&style.paint(Tone::Heading, &format!("{heading:<MARGIN$}")));
        text.push_str(&style.paint(tone, &format!("{word:<11}")));
        let took = duration(Duration::from_micros(check.elapsed_us));
        text.push_str(&format!("  {:<name_width$}", check.name));
        text.push_str(&style.paint(Tone::Faint, &format!("  {took:>9}")));
        text.push('\n');
        let margin = MARGIN + 15;
        let reason = check.reason.as_deref().unwrap_or_default();
        // What a check could not see comes as one sentence each.
        for sentence in reason.split("; ") {
            for line in wrap(sentence, style.width().saturating_sub(margin)) {
                text.push_str(&" ".repeat(margin));
                text.push_str(&style.paint(Tone::Faint, &line));
                text.push('\n');
            }
        }
    }
}

/// Hooks by mechanism and owner. A tracer with a hundred programs, each on a link of its own, is
/// one owner.
fn hooks(text: &mut String, hooks: &[Hook], style: Style) {
    let mut by_owner: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for hook in hooks {
        let place = format!("{} → {}", hook.target, hook.handler);
        by_owner.entry((hook.mechanism, without_link(&hook.owner))).or_default().push(place);
    }
    for (index, ((mechanism, owner), places)) in by_owner.iter_mut().enumerate() {
        places.sort_unstable();
        places.dedup();
        let count = match places.len() {
            1 => String::new(),
            count => format!("{count} places, "),
        };
        let heading = if index == 0 { "Hooks" } else { "" };
        beside(text, heading, &format!("{mechanism}: {count}{owner}"), style);
        let mut shown: Vec<String> = places.iter().take(HOOKS_SHOWN).cloned().collect();
        if let Some(more) = places.len().checked_sub(HOOKS_SHOWN).filter(|more| *more > 0) {
            shown.push(format!("and {more} more; --json has all of them"));
        }
        for place in shown {
            for line in wrap(&format!("  {place}"), style.width().saturating_sub(MARGIN)) {
                beside(text, "", &line, style);
            }
        }
    }
}

/// An owner without the number of the link that it begins with, if it does: `link 65, loaded by…`.
fn without_link(owner: &str) -> &str {
    let rest = owner.strip_prefix("link ").and_then(|rest| rest.split_once(", "));
    match rest {
        Some((number, owner)) if number.bytes().all(|digit| digit.is_ascii_digit()) => owner,
        _ => owner,
    }
}

/// One finding with everything that is known of it.
pub(crate) fn finding(finding: &Finding, number: Option<usize>, style: Style) -> String {
    let mut text = String::new();
    let number = number.map_or(String::new(), |number| format!(" {number}"));
    let title = format!("Finding{number}: {}", title(finding));
    for line in wrap(&title, style.width()) {
        text.push_str(&style.paint(Tone::Bad, &line));
        text.push('\n');
    }
    let mut part = |heading: &str, content: &str| {
        let lines = wrap(content, style.width().saturating_sub(14));
        for (index, line) in lines.iter().enumerate() {
            let heading = if index == 0 { heading } else { "" };
            text.push_str("    ");
            text.push_str(&style.paint(Tone::Faint, &format!("{heading:<10}")));
            text.push_str(line);
            text.push('\n');
        }
    };
    part("check", finding.check);
    part("expected", &finding.expected);
    part("seen", &finding.seen);
    part("owner", finding.owner.as_deref().unwrap_or("not known"));
    for (index, line) in finding.evidence.iter().enumerate() {
        part(if index == 0 { "evidence" } else { "" }, line);
    }
    text
}

/// What was done and where, in one line.
pub(crate) fn title(finding: &Finding) -> String {
    match place(finding) {
        Some(place) => format!("{} at {place}", finding.technique),
        None => finding.technique.clone(),
    }
}

fn place(finding: &Finding) -> Option<String> {
    let symbol = finding.symbol.as_ref().map(|symbol| match finding.offset {
        0 => symbol.clone(),
        offset => format!("{symbol}+{offset:#x}"),
    });
    match (symbol, finding.address) {
        (None, 0) => None,
        (Some(symbol), 0) => Some(symbol),
        (None, address) => Some(format!("{address:#x}")),
        (Some(symbol), address) => Some(format!("{symbol} ({address:#x})")),
    }
}

fn conclusion(report: &CheckReport, style: Style) -> String {
    let count = |status| report.pass.checks.iter().filter(|check| check.status == status).count();
    let (ok, unavailable) = (count(Status::Ok), count(Status::Unavailable));
    let mut words = vec![format!("{ok} of {} checks ok", report.pass.checks.len())];
    if unavailable > 0 {
        words.push(format!("{unavailable} unavailable"));
    }
    let took =
        format!("{} ({} with opening)", duration(report.pass.elapsed), duration(report.elapsed));
    let (tone, verdict) = match report.pass.findings.len() {
        _ if !report.could_check() => (Tone::Unknown, "Could not check.".to_owned()),
        0 => (Tone::Good, "No findings.".to_owned()),
        1 => (Tone::Bad, "1 finding.".to_owned()),
        many => (Tone::Bad, format!("{many} findings.")),
    };
    format!("{} {}, in {took}.\n", style.paint(tone, &verdict), words.join(", "))
}

/// A duration with three digits or so: `412 µs`, `23.5 ms`, `1.41 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let microseconds = duration.as_secs_f64() * 1e6;
    match microseconds {
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 9_995.0 => format!("{:.2} ms", us / 1e3),
        us if us < 999_500.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::with_everything;

    #[test]
    fn a_report_shows_everything_that_it_holds() {
        let text = render(&with_everything(), Style::plain());
        for part in [
            "6.12.0-test",
            "00112233445566778899aabbccddeeff00112233",
            "state at first check",
            "guest RAM",
            "moved up by 0x1a000000",
            "took a new baseline",
            "18,911,432 bytes",
            "1.72 %",
            "unavailable  kprobes",
            "this kernel has no kprobes",
            "ok           tasks",
            "the cgroup view is not mounted",
            "tracepoint: 2 places, program 7 `watcher`",
            "sched_wakeup → __bpf_trace_run",
            "Finding 1: inline patch at __x64_sys_getdents64+0x5 (0xffffffff81234565)",
            "nop dword ptr [rax+rax]",
            "jmp 0xffffffff81235565\n              90  nop",
            "read 3 times, the same each time",
            "no journal entry",
            "Finding 2: hidden BPF program\n",
            "2 findings. 2 of 4 checks ok, 1 unavailable, in 23.5 ms (412.3 ms with opening).",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_page() {
        let mut report = with_everything();
        report.pass.checks[3].reason = Some("a reason with many words ".repeat(20));
        report.pass.findings[0].evidence.push("evidence with many words ".repeat(20));
        let text = render(&report, Style::plain());
        for line in text.lines() {
            assert!(line.chars().count() <= Style::plain().width(), "{line}");
        }
    }

    #[test]
    fn many_hooks_of_one_owner_are_counted() {
        let hook = with_everything().pass.hooks[0].clone();
        let many: Vec<_> = (0..500)
            .map(|n| Hook {
                target: format!("function_{n:03}"),
                owner: format!("link {n}, loaded by user 0"),
                ..hook.clone()
            })
            .collect();
        let mut text = String::new();
        hooks(&mut text, &many, Style::plain());
        assert!(text.contains("tracepoint: 500 places, loaded by user 0"), "{text}");
        assert!(text.contains("function_003 →") && text.contains("and 496 more"), "{text}");
        assert!(text.lines().count() < 8);
    }

    #[test]
    fn durations_have_a_unit_that_suits_them() {
        let text = |us| duration(Duration::from_micros(us));
        assert_eq!(
            [text(12), text(1_234), text(23_456), text(2_500_000)],
            ["12 µs", "1.23 ms", "23.5 ms", "2.50 s"]
        );
    }
}
