// SPDX-License-Identifier: Apache-2.0
//! The kernel decides by rules as going through them one by one does; fast, and never by a mix of
//! two sets.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../../rules/tests/support/generate.rs"]
mod generate;
mod lineage;
mod speed;
mod trial;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use generate::Random;
use probes::{ReadyCollection, RuleCount, Rules, RulesError};
use rules::model::{Action, Condition, Number, Rule};
use rules::record::RECORD_MAX;
use rules::{Algorithm, Collection, Context, Outcome, Record, RuleSet, evaluate};
use trial::{Said, done_with, loaded};

/// How many random sets the kernel is asked about; slow machines take fewer.
fn rounds() -> u64 {
    let wanted = std::env::var("RINGFENCE_RULES_ROUNDS").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(150)
}

fn ready(collection: &Collection) -> ReadyCollection {
    ReadyCollection::new(collection).unwrap()
}

/// A client with its rules, and what it is to have counted.
struct Client {
    slot: u32,
    set: RuleSet,
    context: Context,
    counts: Vec<RuleCount>,
}

impl Client {
    fn install(random: &mut Random, slot: u32, rules: &mut Rules) -> Self {
        let size = random.pick(&[1, 3, 12, 60]);
        let set = generate::rule_set(random, size);
        let context = generate::context(random);
        for (name, collection) in &context.collections {
            rules.set_collection(slot, name, ready(collection)).unwrap();
        }
        rules.install(slot, &set).unwrap();
        let counts = set.rules.iter().map(|rule| RuleCount { id: rule.id, ..RuleCount::default() });
        Self { slot, counts: counts.collect(), context, set }
    }

    /// What it says of a record, taken into the outcome; its number for the header.
    fn say(&mut self, record: &Record<'_>, context: &Context, outcome: &mut Outcome) -> u32 {
        let context = Context { collections: self.context.collections.clone(), ..context.clone() };
        let decision = evaluate(&self.set, record, &context);
        outcome.take(self.slot, &self.set, &decision, &context);
        for told in &decision.told {
            self.counts[*told].matches += 1;
        }
        if let Some(decided) = decision.decided {
            self.counts[decided].matches += 1;
            self.counts[decided].denies += u64::from(decision.error(&self.set, &context) != 0);
        }
        decision.number(&self.set, &context)
    }
}

/// What the kernel is to say of the bytes of a record.
fn expected(clients: &mut [Client], bytes: &[u8], context: &Context) -> Said {
    let before = (bytes[11], u16::from_le_bytes([bytes[12], bytes[13]]));
    let mut said = Said { outcome: Outcome::default(), rules: [0; 64], header: before };
    let Some(record) = Record::new(bytes) else { return said };
    for client in clients {
        let number = client.say(&record, context, &mut said.outcome);
        said.rules[client.slot as usize] = number;
    }
    if said.outcome.error != 0 {
        said.header = (2, said.outcome.error);
    } else if said.outcome.allowed != 0 {
        said.header.0 = 1;
    }
    said
}

#[test]
#[ignore = "root: loads BPF"]
fn the_kernel_decides_as_going_through_the_rules_does() {
    let (mut rules, mut trial) = loaded();
    let (mut cases, mut denied, mut told) = (0, 0, 0);
    for seed in 0..rounds() {
        let random = &mut Random(seed);
        let slots: Vec<u32> =
            (0..1 + random.below(3)).map(|at| (at * 31 + seed) as u32 % 64).collect();
        let mut slots = slots;
        slots.sort_unstable();
        let mut clients: Vec<Client> =
            slots.iter().map(|slot| Client::install(random, *slot, &mut rules)).collect();
        for _ in 0..60 {
            let mut bytes = generate::record(random);
            // Both see the same bytes behind it, as a record can say that it is longer than it is.
            bytes.resize(RECORD_MAX, 0x5a);
            let context = generate::context(random);
            let roots = context.ancestors.iter().filter_map(|key| rules.root(*key));
            let lineage = roots.fold(0u64, |lineage, root| lineage | 1 << root);
            trial.put(&bytes, lineage, context.observed);
            let wanted = expected(&mut clients, &bytes, &context);
            let said = trial.decide();
            assert_eq!(said, wanted, "seed {seed}, {:x?}", bytes.get(..400));
            cases += 1;
            denied += u32::from(wanted.outcome.error != 0);
            told += u32::from(wanted.outcome.told != 0);
        }
        for client in clients {
            assert_eq!(rules.counts(client.slot).unwrap(), client.counts, "seed {seed}");
            rules.remove(client.slot).unwrap();
            for name in generate::COLLECTIONS {
                rules.remove_collection(client.slot, name).unwrap();
            }
        }
    }
    println!("{cases} records: {denied} denied, {told} told of, all as expected");
    assert!(denied * 10 > cases && told * 10 > cases, "the test says too little");
    done_with(rules, trial);
}

fn one_rule(id: u32, action: Action) -> Rule {
    Rule { id, events: 1 << 1, action, dry_run: false, conditions: Vec::new() }
}

/// Denies with `error` and is told or not, with `rules` that never match in front.
fn marked_set(error: u16, told: bool, rules: u32) -> RuleSet {
    let never = |id| Rule {
        conditions: vec![Condition::Number(Number::Cgroup, vec![u64::from(id) << 32])],
        ..one_rule(id, Action::Allow)
    };
    let mut set = RuleSet { rules: (1000..1000 + rules).map(never).collect() };
    if told {
        set.rules.push(one_rule(2, Action::Notify));
    }
    set.rules.push(one_rule(u32::from(error), Action::Deny(error)));
    set
}

#[test]
#[ignore = "root: loads BPF"]
fn no_event_is_decided_by_a_mix_of_two_sets() {
    let (mut rules, mut trial) = loaded();
    let sets = [marked_set(1, true, 0), marked_set(13, false, 3000), marked_set(16, true, 40)];
    rules.install(5, &sets[0]).unwrap();
    let random = &mut Random(1);
    let bytes = loop {
        let bytes = generate::record_of(random, &rules::events::EVENTS[0]);
        if Record::new(&bytes).is_some() {
            break bytes;
        }
    };
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let decider = scope.spawn(|| {
            let mut seen: BTreeMap<(u16, u32, u64), u64> = BTreeMap::new();
            trial.put(&bytes, 0, false);
            while !done.load(Ordering::Relaxed) {
                let said = trial.decide().outcome;
                *seen.entry((said.error, said.rule, said.told)).or_default() += 1;
            }
            seen
        });
        let begun = Instant::now();
        let mut swaps = 0;
        while swaps < 300 && begun.elapsed() < Duration::from_secs(20) {
            swaps += 1;
            rules.install(5, &sets[swaps % 3]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        println!("{swaps} swaps");
        decider.join().unwrap()
    });
    println!("decisions by (error, rule, told): {seen:?}");
    let whole = [(1, 1, 1 << 5), (13, 13, 0), (16, 16, 1 << 5)];
    assert!(seen.keys().all(|said| whole.contains(said)), "{seen:?}");
    assert_eq!(seen.len(), whole.len(), "some set was never met: {seen:?}");
    done_with(rules, trial);
}

#[test]
#[ignore = "root: loads BPF"]
fn what_is_refused_leaves_what_was_there() {
    let (mut rules, mut trial) = loaded();
    rules.install(0, &marked_set(13, false, 0)).unwrap();
    let asks = Condition::DigestIn(rules::model::File::Subject, vec!["none".to_owned()]);
    let rule = Rule { conditions: vec![asks], ..one_rule(1, Action::Allow) };
    let refused = rules.install(0, &RuleSet { rules: vec![rule] });
    assert!(matches!(refused, Err(RulesError::NoCollection(_))), "{refused:?}");
    let slow = (1..=5000).map(|id| one_rule(id, Action::Notify)).collect();
    let refused = rules.install(0, &RuleSet { rules: slow });
    assert!(matches!(refused, Err(RulesError::Refused(_))), "{refused:?}");
    assert!(matches!(rules.install(64, &RuleSet::default()), Err(RulesError::NoClient(64))));
    let random = &mut Random(1);
    let bytes = generate::record_of(random, &rules::events::EVENTS[0]);
    trial.put(&bytes, 0, false);
    assert_eq!(trial.decide().outcome.error, 13);
    rules.remove(0).unwrap();
    assert_eq!(trial.decide().outcome, Outcome::default());
    done_with(rules, trial);
}

#[test]
#[ignore = "root: loads BPF"]
fn a_client_has_sixteen_collections_and_keeps_those_that_its_rules_ask() {
    let mut rules = Rules::load().unwrap();
    let digests = || ready(&Collection::new(Algorithm::Sha256, vec![[7; 32]]).unwrap());
    let name = |number: u32| format!("collection-{number}");
    for number in 0..16 {
        rules.set_collection(3, &name(number), digests()).unwrap();
    }
    let refused = rules.set_collection(3, "one-more", digests());
    assert!(matches!(refused, Err(RulesError::TooManyCollections)), "{refused:?}");
    // In the place of one that is there, or of another client, there is room.
    rules.set_collection(3, &name(5), digests()).unwrap();
    rules.set_collection(4, "one-more", digests()).unwrap();

    let asks = Condition::DigestIn(rules::model::File::Subject, vec![name(5)]);
    let rule = Rule { conditions: vec![asks], ..one_rule(1, Action::Allow) };
    rules.install(3, &RuleSet { rules: vec![rule] }).unwrap();
    let refused = rules.remove_collection(3, &name(5));
    assert!(matches!(&refused, Err(RulesError::InUse(used)) if *used == name(5)), "{refused:?}");
    rules.remove_collection(3, &name(6)).unwrap();
    rules.set_collection(3, "one-more", digests()).unwrap();
    rules.remove(3).unwrap();
    rules.remove_collection(3, &name(5)).unwrap();
}
