// SPDX-License-Identifier: Apache-2.0
//! A decision takes about as long with ten thousand rules as with ten.

use rules::model::{Action, Condition, File, FileIdentity, Number, Prefix, ProcessKey, Rule};
use rules::{Algorithm, Collection, Record, RuleSet};

use crate::generate::Random;
use crate::ready;
use crate::trial::Trial;
use probes::Rules;

/// Rules of the kinds that products write, each for something else.
fn rules_of_all_kinds(count: u32) -> RuleSet {
    let path = |at: u32| {
        let text = format!("/opt/vendor{}/program{}/bin", at % 40, at / 40);
        vec![Prefix::new(text.as_bytes()).unwrap()]
    };
    let condition = |at: u32| match at % 5 {
        0 => Condition::Path(File::Subject, path(at)),
        1 => Condition::Path(File::Executable, path(at)),
        2 => {
            let identity = FileIdentity { device: 8 << 20, inode: at.into(), version: None };
            Condition::File(File::Subject, vec![identity])
        }
        3 => {
            let key = ProcessKey { pid: at, start: at.into() };
            Condition::Process(rules::model::Process::Actor, vec![key])
        }
        _ => Condition::Number(Number::Cgroup, vec![u64::from(at) << 32]),
    };
    let rule = |at: u32| Rule {
        id: at + 1,
        events: 1 << 1,
        action: if at.is_multiple_of(2) { Action::Deny(13) } else { Action::Notify },
        dry_run: false,
        conditions: vec![Condition::Number(Number::Uid, vec![0, 1000]), condition(at)],
    };
    RuleSet { rules: (0..count).map(rule).collect() }
}

/// As a set of rules, with a rule that asks a collection.
fn with_collection(mut set: RuleSet) -> RuleSet {
    set.rules.push(Rule {
        id: 1_000_000,
        events: 1 << 1,
        action: Action::Deny(13),
        dry_run: false,
        conditions: vec![Condition::DigestIn(File::Subject, vec!["bad".to_owned()])],
    });
    set
}

fn digests(count: u64) -> Collection {
    let random = &mut Random(7);
    let digest = |random: &mut Random| {
        let mut digest = [0; 32];
        for bytes in digest.chunks_exact_mut(8) {
            bytes.copy_from_slice(&random.next().to_le_bytes());
        }
        digest
    };
    let digests = (0..count).map(|_| digest(random)).collect();
    Collection::new(Algorithm::Sha256, digests).unwrap()
}

/// A program that is executed: the record as it usually is, with a digest in no collection.
fn exec_record() -> Vec<u8> {
    let mut record = vec![0u8; 80 + 232 + 136];
    let put_path = |record: &mut Vec<u8>, at: usize, path: &[u8]| {
        let offset = record.len() as u32;
        record[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        record[at + 4..at + 6].copy_from_slice(&(path.len() as u16).to_le_bytes());
        record.extend_from_slice(path);
    };
    put_path(&mut record, 80 + 120 + 88, b"/usr/lib/systemd/systemd-executor");
    put_path(&mut record, 312 + 88, b"/usr/lib/x86_64-linux-gnu/libexec/program");
    record[312 + 52] = 1;
    record[312 + 56] = 0x77;
    record.resize(record.len().next_multiple_of(8), 0);
    let size = record.len() as u32;
    record[..4].copy_from_slice(&size.to_le_bytes());
    record[6] = 1;
    record[8..10].copy_from_slice(&312u16.to_le_bytes());
    assert!(Record::new(&record).is_some());
    record
}

#[test]
#[ignore = "root: loads BPF"]
fn ten_thousand_rules_and_a_million_digests_take_little_longer_than_ten_rules() {
    let mut rules = Rules::load().unwrap();
    let mut trial = Trial::load(&rules);
    trial.put(&exec_record(), 0, false);
    let nothing = trial.time();
    println!("no rules: {nothing:.0} ns for a decision");
    let mut ten = 0.0;
    for count in [10, 10_000] {
        rules.install(0, &rules_of_all_kinds(count)).unwrap();
        let took = trial.time();
        if count == 10 {
            ten = took;
        }
        println!("{count} rules: {took:.0} ns, {:.2} times as long as ten", took / ten);
    }
    let million = digests(1_000_000);
    let begun = std::time::Instant::now();
    rules.set_collection(0, "bad", ready(&million)).unwrap();
    println!("a million digests: installed in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = std::time::Instant::now();
    rules.install(0, &with_collection(rules_of_all_kinds(10_000))).unwrap();
    println!("10000 rules: installed in {:.2} s", begun.elapsed().as_secs_f64());
    let all = trial.time();
    println!("10000 rules and a million digests: {all:.0} ns, {:.2} times ten rules", all / ten);
    for slot in 1..26 {
        rules.install(slot, &rules_of_all_kinds(100)).unwrap();
    }
    let clients = trial.time();
    println!("and 25 more clients with 100 rules each: {clients:.0} ns");
    assert!(all < ten * 4.0, "{all:.0} ns against {ten:.0} ns with ten rules");
    assert_eq!(trial.decide().outcome.error, 0);
}

#[test]
#[ignore = "root: loads BPF"]
fn a_million_digests_are_found_and_others_are_not() {
    let mut rules = Rules::load().unwrap();
    let mut trial = Trial::load(&rules);
    rules.set_collection(3, "bad", ready(&digests(1_000_000))).unwrap();
    rules.install(3, &with_collection(RuleSet::default())).unwrap();
    let random = &mut Random(7);
    let mut record = exec_record();
    for number in 0..2000u32 {
        for word in 0..4 {
            let at = 312 + 56 + word * 8;
            record[at..at + 8].copy_from_slice(&random.next().to_le_bytes());
        }
        trial.put(&record, 0, false);
        assert_eq!(trial.decide().outcome.error, 13, "digest {number}");
        record[312 + 56 + 31] ^= 1;
        trial.put(&record, 0, false);
        assert_eq!(trial.decide().outcome.error, 0, "digest {number}, changed");
    }
}
