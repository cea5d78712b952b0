// SPDX-License-Identifier: Apache-2.0
//! What comes of a question, case by case.

mod world;

use broker::event::Class;
use broker::slot::FileKey;
use broker::verdict::{Answer, AskedTwice, Outcome, Question, Status, Verdict, Why};
use broker::{Effect, Notice, Settings};
use world::*;

const DENIED: Option<Outcome> = Some(Outcome::Deny { error: 13 });
const REFUSED: Option<Outcome> = Some(Outcome::Deny { error: 1 });
const ALLOWED: Option<Outcome> = Some(Outcome::Allow);

#[test]
fn all_are_asked_at_once_from_the_highest_altitude_and_each_has_its_own_deadline() {
    let mut specs: Vec<_> = (0..3).map(Spec::new).collect();
    specs[2].altitude = 5000;
    specs[1].deadline_ms = 250;
    let mut world = World::new(specs);
    let id = world.ask(FILE);
    assert_eq!(world.asked(), [2, 0, 1]);
    let deadlines: Vec<_> = world
        .take()
        .iter()
        .filter_map(|effect| match effect {
            Effect::Ask { event_id, deadline, .. } if *event_id == id => {
                Some(deadline.since(world.now))
            }
            _ => None,
        })
        .collect();
    assert_eq!(deadlines, [ms(100), ms(100), ms(250)]);
}

#[test]
fn a_deadline_is_at_most_the_grants_the_sessions_and_the_servers() {
    let long = Spec { deadline_ms: 60_000, ..Spec::new(0) };
    let deadline = |world: &mut World| {
        world.take();
        world.ask(FileKey { inode: 0, ..FILE });
        let Some(Effect::Ask { deadline, .. }) = world.take().first().copied() else {
            panic!("nobody was asked");
        };
        deadline.since(world.now)
    };
    let mut world = World::new(vec![long]);
    assert_eq!(deadline(&mut world), Settings::default().longest_deadline);
    world.subscribe_to(0, "process_exec", &[Class::Ask], Some(ms(30))).expect("a shorter one");
    assert_eq!(deadline(&mut world), ms(30));
}

#[test]
fn when_all_allow_the_task_goes_on() {
    let mut world = World::of(2);
    let id = world.ask(FILE);
    assert_eq!(world.answer(0, id, ALLOW), Status::Accepted);
    assert_eq!(settled(&world.effects, id), None);
    world.wait(ms(20));
    assert_eq!(world.answer(1, id, ALLOW), Status::Accepted);
    let last = *world.effects.last().expect("an effect");
    let allowed = Effect::Settle {
        event_id: id,
        outcome: Outcome::Allow,
        by: None,
        why: Why::Answered,
        took: ms(20),
    };
    assert_eq!(last, allowed);
    assert_eq!(world.broker.open_questions(), 0);
    assert_eq!(world.broker.next_deadline(), None);
}

#[test]
fn with_nobody_to_ask_the_task_goes_on_at_once() {
    let mut world = World::of(1);
    let question = world.question(9, FILE, slots(&[]));
    world.broker.ask(world.now, question, &mut world.effects).expect("a question");
    let why = |effect: &Effect| matches!(effect, Effect::Settle { why: Why::NobodyAsked, .. });
    assert!(world.effects.iter().any(why));
    // Nor does a slot without a client count.
    let question = world.question(10, FILE, slots(&[5]));
    world.broker.ask(world.now, question, &mut world.effects).expect("a question");
    assert_eq!(world.outcome(10), ALLOWED);
}

#[test]
fn a_deny_settles_at_once_and_the_others_can_still_answer_for_their_own_sake() {
    let mut world = World::of(3);
    let id = world.ask(FILE);
    assert_eq!(world.answer(1, id, DENY), Status::Accepted);
    assert_eq!(world.outcome(id), DENIED);
    assert_eq!(world.answer_to_keep(0, id, ALLOW), Status::AlreadyAnswered);
    assert!(matches!(world.take()[..], [Effect::Remember { .. }, Effect::Concluded(_)]));
    // A second one changes nothing, not even the cache.
    assert_eq!(world.answer_to_keep(0, id, DENY), Status::AlreadyAnswered);
    assert_eq!(world.take(), []);
    // The third says nothing, and that is its miss.
    world.wait(ms(100));
    assert!(matches!(world.notices()[..], [(2, Notice::DeadlineMissed { misses: 1, .. })]));
    assert_eq!((world.broker.open_questions(), world.pending()), (0, 0));
}

#[test]
fn of_denies_that_are_known_at_once_the_errno_of_the_highest_altitude_is_told() {
    let mut world = World::of(3);
    let id = world.ask(FILE);
    world.answer_to_keep(2, id, Verdict::Deny { error: 2 });
    world.answer_to_keep(1, id, Verdict::Deny { error: 13 });
    world.answer(0, id, ALLOW);
    world.take();
    // Both are cached now.
    let id = world.ask(FILE);
    assert_eq!(world.asked(), [] as [usize; 0]);
    assert_eq!(world.outcome(id), Some(Outcome::Deny { error: 13 }));
}

#[test]
fn a_deny_without_an_errno_gives_eperm_and_one_that_no_caller_can_get_is_refused() {
    let mut world = World::of(1);
    let id = world.ask(FILE);
    for error in [134, 512, 4095, u16::MAX] {
        assert_eq!(world.answer(0, id, Verdict::Deny { error }), Status::BadError);
    }
    assert_eq!(world.answer(0, id, Verdict::Deny { error: 0 }), Status::Accepted);
    assert_eq!(world.outcome(id), REFUSED);
}

#[test]
fn a_missed_deadline_is_what_the_grant_declares() {
    for (failure, expected) in [("", ALLOWED), ("deadline_missed = \"deny\"", REFUSED)] {
        let mut world = World::new(vec![Spec::failing(0, failure), Spec::new(1)]);
        let id = world.ask(FILE);
        world.answer(1, id, ALLOW);
        world.wait(ms(99));
        assert_eq!(settled(&world.effects, id), None);
        world.wait(ms(1));
        let by_deadline = |effect: &Effect| matches!(effect, Effect::Settle { why: Why::DeadlineMissed, took, .. } if *took == ms(100));
        assert!(world.effects.iter().any(by_deadline));
        assert_eq!(world.outcome(id), expected);
        assert_eq!(world.answer(0, id, DENY), Status::TooLate);
        assert_eq!(world.take(), []);
    }
}

#[test]
fn an_answer_at_the_deadline_is_late_even_if_no_timer_has_fired() {
    let mut world = World::of(1);
    let id = world.ask(FILE);
    world.now = world.now.after(ms(100));
    assert_eq!(world.answer_to_keep(0, id, DENY), Status::TooLate);
    assert_eq!(world.outcome(id), ALLOWED);
}

#[test]
fn the_verdict_of_a_deadline_is_never_cached() {
    let mut world = World::new(vec![Spec::failing(0, "deadline_missed = \"deny\"")]);
    let id = world.ask(FILE);
    world.wait(ms(100));
    assert_eq!(world.outcome(id), REFUSED);
    world.answer_to_keep(0, id, DENY);
    world.ask(FILE);
    assert_eq!(world.asked(), [0]);
}

#[test]
fn a_full_queue_is_what_the_grant_declares_and_counted() {
    for (failure, expected) in [("", ALLOWED), ("queue_full = \"deny\"", REFUSED)] {
        let mut world = World::new(vec![Spec { max_pending: 2, ..Spec::failing(0, failure) }]);
        let first = world.ask(FILE);
        world.ask(FILE);
        world.take();
        let third = world.ask(FILE);
        assert_eq!(world.parts()[0].why, Why::QueueFull);
        assert_eq!(world.outcome(third), expected);
        assert_eq!(world.broker.status().next().expect("a client").counts.queue_full, 1);
        // One answer makes room for one.
        world.answer(0, first, ALLOW);
        world.ask(FILE);
        assert_eq!(world.asked(), [0]);
    }
}

#[test]
fn a_client_that_dies_while_it_is_asked_is_what_the_grant_declares() {
    for (failure, expected) in [("", ALLOWED), ("client_died = \"deny\"", REFUSED)] {
        for closes in [false, true] {
            let mut world = World::new(vec![Spec::failing(0, failure)]);
            let id = world.ask(FILE);
            world.wait(ms(10));
            let session = world.sessions[0];
            if closes {
                world.broker.close(world.now, session, &mut world.effects);
            } else {
                world.broker.disconnect(world.now, session, &mut world.effects);
            }
            assert_eq!(world.parts().last().map(|part| part.why), Some(Why::ClientDied));
            assert_eq!(world.outcome(id), expected);
            assert_eq!(world.answer(0, id, ALLOW), Status::NoSession);
            // Nor can its next session answer for it.
            world.open(0, None).expect("a session");
            assert_eq!(world.answer(0, id, ALLOW), Status::TooLate);
        }
    }
}

#[test]
fn a_client_that_died_before_the_question_of_its_record_came_has_died() {
    for (failure, expected) in [
        ("not_connected = \"deny\"", ALLOWED),
        ("client_died = \"deny\"\nnot_connected = \"allow\"", REFUSED),
    ] {
        for reconnects in [false, true] {
            let mut world = World::new(vec![Spec::failing(0, failure)]);
            let told = world.question(1, FILE, slots(&[0]));
            world.wait(ms(1));
            world.broker.disconnect(world.now, world.sessions[0], &mut world.effects);
            if reconnects {
                world.wait(ms(1));
                world.open(0, None).expect("a session");
            }
            world.wait(ms(1));
            world.broker.ask(world.now, told, &mut world.effects).expect("a question");
            assert_eq!(world.parts().last().map(|part| part.why), Some(Why::ClientDied));
            assert_eq!(world.outcome(1), expected);
            assert_eq!(world.broker.status().next().expect("a client").counts.died, 1);
            // What comes after it is a matter of who is connected.
            let later = world.question(2, FILE, slots(&[0]));
            world.broker.ask(world.now, later, &mut world.effects).expect("a question");
            assert!(world.parts().iter().all(|part| part.why != Why::ClientDied));
        }
    }
}

#[test]
fn a_client_that_is_not_connected_is_what_the_grant_declares() {
    for (failure, expected, rules, asks) in [
        ("", ALLOWED, true, false),
        ("not_connected = \"last_rules\"", ALLOWED, true, false),
        ("not_connected = \"allow\"", ALLOWED, false, false),
        ("not_connected = \"deny\"", REFUSED, true, true),
    ] {
        let mut world = World::absent(vec![Spec::failing(0, failure)]);
        let masks = *world.broker.status().next().expect("a client").masks;
        assert_eq!(masks.rule.contains(exec()), rules, "{failure}");
        assert_eq!(masks.ask.contains(exec()), asks, "{failure}");
        assert_eq!(masks.deny_when_gone.contains(exec()), asks, "{failure}");
        let id = world.ask(FILE);
        assert_eq!(world.outcome(id), expected, "{failure}");
        // A session that has not said what it wants is not there yet.
        world.open(0, None).expect("a session");
        let id = world.ask(FILE);
        assert_eq!(world.outcome(id), expected, "{failure}");
        // One that does not want to be asked has said so.
        world.subscribe_to(0, "process_exec", &[Class::Notify], None).expect("a subscription");
        let id = world.ask(FILE);
        assert_eq!(world.outcome(id), ALLOWED);
        let masks = *world.broker.status().next().expect("a client").masks;
        assert!(masks.rule.contains(exec()) && !masks.ask.contains(exec()));
        assert!(!masks.deny_when_gone.contains(exec()));
    }
}

#[test]
fn when_the_daemon_ends_open_questions_are_what_the_grants_declare() {
    for (failure, expected) in [
        ("", ALLOWED),
        ("not_connected = \"deny\"", REFUSED),
        ("ringfenced_gone = \"deny\"", REFUSED),
        ("not_connected = \"deny\"\nringfenced_gone = \"allow\"", ALLOWED),
    ] {
        let mut world = World::new(vec![Spec::failing(0, failure), Spec::new(1)]);
        let masks = *world.broker.status().next().expect("a client").masks;
        assert_eq!(masks.deny_when_gone.contains(exec()), expected == REFUSED);
        let id = world.ask(FILE);
        world.answer(1, id, ALLOW);
        world.broker.shut_down(world.now, &mut world.effects);
        assert_eq!(world.notices(), [(0, Notice::Stopping), (1, Notice::Stopping)]);
        assert_eq!(world.outcome(id), expected, "{failure}");
        assert_eq!(world.broker.open_questions(), 0);
    }
}

#[test]
fn a_client_is_not_asked_about_itself() {
    let mut world = World::of(2);
    let process = World::process(0);
    let question = Question { process, ..world.question(1, FILE, slots(&[0, 1])) };
    world.broker.ask(world.now, question, &mut world.effects).expect("a question");
    assert_eq!(world.asked(), [1]);
    assert_eq!(world.parts()[0].why, Why::OwnProcess);
}

#[test]
fn an_answer_to_what_is_none_of_ones_business_gets_a_name() {
    let mut world = World::of(2);
    let question = world.question(77, FILE, slots(&[0]));
    world.broker.ask(world.now, question, &mut world.effects).expect("a question");
    assert_eq!(world.answer(1, 77, DENY), Status::NotAsked);
    assert_eq!(world.answer(0, 77, ALLOW), Status::Accepted);
    assert_eq!(world.answer(1, 77, DENY), Status::NotAsked);
    assert_eq!(world.answer(0, 77, ALLOW), Status::AlreadyAnswered);
    assert_eq!(world.outcome(77), ALLOWED);
}

#[test]
fn a_question_is_asked_once() {
    let mut world = World::of(1);
    let question = world.question(5, FILE, slots(&[0]));
    for _ in 0..2 {
        world.take();
        let _ = world.broker.ask(world.now, question, &mut world.effects);
    }
    assert_eq!(world.take(), []);
    world.answer(0, 5, ALLOW);
    let again = world.broker.ask(world.now, question, &mut world.effects);
    assert_eq!(again, Err(AskedTwice(5)));
}

#[test]
fn a_cached_allow_spares_its_client_and_nobody_else() {
    let mut world = World::of(2);
    let id = world.ask(FILE);
    world.answer_to_keep(0, id, ALLOW);
    world.answer(1, id, ALLOW);
    world.take();
    let id = world.ask(FILE);
    assert_eq!(world.asked(), [1]);
    // Who was spared has nothing to say; who was asked can still deny.
    assert_eq!(world.answer(0, id, DENY), Status::AlreadyAnswered);
    assert_eq!(world.answer(1, id, DENY), Status::Accepted);
    assert_eq!(world.outcome(id), DENIED);
    // Another version of the file, and a file that cannot be told from another, is asked about.
    world.ask(FileKey { version: 8, ..FILE });
    assert_eq!(world.asked(), [0, 1]);
}

#[test]
fn a_cached_deny_decides_at_once() {
    let mut world = World::of(2);
    let id = world.ask(FILE);
    world.answer_to_keep(1, id, DENY);
    world.answer(0, id, ALLOW);
    world.take();
    let id = world.ask(FILE);
    assert_eq!(world.asked(), [] as [usize; 0]);
    assert_eq!(world.outcome(id), DENIED);
    assert_eq!(world.answer(0, id, ALLOW), Status::AlreadyAnswered);
    assert_eq!(world.pending(), 0);
}

#[test]
fn what_one_clears_or_refuses_to_cache_costs_the_others_nothing() {
    let mut world = World::of(2);
    let id = world.ask(FILE);
    world.answer_to_keep(0, id, ALLOW);
    world.answer(1, id, ALLOW);
    let session = world.sessions[1];
    assert!(world.broker.clear_cache(session, &mut world.effects));
    world.take();
    world.ask(FILE);
    assert_eq!(world.asked(), [1]);
    let session = world.sessions[0];
    assert!(world.broker.clear_cache(session, &mut world.effects));
    world.take();
    world.ask(FILE);
    assert_eq!(world.asked(), [0, 1]);
}

#[test]
fn what_cannot_be_told_from_another_file_is_not_cached() {
    let mut world = World::of(1);
    let written_now = Question { cacheable: false, ..world.question(90, FILE, slots(&[0])) };
    let without_file = world.question(91, FileKey::default(), slots(&[0]));
    for question in [written_now, without_file] {
        world.broker.ask(world.now, question, &mut world.effects).expect("a question");
        world.take();
        assert_eq!(world.answer_to_keep(0, question.event_id, ALLOW), Status::Accepted);
        assert!(!world.take().iter().any(|effect| matches!(effect, Effect::Remember { .. })));
    }
    assert_eq!(world.broker.status().next().expect("a client").cached, 0);
}

#[test]
fn of_two_answers_about_a_file_the_later_one_counts() {
    let mut world = World::of(1);
    let (first, second) = (world.ask(FILE), world.ask(FILE));
    world.answer_to_keep(0, first, ALLOW);
    world.answer(0, second, DENY);
    world.take();
    world.ask(FILE);
    assert_eq!(world.asked(), [0]);
}

#[test]
fn a_cache_ends_with_the_connection() {
    let mut world = World::of(1);
    let id = world.ask(FILE);
    world.answer_to_keep(0, id, ALLOW);
    world.take();
    let (session, token) = (world.sessions[0], world.token(0));
    world.broker.disconnect(world.now, session, &mut world.effects);
    assert!(world.take().contains(&Effect::ForgetAll { slot: slot(0) }));
    world.open(0, Some(token)).expect("the same session");
    world.ask(FILE);
    assert_eq!(world.asked(), [0]);
}

#[test]
fn a_killed_task_is_not_told_and_its_clients_can_still_answer() {
    let mut world = World::of(1);
    let id = world.ask(FILE);
    assert!(world.broker.cancel(world.now, id, &mut world.effects));
    assert_eq!(world.outcome(id), Some(Outcome::Cancelled));
    assert!(!world.broker.cancel(world.now, id, &mut world.effects));
    assert_eq!(world.answer(0, id, DENY), Status::AlreadyAnswered);
    assert_eq!(settled(&world.effects, id), None);
    assert_eq!(world.broker.open_questions(), 0);
}

#[test]
fn an_answer_can_come_before_its_question() {
    let mut world = World::of(2);
    assert_eq!(world.answer(1, 1, DENY), Status::Held);
    assert_eq!(world.answer(1, 1, ALLOW), Status::AlreadyAnswered);
    let id = world.ask(FILE);
    assert_eq!(id, 1);
    let reply = Effect::Reply { slot: slot(1), event_id: 1, status: Status::Accepted };
    assert!(world.effects.contains(&reply));
    assert_eq!(world.outcome(id), DENIED);
    // It answered, so it misses nothing.
    world.answer(0, id, ALLOW);
    world.wait(ms(1000));
    assert_eq!(world.take().len(), 1, "only what the other one said");
}

#[test]
fn an_answer_whose_question_never_comes_is_to_an_unknown_event() {
    let mut world = World::of(2);
    assert_eq!(world.answer(0, 999, DENY), Status::Held);
    world.wait(ms(50));
    let reply = Effect::Reply { slot: slot(0), event_id: 999, status: Status::UnknownEvent };
    assert_eq!(world.take(), [reply]);
    // There is room for some of them, and it is the client's own.
    for event_id in 1000..1016 {
        assert_eq!(world.answer(0, event_id, DENY), Status::Held);
    }
    assert_eq!(world.answer(0, 1016, DENY), Status::UnknownEvent);
    assert_eq!(world.answer(1, 1016, DENY), Status::Held);
}

#[test]
fn who_cannot_be_asked_is_never_early() {
    let mut world = World::of(1);
    world.subscribe_to(0, "process_exec", &[Class::Notify], None).expect("a subscription");
    assert_eq!(world.answer(0, 999, DENY), Status::UnknownEvent);
}

#[test]
fn who_misses_too_often_is_not_asked_and_outcomes_stay_as_declared() {
    for (failure, expected) in [("", ALLOWED), ("deadline_missed = \"deny\"", REFUSED)] {
        let careless = Spec { misses: 3, ..Spec::failing(0, failure) };
        let mut world = World::new(vec![careless, Spec::new(1)]);
        for turn in 1..=3 {
            let id = world.ask(FILE);
            world.answer(1, id, ALLOW);
            world.wait(ms(100));
            let missed = Notice::DeadlineMissed { event_id: id, misses: turn, demoted: turn == 3 };
            assert_eq!(world.notices(), [(0, missed)]);
            assert_eq!(world.outcome(id), expected);
        }
        // It keeps the rest; the kernel need not ask for it unless it denies.
        let masks = *world.broker.status().next().expect("a client").masks;
        assert!(masks.notify.contains(exec()) && masks.rule.contains(exec()));
        assert_eq!(masks.ask.contains(exec()), expected == REFUSED);
        let id = world.ask(FILE);
        let asked: &[usize] = if expected == ALLOWED { &[1] } else { &[] };
        assert_eq!(world.asked(), asked);
        assert_eq!(world.parts()[0].why, Why::Demoted);
        world.answer(1, id, ALLOW);
        assert_eq!(world.outcome(id), expected);
        // And when the time is over it is asked again.
        world.wait(ms(10_000));
        assert_eq!(world.notices(), [(0, Notice::Restored)]);
        world.take();
        world.ask(FILE);
        assert_eq!(world.asked(), [0, 1]);
    }
}

#[test]
fn a_new_session_gives_ask_back_once() {
    let mut world = World::new(vec![Spec { misses: 3, ..Spec::new(0) }]);
    let miss = |world: &mut World| {
        world.ask(FILE);
        world.wait(ms(100));
    };
    (0..3).for_each(|_| miss(&mut world));
    let reopen = |world: &mut World| {
        let session = world.sessions[0];
        world.broker.close(world.now, session, &mut world.effects);
        world.open(0, None).expect("a session");
        world.subscribe(0).expect("a subscription");
        world.take();
        world.ask(FILE);
        world.asked()
    };
    assert_eq!(reopen(&mut world), [0]);
    world.wait(ms(100));
    assert_eq!(reopen(&mut world), [] as [usize; 0]);
}

#[test]
fn what_answers_took_is_counted_for_each_client_and_type() {
    let mut world = World::of(2);
    let id = world.ask(FILE);
    world.wait(ms(8));
    world.answer(0, id, ALLOW);
    world.wait(ms(92));
    let costs: Vec<_> = world.broker.status().map(|status| status.costs[0].1.clone()).collect();
    assert_eq!((costs[0].count, costs[0].misses, costs[0].longest), (1, 0, ms(8)));
    assert_eq!((costs[1].count, costs[1].misses, costs[1].longest), (1, 1, ms(100)));
    let held = Answer { event_id: 50, verdict: ALLOW, cache: false };
    world.answer_with(0, held);
    assert_eq!(world.broker.status().next().expect("a client").costs[0].1.count, 1);
}
