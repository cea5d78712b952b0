// SPDX-License-Identifier: Apache-2.0
//! The loop of a watch, over anything that can be watched.

use std::time::{Duration, Instant};

use guard::journal::{Change, Entry};
use guard::watch::{News, Told};
use guard::{Announced, Begun, Pace, Report, Schedule};
use kernel_image::Symbols;

use super::entries::Attribution;
use super::output::{Counts, Subject, Teller};
use crate::clock::{Clock, cpu_ns};

/// The least time between the starts of two passes that journal entries cause. A tracer that comes
/// and goes must not cost a whole core.
const GAP: Duration = Duration::from_millis(250);

/// While entries come in, the journal is read this often and not for each.
const BREATH: Duration = Duration::from_millis(20);

/// What came into the journal since it was last drained.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drained {
    /// The entries, oldest first.
    pub(crate) entries: Vec<Entry>,
    /// How many more were dropped.
    pub(crate) lost: u64,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The time was over.
    Timeout,
    /// The journal has entries.
    Journal,
    /// The process is asked to end.
    End,
}

/// Something that can be watched: the live kernel, or a fake of it.
pub(crate) trait Watched {
    /// What it is.
    fn subject(&self) -> Subject;
    /// Names for addresses.
    fn symbols(&self) -> &Symbols;
    /// What changed by an entry, in words.
    fn describe(&self, entry: &Entry) -> String;
    /// Takes what came into the journal.
    fn drain(&mut self) -> Drained;
    /// The checks, in the order of a first pass.
    fn checks(&self) -> Vec<(&'static str, Pace)>;
    /// A pass begins: its checks know what was drained until now.
    fn begin(&mut self);
    /// Runs a check.
    fn look(&mut self, check: &str) -> Report;
    /// The pass is over.
    fn end(&mut self);
    /// Waits for the end of `timeout`, for a request to end, and if `journal` for an entry.
    fn wait(&mut self, timeout: Duration, journal: bool) -> anyhow::Result<Woken>;
}

/// How often a watch looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacing {
    /// From one pass to the next.
    pub(crate) period: Duration,
    /// How much of one processor checks may use that take turns; none is no bound.
    pub(crate) share: Option<f64>,
}

/// Watches until asked to end, until `limit` passes are done or until nobody reads `teller` any
/// more. Gives whether there ever was a finding.
pub(crate) fn follow(
    watched: &mut dyn Watched,
    pacing: Pacing,
    limit: Option<u64>,
    teller: &mut dyn Teller,
) -> anyhow::Result<bool> {
    let mut follower = Follower {
        attribution: Attribution::new(std::process::id(), Clock::new()),
        told: Told::default(),
        found: false,
        counts: Counts::default(),
        schedule: Schedule::new(pacing.period, GAP, pacing.share, watched.checks()),
        burst: false,
    };
    teller.start(&watched.subject())?;
    loop {
        follower.journal(watched, teller)?;
        follower.pass(watched, teller)?;
        let enough = limit.is_some_and(|limit| follower.counts.passes >= limit);
        if enough || teller.is_closed() || !follower.rest(watched, teller)? {
            break;
        }
    }
    follower.journal(watched, teller)?;
    teller.end(follower.counts)?;
    Ok(follower.found)
}

struct Follower {
    attribution: Attribution,
    told: Told,
    /// Whether there ever was a finding.
    found: bool,
    counts: Counts,
    schedule: Schedule,
    /// Whether entries came since the last pass.
    burst: bool,
}

impl Follower {
    /// Tells what came into the journal, and gives what of it was not our own doing.
    fn journal(
        &mut self,
        watched: &mut dyn Watched,
        teller: &mut dyn Teller,
    ) -> anyhow::Result<Option<Announced>> {
        let drained = watched.drain();
        self.counts.lost += drained.lost;
        let mut announced = (drained.lost > 0).then_some(Announced::Change);
        for entry in &drained.entries {
            let what = || watched.describe(entry);
            let Some(shown) = self.attribution.tell(entry, watched.symbols(), what) else {
                continue;
            };
            teller.journal(&shown)?;
            self.counts.entries += 1;
            announced = announced.max(Some(match entry.change {
                Change::Module { loaded: true, .. } => Announced::Module,
                _ => Announced::Change,
            }));
        }
        if let Some(what) = announced {
            self.schedule.announced(what);
        }
        Ok(announced)
    }

    /// Runs the checks that are due. What each finds is told before the next one looks, and what the
    /// kernel announces meanwhile is not kept waiting by checks that take turns.
    fn pass(&mut self, watched: &mut dyn Watched, teller: &mut dyn Teller) -> anyhow::Result<()> {
        let used = || Duration::from_nanos(cpu_ns());
        let begun = self.schedule.begin(Instant::now(), used());
        // More of a pass knows what that knew, and what came since is left to those of the next.
        if begun == Begun::Pass {
            self.burst = false;
            watched.begin();
            self.counts.passes += 1;
        }
        let (mut pass, mut news) = (Report::default(), false);
        while let Some(check) = self.schedule.next(Instant::now(), used(), news) {
            let report = watched.look(check);
            for news in self.told.news(&report) {
                self.found |= matches!(news, News::Found(_));
                teller.news(&news)?;
            }
            pass.add(report);
            if watched.wait(Duration::ZERO, true)? == Woken::Journal {
                news |= self.journal(watched, teller)?.is_some();
            }
        }
        if begun == Begun::Pass {
            watched.end();
        }
        self.counts.findings = self.told.standing();
        teller.pass(&pass, self.counts)?;
        Ok(())
    }

    /// Waits until the next pass is due. False when asked to end.
    fn rest(&mut self, watched: &mut dyn Watched, teller: &mut dyn Teller) -> anyhow::Result<bool> {
        loop {
            let until = self.schedule.wait(Instant::now());
            // Also where no time is left: passes may take longer than the period.
            let timeout = if self.burst { until.min(BREATH) } else { until };
            let woken = watched.wait(timeout, !self.burst)?;
            if woken == Woken::End {
                return Ok(false);
            }
            if until.is_zero() {
                return Ok(true);
            }
            let drain = woken == Woken::Journal || self.burst;
            if drain && self.journal(watched, teller)?.is_some() {
                self.burst = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use guard::journal::{Actor, Change};
    use guard::{CheckResult, Finding, Status};

    use super::*;
    use crate::report::tests::with_everything;
    use crate::screen::{Output, Style};
    use crate::watch::output::{JsonLines, Lines};

    /// Gives the findings of each pass from a list, and journal entries when asked to wait.
    struct Fake {
        symbols: Symbols,
        passes: VecDeque<Vec<Finding>>,
        entries: VecDeque<Drained>,
        waits: u32,
    }

    impl Fake {
        fn of(passes: Vec<Vec<Finding>>, entries: Vec<Drained>) -> Self {
            let symbols = Symbols::from_iter([(0x1000, b't', "patched")]);
            Self { symbols, passes: passes.into(), entries: entries.into(), waits: 0 }
        }
    }

    impl Watched for Fake {
        fn subject(&self) -> Subject {
            let report = with_everything();
            Subject {
                kernel: report.kernel,
                baseline: report.baseline.kind,
                notices: report.notices,
            }
        }
        fn symbols(&self) -> &Symbols {
            &self.symbols
        }
        fn describe(&self, _: &Entry) -> String {
            "patched: nop → int3".into()
        }
        fn drain(&mut self) -> Drained {
            self.entries.pop_front().unwrap_or_default()
        }
        fn checks(&self) -> Vec<(&'static str, Pace)> {
            vec![("all", Pace::EachPass)]
        }
        fn begin(&mut self) {}
        fn end(&mut self) {}
        fn look(&mut self, _: &str) -> Report {
            let mut report = with_everything().pass;
            report.findings = self.passes.pop_front().unwrap_or_default();
            report.checks.truncate(1);
            let hooks = CheckResult { name: "hooks", ..report.checks[0].clone() };
            report.checks.push(hooks);
            report.hooks.truncate(report.findings.len());
            report.checks[0].status =
                if report.findings.is_empty() { Status::Ok } else { Status::Finding };
            report
        }
        fn wait(&mut self, timeout: Duration, journal: bool) -> anyhow::Result<Woken> {
            if self.passes.is_empty() {
                return Ok(Woken::End);
            }
            if timeout.is_zero() {
                return Ok(Woken::Timeout);
            }
            self.waits += 1;
            std::thread::sleep(timeout);
            let ready = journal && !self.entries.is_empty();
            Ok(if ready { Woken::Journal } else { Woken::Timeout })
        }
    }

    fn poke() -> Drained {
        let actor = Actor { pid: 77, tid: 77, comm: "tracer".into() };
        let change = Change::TextPoke { address: 0x1000, old: vec![0x90], new: vec![0xcc] };
        Drained { entries: vec![Entry { time_ns: 1, actor, change }], lost: 0 }
    }

    fn pacing(period: Duration) -> Pacing {
        Pacing { period, share: None }
    }

    fn watch(mut fake: Fake, limit: Option<u64>) -> (bool, Vec<serde_json::Value>) {
        let mut bytes = Vec::new();
        let mut lines = JsonLines { output: Output::to(&mut bytes), quiet_journal: false };
        let found =
            follow(&mut fake, pacing(Duration::from_millis(10)), limit, &mut lines).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        (found, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn names(events: &[serde_json::Value]) -> Vec<&str> {
        events.iter().map(|event| event["event"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_clean_watch_ends_after_the_passes_asked_for() {
        let (found, events) = watch(Fake::of(vec![vec![]; 9], vec![]), Some(3));
        assert!(!found);
        assert_eq!(names(&events), ["start", "pass", "pass", "pass"]);
        assert_eq!(events[3]["number"], 3);
    }

    #[test]
    fn a_finding_that_comes_and_goes_is_told_twice_and_remembered() {
        let finding = with_everything().pass.findings[0].clone();
        let passes = vec![vec![], vec![finding.clone()], vec![finding], vec![]];
        let (found, events) = watch(Fake::of(passes, vec![]), None);
        assert!(found);
        let expected =
            ["start", "pass", "hooked", "finding", "pass", "pass", "unhooked", "cleared", "pass"];
        assert_eq!(names(&events), expected);
        assert_eq!(events[4]["findings"], 1);
        assert_eq!(events[8]["findings"], 0);
    }

    #[test]
    fn an_entry_is_told_with_its_owner_before_the_pass_that_follows_it() {
        let entries = vec![Drained::default(), poke(), Drained { entries: vec![], lost: 4 }];
        let (_, events) = watch(Fake::of(vec![vec![], vec![]], entries), None);
        assert_eq!(names(&events), ["start", "pass", "journal", "pass"]);
        assert_eq!(events[2]["owner"]["comm"], "tracer");
        assert_eq!(events[3]["journal_entries"], 1);
        assert_eq!(events[3]["journal_lost"], 4);
    }

    #[test]
    fn every_event_follows_the_published_schema() {
        let finding = with_everything().pass.findings[0].clone();
        let entries = vec![Drained::default(), poke()];
        let (_, events) = watch(Fake::of(vec![vec![], vec![finding], vec![]], entries), None);
        let schema = crate::schema::watch_event();
        for event in &events {
            crate::schema::assert_follows(&schema, event);
        }
        let mut kinds = names(&events);
        kinds.sort_unstable();
        kinds.dedup();
        let all = ["cleared", "finding", "hooked", "journal", "pass", "start", "unhooked"];
        assert_eq!(kinds, all);
    }

    #[test]
    fn a_watch_ends_when_asked_although_the_next_pass_is_always_due() {
        let mut fake = Fake::of(vec![vec![]; 3], vec![]);
        let mut bytes = Vec::new();
        let mut lines = JsonLines { output: Output::to(&mut bytes), quiet_journal: true };
        follow(&mut fake, pacing(Duration::ZERO), Some(100), &mut lines).unwrap();
        let passes = String::from_utf8(bytes).unwrap().matches(r#""event":"pass""#).count();
        assert_eq!(passes, 3);
    }

    #[test]
    fn a_storm_of_entries_costs_a_bounded_number_of_passes() {
        let entries = (0..200).map(|_| poke()).collect();
        let mut fake = Fake::of(vec![vec![]; 4], entries);
        let mut lines = JsonLines { output: Output::to(Vec::new()), quiet_journal: true };
        let started = Instant::now();
        follow(&mut fake, pacing(Duration::from_secs(1)), Some(4), &mut lines).unwrap();
        assert!(started.elapsed() >= GAP * 3, "{:?}", started.elapsed());
        assert!(fake.waits <= 50, "{} waits", fake.waits);
    }

    #[test]
    fn on_a_terminal_the_last_line_is_where_the_watch_stands() {
        let mut bytes = Vec::new();
        let mut lines = Lines::new(Output::to(&mut bytes), Style::plain(), true, false);
        let mut fake = Fake::of(vec![vec![]; 2], vec![poke()]);
        follow(&mut fake, pacing(Duration::from_millis(10)), Some(2), &mut lines).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\r\x1b[Kno findings, pass 1, 23.5 ms, 1 journal entries"), "{text}");
        assert!(text.contains("patched: nop → int3, by tracer (pid 77)"), "{text}");
        assert!(text.ends_with("2 passes, 1 journal entries, 0 findings stand.\n"), "{text}");
    }

    #[test]
    fn in_a_log_passes_that_change_nothing_add_nothing() {
        let mut bytes = Vec::new();
        let mut lines = Lines::new(Output::to(&mut bytes), Style::plain(), false, true);
        let mut fake = Fake::of(vec![vec![]; 5], vec![poke()]);
        follow(&mut fake, pacing(Duration::from_millis(10)), Some(5), &mut lines).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("pass 1,").count(), 1, "{text}");
        assert!(!text.contains("pass 2,") && !text.contains('\r') && !text.contains("tracer"));
    }
}
