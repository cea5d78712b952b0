// SPDX-License-Identifier: Apache-2.0
use super::standing::REMEMBERED;
use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Time {
    Time(seconds * SECOND)
}

/// One whose process is the test.
fn guard() -> Guard {
    Guard { phase: Phase::Starting, ..Guard::off() }
}

fn line(text: &str) -> Said {
    Said::Line(text.as_bytes().to_vec())
}

fn pass(number: u64) -> Said {
    line(&format!(
        r#"{{"event":"pass","number":{number},"findings":0,"checks":[{{"name":"text","status":"ok"}}]}}"#
    ))
}

fn finding(event: &str, symbol: &str, technique: &str) -> Said {
    line(&format!(
        r#"{{"event":"{event}","finding":{{"check":"text","symbol":"{symbol}","offset":0,
            "address":"0xff","expected":"90","seen":"cc","technique":"{technique}"}}}}"#
    ))
}

fn told(told: &[Told]) -> Vec<(State, &str)> {
    told.iter().map(|told| (told.state, &*told.technique)).collect()
}

fn start(guard: &mut Guard) {
    assert!(guard.hear(line(r#"{"event":"start"}"#), at(1)).is_empty());
}

#[test]
fn a_guard_that_is_not_wanted_says_why_there_are_no_findings() {
    let guard = Guard::off();
    assert_eq!(guard.phase(), Phase::Off);
    assert_eq!(guard.next_deadline(), Time::NEVER);
    assert!(guard.as_fd().is_none() && guard.problem(at(9)).is_none());
    let Availability::Unavailable { reason } = guard.availability() else { panic!("available") };
    assert!(reason.contains("--no-guard"), "{reason}");
}

#[test]
fn findings_are_there_in_full_after_the_first_pass() {
    let mut guard = guard();
    start(&mut guard);
    assert!(matches!(guard.availability(), Availability::Reduced { .. }));
    assert!(guard.hear(pass(1), at(3)).is_empty());
    assert!(matches!(guard.availability(), Availability::Available { .. }));
    assert_eq!((guard.health().passes, guard.health().last_pass), (1, Some(at(3))));
    guard.hear(
        line(
            r#"{"event":"pass","number":2,"checks":[
                {"name":"idt","status":"unavailable","reason":"no symbol"}]}"#,
        ),
        at(4),
    );
    // A check that was not due says nothing.
    guard.hear(pass(3), at(5));
    let Availability::Reduced { reason, .. } = guard.availability() else { panic!("in full") };
    assert!(reason.ends_with("idt: no symbol"), "{reason}");
    guard.hear(
        line(r#"{"event":"pass","number":4,"checks":[{"name":"idt","status":"ok"}]}"#),
        at(6),
    );
    assert!(matches!(guard.availability(), Availability::Available { .. }));
}

#[test]
fn a_finding_is_told_as_new_and_as_gone_and_stands_between() {
    let mut guard = guard();
    let new = guard.hear(finding("finding", "f", "early return"), at(5));
    assert_eq!(told(&new), [(State::New, "early return")]);
    assert_eq!(new[0].stands.found, at(5));
    assert!(new[0].stands.json.contains("\"symbol\":\"f\""));
    assert!(guard.hear(finding("finding", "f", "early return"), at(6)).is_empty());
    let standing: Vec<_> = guard.standing().iter().collect();
    assert_eq!(told(&standing), [(State::Standing, "early return")]);
    let gone = guard.hear(finding("cleared", "f", "early return"), at(7));
    assert_eq!(told(&gone), [(State::Gone, "early return")]);
    assert_eq!(gone[0].stands.found, at(5));
    assert!(guard.hear(finding("cleared", "f", "early return"), at(8)).is_empty());
    assert!(guard.standing().is_empty());
    assert_eq!(guard.health().found, 1);
}

#[test]
fn an_event_is_told_and_does_not_stand() {
    let mut guard = guard();
    let technique = "change not announced by the kernel";
    assert_eq!(guard.hear(finding("finding", "f", technique), at(5)).len(), 1);
    assert!(guard.standing().is_empty());
    // That is what the guard itself calls it.
    let source = include_str!("../../../guard/src/announced.rs");
    assert!(source.contains(&format!("TECHNIQUE: &str = \"{technique}\"")));
}

#[test]
fn after_it_was_started_again_only_what_is_news_is_told() {
    let mut guard = guard();
    guard.hear(finding("finding", "stays", "early return"), at(5));
    guard.hear(finding("finding", "goes", "call retargeted"), at(5));
    guard.hear(Said::Ended("signal: 9".into()), at(6));
    // As `launch` does.
    guard.standing.begin();
    start(&mut guard);
    assert!(guard.hear(finding("finding", "stays", "early return"), at(8)).is_empty());
    let new = guard.hear(finding("finding", "comes", "early return"), at(8));
    assert_eq!(told(&new), [(State::New, "early return")]);
    assert!(guard.hear(pass(1), at(9)).is_empty());
    let gone = guard.hear(pass(2), at(10));
    assert_eq!(told(&gone), [(State::Gone, "call retargeted")]);
    assert!(guard.hear(pass(3), at(11)).is_empty());
    assert_eq!(guard.standing().len(), 2);
}

#[test]
fn more_findings_than_are_remembered_are_told_of_still() {
    let mut guard = guard();
    for number in 0..REMEMBERED + 10 {
        let name = format!("f{number}");
        assert_eq!(guard.hear(finding("finding", &name, "early return"), at(5)).len(), 1);
    }
    assert_eq!(guard.standing().len(), REMEMBERED);
    assert_eq!(guard.health().found, REMEMBERED as u64 + 10);
}

#[test]
fn lines_that_cannot_be_read_are_counted_and_shown() {
    let mut guard = guard();
    for said in [line("Segmentation fault"), line("{\"event\":\"pass\"}"), Said::TooLong] {
        assert!(guard.hear(said, at(2)).is_empty());
    }
    guard.hear(pass(1), at(3));
    assert_eq!(guard.health().bad_lines, 3);
    let problem = guard.problem(at(4)).unwrap();
    assert!(problem.starts_with("3 lines of the guard could not be read"), "{problem}");
}

#[test]
fn it_is_started_again_after_a_pause_that_grows_until_it_has_run_for_long() {
    let mut guard = guard();
    let mut now = 100;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        guard.health.since = Some(at(now));
        guard.hear(Said::Words("ringfence: not permitted".into()), at(now));
        guard.hear(Said::Ended("exit status: 2".into()), at(now));
        assert_eq!(guard.next_deadline(), at(now + pause));
        now += pause;
    }
    let Availability::Unavailable { reason } = guard.availability() else { panic!("available") };
    assert!(reason.ends_with("exit status: 2: ringfence: not permitted"), "{reason}");
    assert!(guard.problem(at(now)).unwrap().contains("not permitted"));
    guard.health.since = Some(at(now));
    start(&mut guard);
    assert!(matches!(guard.availability(), Availability::Reduced { .. }));
    guard.hear(pass(1), at(now + 59));
    guard.hear(Said::Ended("signal: 9".into()), at(now + 61));
    assert_eq!(guard.next_deadline(), at(now + 62));
}

#[test]
fn silence_is_a_problem() {
    let mut guard = guard();
    guard.health.since = Some(at(10));
    assert_eq!(guard.problem(at(300)), None);
    assert!(guard.problem(at(311)).unwrap().contains("no pass for 301 s"));
    guard.hear(pass(1), at(312));
    assert_eq!(guard.problem(at(600)), None);
}
