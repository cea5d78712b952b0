// SPDX-License-Identifier: Apache-2.0
//! All orders of a few things that can happen to one question of three clients, held against what
//! should come of each, worked out from the order itself.

mod world;

use broker::Effect;
use broker::verdict::{Outcome, Status, Verdict};
use world::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Allow(usize),
    Deny(usize),
    Die(usize),
    /// Time passes until this long after the question, in milliseconds.
    Until(u64),
}

/// When the time of each is over, in milliseconds after the question. Two at once.
const DEADLINES: [u64; 3] = [100, 200, 100];

/// What should come of an order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    /// With which step, and how. All orders end after the last deadline, so there is one.
    settled: Option<(usize, Outcome)>,
    /// What each answer gets, with its step.
    statuses: Vec<(usize, Status)>,
}

/// From the rules as they are written, one client after another.
fn expected(order: &[Step], denies_by_default: [bool; 3]) -> Expected {
    let fallback = |client: usize| denies_by_default[client].then_some(1);
    // When each part is concluded, with which errno if any, and whether by an answer.
    let concluded: [(usize, Option<u16>, bool); 3] = std::array::from_fn(|client| {
        let conclusion = order.iter().enumerate().find_map(|(at, step)| match *step {
            Step::Allow(who) if who == client => Some((at, None, true)),
            Step::Deny(who) if who == client => Some((at, Some(10 + client as u16), true)),
            Step::Die(who) if who == client => Some((at, fallback(client), false)),
            Step::Until(time) if time >= DEADLINES[client] => Some((at, fallback(client), false)),
            _ => None,
        });
        conclusion.expect("all orders end after the last deadline")
    });
    let first_deny =
        concluded.iter().filter(|(_, error, _)| error.is_some()).map(|(at, ..)| *at).min();
    let last = concluded.iter().map(|(at, ..)| *at).max().expect("three clients");
    let settled = match first_deny {
        None => (last, Outcome::Allow),
        // Clients are from the highest altitude.
        Some(at) => {
            let errors = concluded.iter().filter(|(when, ..)| *when == at);
            let error = errors.filter_map(|(_, error, _)| *error).next().expect("a deny");
            (at, Outcome::Deny { error })
        }
    };
    let mut statuses = Vec::new();
    for (at, step) in order.iter().enumerate() {
        let (Step::Allow(client) | Step::Deny(client)) = *step else { continue };
        let (end, _, answered) = concluded[client];
        let dead = order[..at].contains(&Step::Die(client));
        statuses.push((
            at,
            match () {
                () if dead => Status::NoSession,
                () if at == end && at <= settled.0 => Status::Accepted,
                () if at == end || answered => Status::AlreadyAnswered,
                () => Status::TooLate,
            },
        ));
    }
    Expected { settled: Some(settled), statuses }
}

fn seen(world: &mut World, order: &[Step]) -> Expected {
    let start = world.now;
    let id = world.ask(broker::slot::FileKey::default());
    assert_eq!(world.asked(), [0, 1, 2]);
    let mut seen = Expected::default();
    for (at, step) in order.iter().enumerate() {
        world.take();
        let mut answer = |world: &mut World, client, verdict| {
            seen.statuses.push((at, world.answer(client, id, verdict)));
        };
        match *step {
            Step::Allow(client) => answer(world, client, ALLOW),
            Step::Deny(client) => {
                answer(world, client, Verdict::Deny { error: 10 + client as u16 });
            }
            Step::Die(client) => {
                let session = world.sessions[client];
                world.broker.close(world.now, session, &mut world.effects);
            }
            Step::Until(time) => {
                let until = start.after(ms(time));
                world.wait(until.since(world.now));
            }
        }
        if let Some(outcome) = settled(&world.effects, id) {
            assert_eq!(seen.settled, None, "settled twice");
            seen.settled = Some((at, outcome));
        }
        let asks = world.effects.iter().any(|effect| matches!(effect, Effect::Ask { .. }));
        assert!(!asks, "asked a second time");
    }
    assert_eq!((world.broker.open_questions(), world.pending()), (0, 0));
    seen
}

/// Calls `each` with all ways to merge the lists, each of which keeps its own order.
fn interleavings(lists: &mut [&[Step]], so_far: &mut Vec<Step>, each: &mut impl FnMut(&[Step])) {
    let mut ended = true;
    for at in 0..lists.len() {
        let Some((first, rest)) = lists[at].split_first() else { continue };
        ended = false;
        let whole = std::mem::replace(&mut lists[at], rest);
        so_far.push(*first);
        interleavings(lists, so_far, each);
        so_far.pop();
        lists[at] = whole;
    }
    if ended {
        each(so_far);
    }
}

/// What a client can do about a question.
fn scripts(client: usize) -> [Vec<Step>; 5] {
    [
        vec![],
        vec![Step::Allow(client), Step::Deny(client)],
        vec![Step::Deny(client), Step::Allow(client)],
        vec![Step::Die(client)],
        vec![Step::Allow(client), Step::Die(client)],
    ]
}

#[test]
fn in_each_order_of_answers_deaths_and_deadlines_comes_what_the_rules_say() {
    let time = [Step::Until(100), Step::Until(200)];
    let mut orders = 0;
    // Who denies without an answer: nobody, one, two, all.
    for choice in [0b000, 0b010, 0b101, 0b111] {
        let denies: [bool; 3] = std::array::from_fn(|client| choice >> client & 1 == 1);
        let specs = (0..3).map(|client| Spec {
            deadline_ms: DEADLINES[client] as u32,
            ..Spec::failing(
                client,
                if denies[client] {
                    "deadline_missed = \"deny\"\nclient_died = \"deny\""
                } else {
                    ""
                },
            )
        });
        let mut world = World::new(specs.collect());
        for first in &scripts(0) {
            for second in &scripts(1) {
                for third in &scripts(2) {
                    let mut lists = [&first[..], second, third, &time];
                    interleavings(&mut lists, &mut Vec::new(), &mut |order| {
                        orders += 1;
                        let seen = seen(&mut world, order);
                        assert_eq!(seen, expected(order, denies), "{order:?} {denies:?}");
                        // Everybody is there again, and what was missed is long ago.
                        for client in 0..3 {
                            if world.open(client, None).is_ok() {
                                world.subscribe(client).expect("a subscription");
                            }
                        }
                        world.wait(ms(61_000));
                    });
                }
            }
        }
    }
    println!("{orders} orders");
    assert!(orders > 300_000, "{orders}");
}
