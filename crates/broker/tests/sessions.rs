// SPDX-License-Identifier: Apache-2.0
//! Who gets a session, what it can have, and how grants and hosts change under it.

mod world;

use broker::event::Class;
use broker::event::{ClassSet, EventSet, EventType};
use broker::grant::{Peer, Sha256};
use broker::mute::{MuteError, MuteKind, MuteTarget};
use broker::session::coverage::{Availability, HostStage};
use broker::session::subscription::{SubscribeError, Subscription};
use broker::session::version::Version;
use broker::session::{Open, OpenError, SessionId, SessionScope, Token};
use broker::slot::{FileKey, ProcessKey, Slot, SlotSet};
use broker::verdict::{Answer, Outcome, Status};
use broker::{Effect, Masks, Notice, Remembered, Settings};
use world::*;

/// What the kernel was last told of a client.
fn masks(world: &World, client: usize) -> Masks {
    let slot = world.sessions[client].slot;
    let status = world.broker.status().find(|status| status.slot == slot);
    *status.expect("a client").masks
}

fn open_as(client: &str, peer: Peer<'_>, versions: &[Version]) -> Result<(), OpenError> {
    let mut world = World::absent(vec![Spec::new(0)]);
    let process = ProcessKey { pid: 9, start: 9 };
    let open = Open { client, versions, process, peer, token: Token([1; 16]), resume: None };
    world.broker.open(world.now, &open, &mut world.effects).map(|_| ())
}

#[test]
fn only_who_has_a_grant_and_is_its_client_gets_a_session() {
    let peer = Peer { executable: Some(b"/opt/c0"), ..Peer::default() };
    assert_eq!(open_as("com.example.c0", peer, &[V1]), Ok(()));
    let nobody = open_as("com.example.nobody", peer, &[V1]).expect_err("no grant");
    assert_eq!(nobody.to_string(), "there is no grant for com.example.nobody");
    let other = Peer { executable: Some(b"/tmp/c0"), sha256: Some(Sha256([0; 32])), ..peer };
    let other = open_as("com.example.c0", other, &[V1]).expect_err("another program");
    assert_eq!(
        other.to_string(),
        "the grant is for the executable /opt/c0, this process runs /tmp/c0"
    );
    let future = Version { major: 9, minor: 0 };
    let future = open_as("com.example.c0", peer, &[future]).expect_err("an unknown version");
    assert_eq!(future.to_string(), "the client knows the versions 9.0, ringfenced knows 1.0, 1.1");
    // What a client calls itself is not repeated at any length.
    let long = open_as(&"x".repeat(1 << 20), peer, &[V1]).expect_err("no grant");
    assert!(long.to_string().len() < 200);
}

#[test]
fn a_client_has_one_session_at_a_time() {
    let mut world = World::of(1);
    let error = world.open(0, None).expect_err("a session is open");
    assert_eq!(error.to_string(), "com.example.c0 has a session already, of process 100");
    let session = world.sessions[0];
    world.broker.close(world.now, session, &mut world.effects);
    let opened = world.open(0, None).expect("a session");
    assert!(!opened.resumed && opened.id != session);
    assert_eq!(opened.version, V2);
    assert_eq!(opened.ring_bytes, 1 << 20);
    assert_eq!(opened.scope, SessionScope::Host);
}

#[test]
fn calls_in_the_name_of_an_earlier_session_do_nothing() {
    let mut world = World::of(1);
    let earlier = world.sessions[0];
    world.broker.close(world.now, earlier, &mut world.effects);
    world.open(0, None).expect("a session");
    world.subscribe(0).expect("a subscription");
    let id = world.ask(FILE);
    world.take();
    let answer = Answer { event_id: id, verdict: DENY, cache: true };
    let never = SessionId { slot: slot(63), number: 1 };
    for stale in [earlier, never] {
        let status = world.broker.answer(world.now, stale, answer, &mut world.effects);
        assert_eq!(status, Status::NoSession);
        let refused = world.broker.subscribe(world.now, stale, &[], &mut world.effects);
        assert_eq!(refused, Err(SubscribeError::NoSession));
        world.broker.close(world.now, stale, &mut world.effects);
        world.broker.disconnect(world.now, stale, &mut world.effects);
        assert!(!world.broker.clear_cache(stale, &mut world.effects));
        let mute = world.broker.mute(stale, MuteTarget::Cgroup(1), EventSet(2));
        assert_eq!(mute, Err(MuteError::NoSession));
    }
    assert_eq!(world.take(), []);
    assert_eq!(world.answer(0, id, ALLOW), Status::Accepted);
}

#[test]
fn a_lost_session_can_be_resumed_with_what_it_had() {
    let mut world = World::of(1);
    let (session, token) = (world.sessions[0], world.token(0));
    world.broker.mute(session, MuteTarget::Cgroup(7), EventSet(2)).expect("a mute");
    let before = masks(&world, 0);
    world.broker.disconnect(world.now, session, &mut world.effects);
    // It goes on being told, and its rules hold; it is not asked.
    assert_eq!(masks(&world, 0), Masks { ask: EventSet::EMPTY, ..before });
    world.wait(ms(29_999));
    assert_eq!(world.open(0, Some(Token([0; 16]))), Err(OpenError::NothingToResume));
    let opened = world.open(0, Some(token)).expect("the session");
    assert!(opened.resumed);
    assert_eq!(masks(&world, 0), before);
    assert_eq!(world.broker.mutes(slot(0)).expect("mutes").len(), 1);
    assert!(!world.take().contains(&Effect::Ended { slot: slot(0) }));
    // The token was good for once.
    let session = world.sessions[0];
    world.broker.disconnect(world.now, session, &mut world.effects);
    assert_eq!(world.open(0, Some(token)), Err(OpenError::NothingToResume));
}

#[test]
fn a_lost_session_ends_when_nobody_comes_back_or_somebody_starts_anew() {
    for waits in [true, false] {
        let mut world = World::of(1);
        let (session, token) = (world.sessions[0], world.token(0));
        world.broker.mute(session, MuteTarget::Cgroup(7), EventSet(2)).expect("a mute");
        world.broker.disconnect(world.now, session, &mut world.effects);
        world.take();
        if waits {
            world.wait(ms(30_000));
        } else {
            assert!(!world.open(0, None).expect("a session").resumed);
        }
        assert!(world.take().contains(&Effect::Ended { slot: slot(0) }));
        assert!(world.broker.mutes(slot(0)).expect("mutes").is_empty());
        assert_eq!(masks(&world, 0).notify, EventSet::EMPTY);
        assert!(world.open(0, Some(token)).is_err());
    }
}

#[test]
fn without_time_to_resume_a_lost_session_ends_at_once() {
    let settings = Settings { versions: vec![V1], resume_within: ms(0), ..Settings::default() };
    let mut world = World::with(vec![Spec::new(0)], settings, 0);
    world.open(0, None).expect("a session");
    let session = world.sessions[0];
    world.broker.disconnect(world.now, session, &mut world.effects);
    assert!(world.take().contains(&Effect::Ended { slot: slot(0) }));
    assert_eq!(world.broker.next_deadline(), None);
}

#[test]
fn a_subscription_is_refused_with_what_is_missing_and_changes_nothing() {
    let mut spec = Spec::new(0);
    spec.more = ["module_load", "firmware_load", "kexec_load"]
        .iter()
        .map(|name| {
            let ask = if *name == "firmware_load" { "" } else { ", \"ask\"" };
            format!("[events.{name}]\nclasses = [\"notify\"{ask}]\n")
        })
        .collect();
    let mut world = World::new(vec![spec]);
    let before = masks(&world, 0);
    let mut refused = |event: u16, classes: &[Class], deadline| {
        let classes: ClassSet = classes.iter().copied().collect();
        let good = Subscription {
            event: exec().number(),
            classes: [Class::Notify].into_iter().collect(),
            deadline: None,
        };
        let bad = Subscription { event, classes, deadline };
        let session = world.sessions[0];
        let refused = world.broker.subscribe(world.now, session, &[good, bad], &mut world.effects);
        assert_eq!(masks(&world, 0), before);
        refused.expect_err("a subscription that cannot be had").to_string()
    };
    let number = |name| event(name).number();
    use Class::{Ask, Notify};
    assert_eq!(refused(8, &[Notify], None), "there is no event with the number 8");
    assert_eq!(refused(64 + 1, &[Notify], None), "there is no event with the number 65");
    assert_eq!(
        refused(number("loss"), &[Notify], None),
        "loss comes to every session without a subscription"
    );
    assert_eq!(
        refused(number("process_fork"), &[Notify], None),
        "the grant has no notify for process_fork"
    );
    assert_eq!(
        refused(number("file_open"), &[Notify], None),
        "file_open cannot be had: it is a draft, and the grant does not say draft = true"
    );
    assert_eq!(
        refused(number("firmware_load"), &[Notify], None),
        "firmware_load cannot be had: it is not part of the API yet"
    );
    assert_eq!(
        refused(number("module_load"), &[Notify, Ask], None),
        "module_load has no ask on this host: the kernel is older than 6.12"
    );
    assert_eq!(
        refused(number("process_exec"), &[Ask], Some(ms(101))),
        "a deadline of 101ms for process_exec is not between 10ms and 100ms"
    );
    assert_eq!(
        refused(number("process_exec"), &[Ask], Some(ms(9))),
        "a deadline of 9ms for process_exec is not between 10ms and 100ms"
    );
}

#[test]
fn a_session_has_what_its_version_has() {
    let mut spec = Spec { draft: true, ..Spec::new(0) };
    spec.more = "[events.kexec_load]\nclasses = [\"notify\"]\n".to_owned();
    let mut world = World::absent(vec![spec]);
    let open = Open {
        client: "com.example.c0",
        versions: &[V1],
        process: ProcessKey::default(),
        peer: Peer { executable: Some(b"/opt/c0"), ..Peer::default() },
        token: Token([1; 16]),
        resume: None,
    };
    world.sessions[0] = world.broker.open(world.now, &open, &mut world.effects).expect("1.0").id;
    let mut refused = |name| {
        let refused = world.subscribe_to(0, name, &[Class::Notify], None);
        refused.expect_err("not in this version").to_string()
    };
    assert_eq!(
        refused("kexec_load"),
        "kexec_load cannot be had: it is there since version 1.1; the session speaks 1.0"
    );
    assert_eq!(
        refused("file_open"),
        "file_open cannot be had: it is a draft, which only version 1.1 has; the session speaks 1.0"
    );
    let session = world.sessions[0];
    world.broker.close(world.now, session, &mut world.effects);
    assert_eq!(world.open(0, None).expect("1.1").version, V2);
    for name in ["kexec_load", "file_open"] {
        assert_eq!(world.subscribe_to(0, name, &[Class::Notify], None), Ok(()));
    }
}

#[test]
fn events_and_classes_come_and_go_one_by_one() {
    let mut world = World::of(1);
    let mut has = |classes: &[Class]| {
        world.subscribe_to(0, "process_exec", classes, None).expect("a subscription");
        let masks = masks(&world, 0);
        [masks.notify, masks.rule, masks.ask].map(|set| set.contains(exec()))
    };
    // Rules hold as long as they are granted; `rule` in a subscription asks whether they can.
    assert_eq!(has(&[Class::Notify]), [true, true, false]);
    assert_eq!(has(&[Class::Ask, Class::Rule]), [false, true, true]);
    assert_eq!(has(&[]), [false, true, false]);
}

#[test]
fn when_the_host_can_do_less_subscriptions_sleep_and_when_it_can_again_they_wake() {
    let mut world = World::of(1);
    let before = masks(&world, 0);
    let mut less = coverage();
    for class in [Class::Rule, Class::Ask] {
        less.set(exec(), class, Availability::Unavailable("the gate is gone".to_owned()));
    }
    world.broker.set_coverage(world.now, less, &mut world.effects);
    let (now, was) = (HostStage::Observed, HostStage::Enforced);
    let notice = Notice::StageChanged { event: exec(), before: was, after: now };
    assert_eq!(world.notices(), [(0, notice)]);
    let only_told = Masks { notify: before.notify, ..Masks::default() };
    assert_eq!(masks(&world, 0), only_told);
    world.take();
    // What cannot be asked is not waited for.
    let id = world.ask(FILE);
    assert_eq!(world.outcome(id), Some(Outcome::Allow));
    world.broker.set_coverage(world.now, coverage(), &mut world.effects);
    assert_eq!(masks(&world, 0), before);
}

#[test]
fn a_scoped_client_gets_its_scope_with_the_session() {
    let mut spec = Spec::new(0);
    spec.more = "[scope]\nsee = \"descendants\"\n".to_owned();
    let mut world = World::absent(vec![spec]);
    let scope = world.open(0, None).expect("a session").scope;
    assert_eq!(scope, SessionScope::Descendants(World::process(0)));
}

#[test]
fn a_grant_that_is_gone_takes_everything_with_it() {
    let mut world = World::of(2);
    let id = world.ask(FILE);
    world.take();
    world.specs.remove(0);
    world.set_grants();
    let effects = world.take();
    let revoked = Effect::Tell { slot: slot(0), notice: Notice::Revoked };
    for effect in [
        revoked,
        Effect::Disconnect { slot: slot(0) },
        Effect::Ended { slot: slot(0) },
        Effect::Release { slot: slot(0) },
    ] {
        assert!(effects.contains(&effect), "{effect:?}");
    }
    let first = world.sessions.remove(0);
    assert_eq!(world.broker.session(first.slot), None);
    assert_eq!(world.answer(0, id, ALLOW), Status::Accepted);
    assert_eq!(world.outcome(id), Some(Outcome::Allow));
    // The slot is free for another, who is nothing like the one before.
    world.specs.push(Spec::new(5));
    let grants = world.grants();
    let admitted = world.broker.set_grants(world.now, &grants, &[], &mut world.effects);
    assert_eq!(admitted.new[0].1, slot(0));
    world.sessions.push(first);
    let opened = world.open(1, None).expect("a session");
    assert_eq!(opened.id.slot, slot(0));
    // In the name of whom the first cannot speak.
    assert_ne!(opened.id, first);
    let answer = Answer { event_id: id, verdict: DENY, cache: true };
    let status = world.broker.answer(world.now, first, answer, &mut world.effects);
    assert_eq!(status, Status::NoSession);
}

#[test]
fn a_grant_that_says_less_takes_that_from_the_session_and_no_more() {
    let mut world = World::of(2);
    world.specs[0].deadline_ms = 50;
    world.set_grants();
    assert_eq!(world.notices(), [(0, Notice::GrantReduced)]);
    let told =
        |effect: &Effect| matches!(effect, Effect::Subscribe { slot: of, .. } if *of == slot(0));
    assert!(world.take().iter().any(told), "the kernel has the terms on which it is asked");
    assert_eq!(world.broker.limit(slot(0), EventType::PROCESS_EXEC), Some(ms(50)));
    world.ask(FileKey::default());
    let deadlines: Vec<_> = world
        .take()
        .iter()
        .filter_map(|effect| match effect {
            Effect::Ask { deadline, .. } => Some(deadline.since(world.now)),
            _ => None,
        })
        .collect();
    assert_eq!(deadlines, [ms(50), ms(100)]);
    // A new altitude takes nothing.
    world.specs[1].altitude = 5000;
    world.set_grants();
    assert_eq!(world.take(), []);
    world.ask(FileKey::default());
    assert_eq!(world.asked(), [1, 0]);
}

#[test]
fn a_grant_for_another_program_ends_the_session() {
    let mut world = World::of(1);
    let id = world.ask(FILE);
    world.specs[0].more = "[scope]\nsee = \"descendants\"\n".to_owned();
    world.set_grants();
    assert!(world.effects.contains(&Effect::Disconnect { slot: slot(0) }));
    assert!(!world.effects.contains(&Effect::Release { slot: slot(0) }));
    assert_eq!(world.outcome(id), Some(Outcome::Allow));
    assert!(world.open(0, None).is_ok());
}

#[test]
fn a_smaller_cache_forgets_what_was_longest_not_used() {
    let mut world = World::of(1);
    for inode in 1..=3 {
        let id = world.ask(FileKey { inode, ..FILE });
        world.answer_to_keep(0, id, ALLOW);
    }
    world.specs[0].max_cached = 1;
    world.take();
    world.set_grants();
    let forgotten: Vec<_> = world
        .take()
        .iter()
        .filter_map(|effect| match effect {
            Effect::Forget { file, .. } => Some(file.inode),
            _ => None,
        })
        .collect();
    assert_eq!(forgotten, [1, 2]);
}

#[test]
fn there_are_64_slots_and_who_had_one_before_gets_it_again() {
    let specs: Vec<_> = (0..66)
        .map(|index| Spec { name: format!("c{index}"), altitude: 9000 - index, ..Spec::new(0) })
        .collect();
    let mut world = World::absent(vec![]);
    world.specs = specs;
    let grants = world.grants();
    let remembered = [(65, 3), (64, 40)]
        .map(|(index, at)| Remembered { client: format!("com.example.c{index}"), slot: slot(at) });
    let admitted = world.broker.set_grants(world.now, &grants, &remembered, &mut world.effects);
    assert_eq!(admitted.new.len(), 64);
    let left_out: Vec<_> = admitted.no_slot.iter().map(|client| client.as_str()).collect();
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert_eq!(world.broker.slot_of("com.example.c65"), Some(slot(3)));
    assert_eq!(world.broker.slot_of("com.example.c64"), Some(slot(40)));
    let taken: SlotSet = admitted.new.iter().map(|(_, slot)| *slot).collect();
    assert_eq!(taken, Slot::all().collect());
}

#[test]
fn mutes_are_kept_within_the_grant() {
    let mut world = World::of(1);
    let session = world.sessions[0];
    let process = ProcessKey { pid: 5, start: 5 };
    let all = EventSet(2);
    world.broker.mute(session, MuteTarget::Process(process), all).expect("room");
    world.broker.mute(session, MuteTarget::Cgroup(1), all).expect("room");
    let third = world.broker.mute(session, MuteTarget::Cgroup(2), all);
    assert_eq!(third, Err(MuteError::Full(2)));
    assert_eq!(world.broker.process_ended(process), slots(&[0]));
    world.broker.mute(session, MuteTarget::Cgroup(2), all).expect("room");
    world.broker.invert_mutes(session, MuteKind::Cgroup, true).expect("a session");
    let cgroup = MuteTarget::Cgroup(2);
    assert_eq!(world.broker.unmute(session, &cgroup, all), Ok(EventSet::EMPTY));
    let mutes = world.broker.mutes(slot(0)).expect("mutes");
    assert!(mutes.is_inverted(MuteKind::Cgroup));
    let left: Vec<_> = mutes.iter().collect();
    assert_eq!(left, [(&MuteTarget::Cgroup(1), all)]);
}
