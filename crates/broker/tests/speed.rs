// SPDX-License-Identifier: Apache-2.0
//! What the broker itself adds to a question. Printed, and held against a bound that only a mistake
//! in kind would break: the tests run with little optimisation, on busy machines.

mod counting;
mod world;

use std::time::Instant;

use broker::Effect;
use broker::slot::FileKey;
use broker::verdict::Answer;
use counting::allocations;
use world::*;

/// Nanoseconds for each question, asked, answered by all, and settled; the best of some rounds.
fn cost(askers: usize, cached: bool) -> u128 {
    const QUESTIONS: u64 = 2000;
    let mut world = World::of(askers);
    let mut effects = Vec::new();
    let everybody = slots(&(0..askers).collect::<Vec<_>>());
    let mut event_id = 1;
    let mut round = |keep: bool| {
        let start = Instant::now();
        for _ in 0..QUESTIONS {
            event_id += 1;
            let file = FileKey { inode: 1 + event_id % 16 * u64::from(cached), ..FILE };
            let question = world.question(event_id, file, everybody);
            world.broker.ask(world.now, question, &mut effects).expect("a question");
            for session in world.sessions.iter().take(askers) {
                let answer = Answer { event_id, verdict: ALLOW, cache: keep };
                if !cached || keep {
                    world.broker.answer(world.now, *session, answer, &mut effects);
                }
            }
            let settled = effects.iter().any(|effect| matches!(effect, Effect::Settle { .. }));
            assert!(settled);
            effects.clear();
        }
        start.elapsed().as_nanos() / u128::from(QUESTIONS)
    };
    round(cached);
    (0..5).map(|_| round(false)).min().unwrap_or_default()
}

#[test]
fn a_question_allocates_nothing_once_there_were_as_many_before() {
    let mut world = World::of(8);
    let everybody = slots(&(0..8).collect::<Vec<_>>());
    let mut effects = Vec::with_capacity(1000);
    let mut turn = |event_id: u64| {
        let before = allocations();
        let question = world.question(event_id, FileKey { inode: event_id, ..FILE }, everybody);
        world.broker.ask(world.now, question, &mut effects).expect("a question");
        for (client, session) in world.sessions.iter().enumerate() {
            let answer = Answer { event_id, verdict: ALLOW, cache: client % 2 == 0 };
            world.broker.answer(world.now, *session, answer, &mut effects);
        }
        effects.clear();
        allocations() - before
    };
    // Tables and caches fill.
    let first: u64 = (1..6000).map(&mut turn).sum();
    let then: u64 = (6000..8000).map(turn).sum();
    println!("{first} allocations for the first 6000 questions, {then} for 2000 more");
    assert!(first > 0, "the counter counts");
    assert_eq!(then, 0);
}

#[test]
fn a_question_costs_the_broker_microseconds() {
    for askers in [0, 1, 8, 26, 64] {
        let each = cost(askers, false);
        println!("{askers} askers: {each} ns for a question with all answers");
        assert!(each < 1_000_000, "{each} ns");
    }
    let each = cost(8, true);
    println!("8 askers with cached verdicts: {each} ns");
    assert!(each < 1_000_000, "{each} ns");
}
