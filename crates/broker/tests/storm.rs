// SPDX-License-Identifier: Apache-2.0
//! Random storms: up to six clients and eight questions at once, with answers, second answers,
//! lateness, death, overload, reopening and nonsense in any order.
//!
//! Two things are held against what happens. The rules for each question: settled once, in time, and
//! denied exactly if somebody denied. And for each client, that it is alone in the world as far as
//! it can tell: the same storm is run again with nobody but this client, on the questions that were
//! put to it, and it must see the same of itself to the nanosecond.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use broker::slot::{FileKey, ProcessKey, Slot, SlotSet};
use broker::time::Time;
use broker::verdict::{Answer, Outcome, Question, Status, Verdict, Why};
use broker::{Effect, Settings};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use world::*;

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// About one of four files, or one that cannot be cached.
    Ask {
        file: u8,
        askers: u8,
    },
    /// To one of the last questions.
    Answer {
        client: usize,
        back: u64,
        deny: bool,
        cache: bool,
    },
    /// To any event, with any errno.
    Nonsense {
        client: usize,
        event_id: u64,
        error: u16,
    },
    /// In the name of a session that is not this one.
    Stale {
        client: usize,
        back: u64,
    },
    Disconnect(usize),
    Close(usize),
    Open {
        client: usize,
        resume: bool,
    },
    Subscribe {
        client: usize,
        ask: bool,
    },
    Clear(usize),
    /// Its grant goes, or comes back.
    Grant {
        client: usize,
        granted: bool,
    },
    Cancel {
        back: u64,
    },
    /// In milliseconds; with timers when they are due, or none at all until the end.
    Wait {
        span: u64,
        punctual: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..6_usize;
    let back = 0..9_u64;
    prop_oneof![
        10 => (0..5_u8, any::<u8>()).prop_map(|(file, askers)| Step::Ask { file, askers }),
        30 => (client.clone(), back.clone(), prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(client, back, deny, cache)| Step::Answer { client, back, deny, cache }),
        1 => (client.clone(), 0..40_u64, any::<u16>())
            .prop_map(|(client, event_id, error)| Step::Nonsense { client, event_id, error }),
        1 => (client.clone(), back.clone()).prop_map(|(client, back)| Step::Stale { client, back }),
        1 => client.clone().prop_map(Step::Disconnect),
        1 => client.clone().prop_map(Step::Close),
        3 => (client.clone(), any::<bool>())
            .prop_map(|(client, resume)| Step::Open { client, resume }),
        3 => (client.clone(), prop::bool::weighted(0.8))
            .prop_map(|(client, ask)| Step::Subscribe { client, ask }),
        1 => client.clone().prop_map(Step::Clear),
        2 => (client, prop::bool::weighted(0.7))
            .prop_map(|(client, granted)| Step::Grant { client, granted }),
        1 => back.prop_map(|back| Step::Cancel { back }),
        4 => (prop_oneof![8 => 1..40_u64, 1 => 40..200_u64, 1 => 200..20_000_u64], any::<bool>())
            .prop_map(|(span, punctual)| Step::Wait { span, punctual }),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    // A deny that is declared often leaves nobody to ask.
    let word = || prop::sample::select(vec!["allow", "allow", "allow", "deny"]);
    let absent = prop::sample::select(vec!["allow", "last_rules", "last_rules", "deny"]);
    let gone = prop::sample::select(vec!["allow", "deny", "as_not_connected"]);
    ((word(), word(), word(), absent, gone), 30..120_u32, 1..10_u32, 0..4_u32, 3..9_u32).prop_map(
        |((missed, full, died, absent, gone), deadline_ms, max_pending, max_cached, misses)| Spec {
            deadline_ms,
            max_pending,
            max_cached,
            misses,
            ..Spec::failing(
                0,
                &format!(
                    "deadline_missed = \"{missed}\"\nqueue_full = \"{full}\"\n\
                     client_died = \"{died}\"\nnot_connected = \"{absent}\"\n\
                     ringfenced_gone = \"{gone}\""
                ),
            )
        },
    )
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    prop::collection::vec(spec(), 1..=6).prop_map(|specs| {
        let named = specs.into_iter().enumerate().map(|(index, spec)| {
            let usual = Spec::new(index);
            Spec { name: usual.name, altitude: usual.altitude, ..spec }
        });
        named.collect()
    })
}

/// Enough room for early answers that nothing but the client's own limits matters.
fn settings() -> Settings {
    Settings { versions: vec![V1, V2], early_most: 10_000, ..Settings::default() }
}

/// Something that was done, exactly; to be done again.
#[derive(Clone, Copy, Debug)]
enum Call {
    Pass,
    Ask(Question),
    Of(Step, usize),
    Answer(usize, Answer),
    Cancel(u64),
}

/// All that is seen while a storm lasts.
struct Storm {
    world: World,
    /// Client of the whole storm → client of this world.
    cast: BTreeMap<usize, usize>,
    calls: Vec<(Time, Call)>,
    seen: Vec<(Time, Effect)>,
    /// Status of each answer, with its call.
    statuses: Vec<(Time, usize, u64, Status)>,
    asked: BTreeMap<u64, Time>,
    next_event: u64,
    most_at_once: usize,
}

impl Storm {
    fn new(specs: &[Spec], cast: &[usize]) -> Self {
        let chosen: Vec<_> = cast.iter().map(|client| specs[*client].clone()).collect();
        let world = World::with(chosen, settings(), cast[0]);
        let cast = cast.iter().enumerate().map(|(own, client)| (*client, own)).collect();
        let mut storm = Self {
            world,
            cast,
            calls: Vec::new(),
            seen: Vec::new(),
            statuses: Vec::new(),
            asked: BTreeMap::new(),
            next_event: 100,
            most_at_once: 0,
        };
        storm.collect();
        storm
    }

    fn collect(&mut self) {
        let now = self.world.now;
        self.seen.extend(self.world.take().into_iter().map(|effect| (now, effect)));
    }

    fn call(&mut self, call: Call) {
        if let Call::Of(_, client) | Call::Answer(client, _) = call
            && !self.cast.contains_key(&client)
        {
            return;
        }
        self.calls.push((self.world.now, call));
        self.replay(call);
    }

    /// Does it, if it is of somebody who is here.
    fn replay(&mut self, call: Call) {
        let now = self.world.now;
        let who = |client: usize| self.cast.get(&client).copied();
        match call {
            Call::Pass => self.world.broker.pass(now, &mut self.world.effects),
            Call::Ask(question) => {
                self.asked.insert(question.event_id, now);
                self.world
                    .broker
                    .ask(now, question, &mut self.world.effects)
                    .expect("a new question");
            }
            Call::Cancel(event_id) => {
                self.world.broker.cancel(now, event_id, &mut self.world.effects);
            }
            Call::Answer(client, answer) => {
                if let Some(own) = who(client) {
                    let status = self.world.answer_with(own, answer);
                    self.statuses.push((now, client, answer.event_id, status));
                }
            }
            Call::Of(step, client) => {
                if let Some(own) = who(client) {
                    self.of(step, own);
                }
            }
        }
        self.collect();
    }

    /// What a client does with its session.
    fn of(&mut self, step: Step, own: usize) {
        let world = &mut self.world;
        let session = world.sessions[own];
        match step {
            Step::Disconnect(_) => world.broker.disconnect(world.now, session, &mut world.effects),
            Step::Close(_) => world.broker.close(world.now, session, &mut world.effects),
            Step::Open { resume, .. } => {
                let token = world.token(own);
                let _ = world.open(own, resume.then_some(token));
            }
            Step::Subscribe { ask, .. } => {
                use broker::event::Class::{Ask, Notify};
                let classes: &[_] = if ask { &[Notify, Ask] } else { &[Notify] };
                let _ = world.subscribe_to(own, "process_exec", classes, None);
            }
            Step::Clear(_) => {
                world.broker.clear_cache(session, &mut world.effects);
            }
            Step::Grant { granted, .. } => {
                let name = world.specs[own].name.clone();
                if granted {
                    world.revoked.remove(&name)
                } else {
                    world.revoked.insert(name)
                };
                world.set_grants();
            }
            Step::Stale { back, .. } => {
                let earlier = broker::session::SessionId { number: session.number + 1, ..session };
                let answer = Answer { event_id: back, verdict: DENY, cache: true };
                let status = world.broker.answer(world.now, earlier, answer, &mut world.effects);
                assert_eq!(status, Status::NoSession);
            }
            _ => {}
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask { file, askers } => {
                // No more than eight at once.
                if self.world.broker.open_questions() >= 8 {
                    return;
                }
                let event_id = self.next_event;
                self.next_event += 1;
                let file = FileKey { inode: u64::from(file), ..FILE };
                let question = Question {
                    event_id,
                    time: self.world.now,
                    event: exec(),
                    file,
                    process: ProcessKey { pid: 100 + u32::from(askers >> 2), start: 5 },
                    askers: SlotSet(u64::from(askers | askers >> 3)),
                    cacheable: file.inode != 4,
                };
                self.call(Call::Ask(question));
                self.most_at_once = self.most_at_once.max(self.world.broker.open_questions());
            }
            Step::Answer { client, back, deny, cache } => {
                // One of the next ones too: such an answer is early.
                let event_id = (self.next_event + 1).saturating_sub(back);
                let verdict =
                    if deny { Verdict::Deny { error: 10 + client as u16 } } else { ALLOW };
                self.call(Call::Answer(client, Answer { event_id, verdict, cache }));
            }
            Step::Nonsense { client, event_id, error } => {
                let verdict = Verdict::Deny { error };
                self.call(Call::Answer(client, Answer { event_id, verdict, cache: true }));
            }
            Step::Cancel { back } => self.call(Call::Cancel(self.next_event.saturating_sub(back))),
            Step::Wait { span, punctual } => {
                let until = self.world.now.after(ms(span));
                while let Some(due) = self.world.broker.next_deadline().filter(|due| *due <= until)
                    && punctual
                {
                    self.world.now = self.world.now.max(due);
                    self.call(Call::Pass);
                    let next = self.world.broker.next_deadline();
                    assert!(next.is_none_or(|next| next > self.world.now), "due for ever");
                }
                self.world.now = until;
                if span % 2 == 0 {
                    self.call(Call::Pass);
                }
            }
            Step::Disconnect(client)
            | Step::Close(client)
            | Step::Clear(client)
            | Step::Stale { client, .. }
            | Step::Grant { client, .. }
            | Step::Open { client, .. }
            | Step::Subscribe { client, .. } => self.call(Call::Of(step, client)),
        }
    }

    fn run(specs: &[Spec], steps: &[Step]) -> Self {
        let mut storm = Self::new(specs, &(0..specs.len()).collect::<Vec<_>>());
        for client in 0..specs.len() {
            storm.call(Call::Of(Step::Open { client, resume: false }, client));
            storm.call(Call::Of(Step::Subscribe { client, ask: true }, client));
        }
        steps.iter().for_each(|step| storm.step(*step));
        // All deadlines pass.
        storm.step(Step::Wait { span: 1000, punctual: true });
        storm
    }

    /// What a client sees of itself.
    fn of_client(&self, client: usize) -> Vec<(Time, Effect)> {
        let own = |effect: &Effect| match effect {
            // Whether somebody has denied is all that an answer tells of the others.
            Effect::Settle { .. } | Effect::Reply { .. } => false,
            Effect::Concluded(part) => part.slot.index() == client,
            Effect::Ask { slot, .. }
            | Effect::Tell { slot, .. }
            | Effect::Subscribe { slot, .. }
            | Effect::Remember { slot, .. }
            | Effect::Forget { slot, .. }
            | Effect::ForgetAll { slot }
            | Effect::Ended { slot }
            | Effect::Disconnect { slot }
            | Effect::Release { slot } => slot.index() == client,
        };
        self.seen.iter().filter(|(_, effect)| own(effect)).copied().collect()
    }

    /// The questions in which a client had a part.
    fn questions_of(&self, client: usize) -> BTreeSet<u64> {
        let part = |(_, effect): &(Time, Effect)| match effect {
            Effect::Ask { slot, event_id, .. } if slot.index() == client => Some(*event_id),
            Effect::Concluded(part) if part.slot.index() == client => Some(part.event_id),
            _ => None,
        };
        self.seen.iter().filter_map(part).collect()
    }

    /// The same storm for some of its clients, whose slots are neighbours, and for some of its
    /// questions.
    fn again(&self, specs: &[Spec], cast: &[usize], asked: impl Fn(u64) -> bool) -> Self {
        let mut again = Self::new(specs, cast);
        for &(time, call) in &self.calls {
            let here = |client| again.cast.contains_key(&client);
            let call = match call {
                Call::Ask(question) if !asked(question.event_id) => Call::Pass,
                // Of others only that they told the time.
                Call::Of(Step::Clear(_), who) if !here(who) => continue,
                Call::Answer(who, _) | Call::Of(_, who) if !here(who) => Call::Pass,
                own => own,
            };
            again.world.now = time;
            again.replay(call);
        }
        again
    }

    fn outcome(&self, event_id: u64) -> Option<Outcome> {
        let effects: Vec<_> = self.seen.iter().map(|(_, effect)| *effect).collect();
        settled(&effects, event_id)
    }
}

fn each_question_is_settled_once_in_time_and_as_its_parts_say(storm: &Storm) {
    for (&event_id, &asked) in &storm.asked {
        let mut greatest = asked;
        let mut parts: BTreeMap<Slot, (Verdict, Why)> = BTreeMap::new();
        let mut open = BTreeSet::new();
        let mut outcome = None;
        let mut known_deny = None;
        for (time, effect) in &storm.seen {
            match *effect {
                Effect::Ask { slot, event_id: of, deadline } if of == event_id => {
                    assert_eq!(outcome, None, "asked after it was settled");
                    let own = storm.world.specs[slot.index()].deadline_ms;
                    assert_eq!(deadline, asked.after(ms(u64::from(own))), "not its own deadline");
                    greatest = greatest.max(deadline);
                    assert!(open.insert(slot), "asked twice");
                }
                Effect::Concluded(part) if part.event_id == event_id => {
                    let before = parts.insert(part.slot, (part.verdict, part.why));
                    assert_eq!(before, None, "concluded twice");
                    open.remove(&part.slot);
                    assert_eq!(part.took, time.since(asked));
                    if outcome.is_none() && part.verdict != Verdict::Allow {
                        // Parts of one call are concluded together, the highest counts.
                        let lowest: (Slot, Verdict) =
                            known_deny.unwrap_or((part.slot, part.verdict));
                        let part = (part.slot, part.verdict);
                        known_deny = Some(if part.0 < lowest.0 { part } else { lowest });
                    }
                }
                Effect::Settle { event_id: of, outcome: told, by, .. } if of == event_id => {
                    assert_eq!(outcome, None, "settled twice");
                    outcome = Some(told);
                    if told == Outcome::Cancelled {
                        continue;
                    }
                    match known_deny {
                        Some((slot, Verdict::Deny { error })) => {
                            assert_eq!((told, by), (Outcome::Deny { error }, Some(slot)));
                        }
                        _ => {
                            assert_eq!((told, by), (Outcome::Allow, None));
                            assert!(open.is_empty(), "somebody could still deny");
                        }
                    }
                    assert!(
                        *time <= greatest || storm.is_unpunctual(greatest, *time),
                        "settled at {time:?}, the greatest deadline is {greatest:?}"
                    );
                }
                _ => {}
            }
        }
        assert!(outcome.is_some(), "never settled");
        assert!(open.is_empty(), "a part is open after its deadline");
        if outcome == Some(Outcome::Allow) {
            assert!(parts.values().all(|(verdict, _)| *verdict == Verdict::Allow));
        }
    }
}

impl Storm {
    /// Whether nobody told the broker what time it is between the two.
    fn is_unpunctual(&self, from: Time, to: Time) -> bool {
        let tells = |call: &Call| !matches!(call, Call::Of(Step::Clear(_), _));
        !self.calls.iter().any(|(time, call)| *time >= from && *time < to && tells(call))
    }
}

fn nothing_is_left(storm: &Storm) {
    assert_eq!(storm.world.broker.open_questions(), 0);
    for status in storm.world.broker.status() {
        assert_eq!(status.pending, 0);
        assert!(status.cached <= status.grant.limits.max_cached as usize);
        let counted = status.costs.iter().map(|(_, cost)| cost.misses).sum::<u64>();
        assert_eq!(counted, status.counts.missed);
    }
}

/// What is kept was said by its client just now, in an answer.
fn only_answers_are_cached(storm: &Storm) {
    for pair in storm.seen.windows(2) {
        let Effect::Remember { slot, verdict, .. } = pair[0].1 else { continue };
        let Effect::Concluded(part) = pair[1].1 else {
            panic!("{pair:?}");
        };
        assert_eq!((part.slot, part.verdict, part.why), (slot, verdict, Why::Answered));
    }
}

fn each_client_is_alone_as_far_as_it_can_tell(storm: &Storm, specs: &[Spec]) {
    for client in 0..specs.len() {
        let put_to_it = storm.questions_of(client);
        let alone = storm.again(specs, &[client], |event_id| put_to_it.contains(&event_id));
        assert_eq!(storm.of_client(client), alone.of_client(client), "client {client}");
        // What its answers get differs only in that another's deny can have come first, and in what
        // is said of questions that were not put to it.
        let relevant = |storm: &Storm| -> Vec<_> {
            let own = storm
                .statuses
                .iter()
                .filter(|(_, who, event_id, _)| *who == client && put_to_it.contains(event_id));
            own.map(|(time, _, event_id, status)| {
                let status = match status {
                    Status::AlreadyAnswered => Status::Accepted,
                    other => *other,
                };
                (*time, *event_id, status)
            })
            .collect()
        };
        assert_eq!(relevant(storm), relevant(&alone), "client {client}");
    }
}

/// Storms that are the same in each run.
fn some_storms(count: usize) -> impl Iterator<Item = (Vec<Spec>, Vec<Step>)> {
    let mut runner = TestRunner::deterministic();
    let storms = (specs(), prop::collection::vec(step(), 0..160));
    (0..count).map(move |_| storms.new_tree(&mut runner).expect("a storm").current())
}

#[test]
fn storms_have_everything_that_can_happen_to_a_question() {
    let mut causes = BTreeMap::new();
    let mut statuses = BTreeMap::new();
    let mut most_at_once = 0;
    for (specs, steps) in some_storms(300) {
        let storm = Storm::run(&specs, &steps);
        for (_, effect) in &storm.seen {
            match effect {
                Effect::Concluded(part) => *causes.entry(part.why).or_insert(0) += 1,
                Effect::Settle { why, .. } => *causes.entry(*why).or_insert(0) += 1,
                Effect::Reply { status, .. } => {
                    *statuses.entry(format!("{status:?}, held")).or_insert(0) += 1;
                }
                _ => {}
            }
        }
        for (.., status) in &storm.statuses {
            *statuses.entry(format!("{status:?}")).or_insert(0) += 1;
        }
        most_at_once = most_at_once.max(storm.most_at_once);
    }
    println!("{causes:?}\n{statuses:?}");
    assert_eq!(most_at_once, 8);
    // All but a rule, which decides in the kernel, and the end of the daemon.
    assert_eq!(causes.len(), 11, "{causes:?}");
    assert_eq!(statuses.len(), 8 + 4, "{statuses:?}");
    let rare = |counts: &BTreeMap<_, i32>| counts.values().any(|count| *count < 10);
    assert!(!rare(&statuses) && causes.values().all(|count| *count >= 10));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_rules_hold_and_no_client_feels_another(
        specs in specs(),
        steps in prop::collection::vec(step(), 0..160),
    ) {
        let storm = Storm::run(&specs, &steps);
        each_question_is_settled_once_in_time_and_as_its_parts_say(&storm);
        nothing_is_left(&storm);
        only_answers_are_cached(&storm);
        each_client_is_alone_as_far_as_it_can_tell(&storm, &specs);
    }

    /// It may answer anything to anybody, often, late and early, and come and go; it does not deny.
    #[test]
    fn a_hostile_client_that_does_not_deny_changes_no_outcome(
        mut specs in prop::collection::vec(spec(), 2..=6),
        steps in prop::collection::vec(step(), 0..160),
    ) {
        for (index, spec) in specs.iter_mut().enumerate() {
            let usual = Spec::new(index);
            (spec.name, spec.altitude) = (usual.name, usual.altitude);
        }
        let hostile = specs.len() - 1;
        specs[hostile].failure = String::new();
        let steps: Vec<_> = steps
            .into_iter()
            .map(|step| match step {
                Step::Answer { client, back, cache, .. } if client >= hostile => {
                    Step::Answer { client: hostile, back, deny: false, cache }
                }
                other => other,
            })
            .collect();
        let with = Storm::run(&specs, &steps);
        let others: Vec<_> = (0..hostile).collect();
        let without = with.again(&specs, &others, |_| true);
        for event_id in with.asked.keys() {
            let outcomes = [with.outcome(*event_id), without.outcome(*event_id)];
            if !outcomes.contains(&Some(Outcome::Cancelled)) {
                prop_assert_eq!(outcomes[0], outcomes[1]);
            }
        }
    }
}
