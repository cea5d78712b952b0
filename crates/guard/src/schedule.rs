// SPDX-License-Identifier: Apache-2.0
//! When `watch` looks, and at what.
//!
//! Each check is to look about once a second: what is written to memory without a word is found by
//! the next look and by nothing else. On a small or busy machine all of them together would cost more
//! than a guard may, so a watch has a share of one processor. Checks of [`Pace::EachPass`] always
//! run; the others run in turn, who waited longest first, for as long as the share lasts, and go on
//! as soon as some of it has come in again. Nobody waits for more than [`LONGEST`].
//!
//! What the kernel announces brings a pass forward, with the checks that look at what was announced.
//! A module that was loaded may have done anything, so the pass after it is a whole one.
//!
//! Nothing here waits or reads a clock; whoever runs it tells it the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::check::Pace;

/// The longest that a check waits for its turn.
pub const LONGEST: Duration = Duration::from_secs(10);

/// What the kernel announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Announced {
    /// Code or a hook was changed through one of its interfaces.
    Change,
    /// A module was loaded.
    Module,
}

/// A check that takes turns.
#[derive(Clone, Debug)]
struct Turn {
    name: &'static str,
    pace: Pace,
    last: Option<Instant>,
}

/// What begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// A pass.
    Pass,
    /// More of the last pass, by checks that it had no processor time left for.
    Rest,
}

/// The pass that is under way.
#[derive(Clone, Debug)]
struct Pass {
    began: Instant,
    /// Whether the share is no matter: the first pass, and the one after a module.
    whole: bool,
    left: VecDeque<&'static str>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Schedule {
    period: Duration,
    gap: Duration,
    turns: Vec<Turn>,
    allowance: Option<Allowance>,
    pass: Option<Pass>,
    /// What the last pass by the period had no processor time left for.
    rest: VecDeque<&'static str>,
    /// When the last pass of any kind began, and the last that came by the period.
    last: Option<Instant>,
    last_regular: Option<Instant>,
    asked: Option<Announced>,
}

impl Schedule {
    /// A pass each `period`. A change that the kernel announces brings the next one forward, but
    /// not closer than `gap` to the last: a tracer that comes and goes must not cost a whole core.
    /// `share` of one processor (0.01 is one percent) is what checks that take turns may use
    /// together with all else; none is no bound.
    pub fn new(
        period: Duration,
        gap: Duration,
        share: Option<f64>,
        checks: impl IntoIterator<Item = (&'static str, Pace)>,
    ) -> Self {
        let turn = |(name, pace)| Turn { name, pace, last: None };
        Self {
            period,
            gap: gap.min(period),
            turns: checks.into_iter().map(turn).collect(),
            allowance: share.map(|share| Allowance::new(share, period)),
            pass: None,
            rest: VecDeque::new(),
            last: None,
            last_regular: None,
            asked: None,
        }
    }

    /// The kernel announced something.
    pub fn announced(&mut self, what: Announced) {
        self.asked = self.asked.max(Some(what));
    }

    /// How long to wait from `now` until the next pass, or more of the last one; nothing if it is due.
    pub fn wait(&self, now: Instant) -> Duration {
        let next = self.next_pass().map(|next| next.saturating_duration_since(now));
        let rest = self.rest_comes().map(|rest| rest.saturating_duration_since(now));
        next.map_or(Duration::ZERO, |next| rest.map_or(next, |rest| rest.min(next)))
    }

    /// When the next pass is due; none before the first.
    fn next_pass(&self) -> Option<Instant> {
        let (last, regular) = (self.last?, self.last_regular? + self.period);
        Some(if self.asked.is_some() { regular.min(last + self.gap) } else { regular })
    }

    /// When there is processor time for more of the last pass; none if all of it was done.
    fn rest_comes(&self) -> Option<Instant> {
        self.rest.front()?;
        self.allowance.as_ref().map_or(self.last, Allowance::comes)
    }

    /// A pass begins, or more of the last one if no new one is due. `used` is the processor time that
    /// the process has used since its start.
    pub fn begin(&mut self, now: Instant, used: Duration) -> Begun {
        if let Some(allowance) = &mut self.allowance {
            allowance.account(now, used);
        }
        if self.next_pass().is_some_and(|next| now < next) {
            let left = std::mem::take(&mut self.rest);
            self.pass = Some(Pass { began: now, whole: false, left });
            return Begun::Rest;
        }
        let asked = self.asked.take();
        let first = self.last.is_none();
        let whole = first || asked == Some(Announced::Module);
        let due = self.last_regular.is_none_or(|regular| now >= regular + self.period);
        let mut left: Vec<&Turn> = self.turns.iter().collect();
        if !first {
            // A stable sort: of those that look in each pass the order of the guard decides.
            left.sort_by_key(|turn| (turn.pace, turn.last.filter(|_| turn.pace == Pace::InTurn)));
        }
        if due || whole {
            self.rest.clear();
        } else {
            left.retain(|turn| turn.pace == Pace::EachPass);
        }
        let left = left.into_iter().map(|turn| turn.name).collect();
        self.pass = Some(Pass { began: now, whole, left });
        self.last = Some(now);
        if due || whole {
            self.last_regular = Some(now);
        }
        if asked == Some(Announced::Module) {
            // It was told of before it was initialised: look once more at what it does then.
            self.asked = Some(Announced::Change);
        }
        Begun::Pass
    }

    /// The check to run next in this pass; none when it is over. `news` is whether the kernel has
    /// announced something since the pass began, which has those that take turns go on later.
    pub fn next(&mut self, now: Instant, used: Duration, news: bool) -> Option<&'static str> {
        let pass = self.pass.as_mut()?;
        if let Some(allowance) = &mut self.allowance {
            allowance.account(now, used);
            if pass.whole {
                allowance.forgive();
            }
        }
        let in_the_way = news && now >= pass.began + self.gap;
        let spent = !pass.whole && self.allowance.as_ref().is_some_and(Allowance::is_spent);
        let stop = in_the_way || spent;
        while let Some(name) = pass.left.pop_front() {
            let Some(turn) = self.turns.iter_mut().find(|turn| turn.name == name) else { continue };
            let waited = |last| now.saturating_duration_since(last) >= LONGEST;
            if !stop || turn.pace == Pace::EachPass || turn.last.is_none_or(waited) {
                turn.last = Some(now);
                return Some(name);
            }
            self.rest.push_back(name);
        }
        self.pass = None;
        None
    }
}

/// Processor time that may be used: a share of the time that goes by. What is not used is kept for
/// one period; what was used beyond it has to come in again, but for no more than one period, and not
/// what a whole pass used: else all would stand still after it.
#[derive(Clone, Debug)]
struct Allowance {
    share: f64,
    most: f64,
    left: f64,
    last: Option<(Instant, Duration)>,
}

/// How much of what may be kept has to have come in before more of a pass is done: to wake up costs
/// processor time as well.
const WORTH_IT: f64 = 0.2;

impl Allowance {
    fn new(share: f64, period: Duration) -> Self {
        let most = share * period.as_secs_f64();
        Self { share, most, left: most, last: None }
    }

    fn account(&mut self, now: Instant, used: Duration) {
        if let Some((then, before)) = self.last {
            let came = self.share * now.saturating_duration_since(then).as_secs_f64();
            let went = used.saturating_sub(before).as_secs_f64();
            self.left = (self.left + came - went).clamp(-self.most, self.most);
        }
        self.last = Some((now, used));
    }

    fn forgive(&mut self) {
        self.left = self.left.max(0.0);
    }

    /// When enough has come in to go on.
    fn comes(&self) -> Option<Instant> {
        let (then, _) = self.last?;
        let lacking = (WORTH_IT * self.most - self.left).max(0.0);
        Some(then + Duration::try_from_secs_f64(lacking / self.share).ok()?)
    }

    fn is_spent(&self) -> bool {
        self.left <= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CHECKS: [(&str, Pace); 4] = [
        ("slow", Pace::InTurn),
        ("text", Pace::EachPass),
        ("other", Pace::InTurn),
        ("third", Pace::InTurn),
    ];

    /// Runs passes on a machine where each check takes so much processor time.
    struct Machine {
        schedule: Schedule,
        start: Instant,
        now: Instant,
        used: Duration,
        each: Duration,
    }

    impl Machine {
        fn new(share: Option<f64>, each_ms: u64) -> Self {
            let schedule = Schedule::new(SECOND, SECOND / 5, share, CHECKS);
            let start = Instant::now();
            let each = Duration::from_millis(each_ms);
            Self { schedule, start, now: start, used: Duration::ZERO, each }
        }

        /// Waits until something is due and runs it.
        fn step(&mut self, news: bool) -> (Begun, Vec<&'static str>) {
            self.now += self.schedule.wait(self.now);
            let begun = self.schedule.begin(self.now, self.used);
            let mut ran = Vec::new();
            while let Some(name) = self.schedule.next(self.now, self.used, news) {
                ran.push(name);
                self.now += self.each;
                self.used += self.each;
            }
            (begun, ran)
        }

        /// The same, of a pass.
        fn pass(&mut self, news: bool) -> Vec<&'static str> {
            let (begun, ran) = self.step(news);
            assert_eq!(begun, Begun::Pass);
            ran
        }

        fn at(&self) -> Duration {
            self.now - self.start
        }
    }

    #[test]
    fn without_a_bound_each_check_looks_in_each_pass() {
        let mut machine = Machine::new(None, 1);
        assert_eq!(machine.pass(false), ["slow", "text", "other", "third"], "the guard's order");
        for pass in 1..5 {
            assert_eq!(machine.pass(false), ["text", "slow", "other", "third"]);
            assert_eq!(machine.at(), SECOND * pass + Duration::from_millis(4));
        }
    }

    #[test]
    fn what_the_share_does_not_allow_goes_on_later_and_nobody_is_passed_over() {
        // Four checks of 10 ms each second, 2 % of a processor for them: two of them in each second.
        let mut machine = Machine::new(Some(0.02), 10);
        let mut ran = machine.pass(false);
        assert_eq!(ran.len(), 4, "the first pass is a whole one");
        ran.clear();
        while machine.at() < SECOND * 61 {
            ran.extend(machine.step(false).1);
        }
        let count = |name: &str| ran.iter().filter(|one| **one == name).count();
        assert_eq!(count("text"), 61);
        for name in ["slow", "other", "third"] {
            assert!((18..=23).contains(&count(name)), "{name}: {}", count(name));
        }
        let share = machine.used.as_secs_f64() / machine.at().as_secs_f64();
        assert!(share < 0.022, "{share}");
    }

    #[test]
    fn after_a_whole_pass_nobody_waits_for_what_it_used() {
        // 20 ms of the 40 that all take together come in each second.
        let mut machine = Machine::new(Some(0.02), 10);
        assert_eq!(machine.pass(false).len(), 4);
        assert_eq!(machine.pass(false), ["text", "slow"]);
        machine.schedule.announced(Announced::Module);
        assert_eq!(machine.pass(false).len(), 4);
        let module = machine.at();
        while machine.step(false).1 != ["slow"] {
            assert!(machine.at() < module + SECOND * 2);
        }
    }

    #[test]
    fn a_check_is_not_kept_until_the_next_pass_when_processor_time_comes_in_before() {
        // Of 40 ms that all take together 36 come in each second.
        let mut machine = Machine::new(Some(0.036), 10);
        machine.pass(false);
        let mut last: [Option<Duration>; 4] = [None; 4];
        while machine.at() < SECOND * 30 {
            let (_, ran) = machine.step(false);
            for name in ran {
                let at = CHECKS.iter().position(|(check, _)| *check == name).unwrap();
                let before = last[at].replace(machine.at());
                let waited = machine.at() - before.unwrap_or(machine.at());
                assert!(waited < SECOND * 3 / 2, "{name} waited {waited:?}");
            }
        }
    }

    #[test]
    fn nobody_waits_longer_than_the_longest_time_however_small_the_share() {
        let mut machine = Machine::new(Some(0.000_01), 10);
        let mut last = [Duration::ZERO; 4];
        for _ in 0..200 {
            for name in machine.step(false).1 {
                let at = CHECKS.iter().position(|(check, _)| *check == name).unwrap();
                let waited = machine.at() - std::mem::replace(&mut last[at], machine.at());
                assert!(waited <= LONGEST + SECOND + SECOND / 10, "{name} waited {waited:?}");
            }
        }
    }

    #[test]
    fn an_announced_change_has_those_look_that_it_is_about_but_not_sooner_than_the_gap() {
        let mut machine = Machine::new(None, 1);
        machine.pass(false);
        let began = machine.at();
        machine.schedule.announced(Announced::Change);
        assert_eq!(machine.pass(false), ["text"]);
        assert!(machine.at() >= SECOND / 5 && machine.at() < began + SECOND / 4);
        // The regular passes keep their time.
        assert_eq!(machine.pass(false).len(), 4);
        assert_eq!(machine.at(), SECOND + Duration::from_millis(4));
    }

    #[test]
    fn a_module_has_all_look_at_once_and_some_once_more() {
        let mut machine = Machine::new(Some(0.000_01), 10);
        machine.pass(false);
        machine.schedule.announced(Announced::Module);
        machine.schedule.announced(Announced::Change);
        assert_eq!(machine.pass(false).len(), 4);
        assert_eq!(machine.pass(false), ["text"]);
        assert!(machine.at() < SECOND);
        machine.now += SECOND / 2;
        assert!(!machine.schedule.wait(machine.now).is_zero(), "nothing more is due");
    }

    #[test]
    fn news_has_those_that_take_turns_go_on_after_it() {
        let mut machine = Machine::new(None, 150);
        machine.pass(false);
        // The gap is over after the second check.
        assert_eq!(machine.pass(true), ["text", "slow"]);
        machine.schedule.announced(Announced::Change);
        assert_eq!(machine.pass(false), ["text"]);
        assert_eq!(machine.step(false), (Begun::Rest, vec!["other", "third"]));
        assert_eq!(machine.pass(false), ["text", "slow", "other", "third"], "who waited longest");
    }
}
