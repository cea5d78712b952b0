// SPDX-License-Identifier: Apache-2.0
//! Random rule sets and records out of a small world, so that rules often match.
#![allow(dead_code, reason = "each of the tests that share it uses a part")]

use std::collections::{BTreeMap, BTreeSet};

use rules::events::{EVENTS, Event};
use rules::model::{
    Action, Bits, Condition, File, FileIdentity, Number, Prefix, Process, ProcessKey, Rule, RuleSet,
};
use rules::record::{ACTOR, BODY_MAX, HEADER, RECORD_MAX, actor, file, header};
use rules::{Algorithm, Bindings, Collection, Context};

/// A small generator (SplitMix64), so that a number says which case it was.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    fn some<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = if self.once_in(3) { 1 + self.below(most) } else { 1 };
        (0..count).map(|_| make(self)).collect()
    }
}

pub(crate) const COLLECTIONS: [&str; 3] = ["one", "two", "three"];

pub(crate) fn process(random: &mut Random) -> ProcessKey {
    ProcessKey { pid: 1 + random.below(4) as u32, start: 1000 + random.below(2) }
}

/// One of those whose descendants are told apart.
fn root(random: &mut Random) -> ProcessKey {
    ProcessKey { pid: 100 + random.below(6) as u32, start: 7 }
}

fn identity(random: &mut Random) -> FileIdentity {
    FileIdentity { device: 8 << 20 | random.below(2), inode: 1 + random.below(4), version: None }
}

fn digest(random: &mut Random) -> [u8; 32] {
    let mut digest = [0x5a; 32];
    digest[random.below(2) as usize * 31] = random.below(6) as u8;
    digest
}

/// Lengths around the words that are hashed, and components that look like one another.
fn path(random: &mut Random) -> Vec<u8> {
    const COMPONENTS: [&str; 8] = ["a", "usr", "usr2", "bin", "sevenby", "eightbyt", "x.y", "é"];
    let mut path = Vec::new();
    let long = random.once_in(40);
    let depth = if long { 40 + random.below(60) } else { 1 + random.below(5) };
    for _ in 0..depth {
        path.extend(b"/");
        if random.once_in(60) {
            path.extend(std::iter::repeat_n(
                b'l',
                random.below(if long { 90 } else { 250 }) as usize + 1,
            ));
        } else {
            let some = if random.once_in(2) { 3 } else { COMPONENTS.len() };
            path.extend(random.pick(&COMPONENTS[..some]).bytes());
        }
    }
    path
}

fn prefix(random: &mut Random) -> Prefix {
    loop {
        let mut path = path(random);
        if random.once_in(2) {
            path.truncate(random.below(path.len() as u64 + 1) as usize);
        }
        if random.once_in(20) {
            path = b"/".to_vec();
        }
        if let Ok(prefix) = Prefix::new(&path) {
            return prefix;
        }
    }
}

fn name(random: &mut Random) -> Vec<u8> {
    let longest = "m".repeat(56);
    let names = ["ext4", "x", "eightbyt", "nine_byte", longest.as_str()];
    random.pick(&names).as_bytes().to_vec()
}

fn number(random: &mut Random, number: Number, event: &Event) -> u64 {
    match number {
        Number::Cgroup => 1 << 40 | random.below(3),
        Number::Own => {
            let _ = event;
            random.below(4)
        }
        _ => random.below(4),
    }
}

fn condition(random: &mut Random, events: &[&'static Event]) -> Option<Condition> {
    let all = |has: fn(&Event) -> bool| events.iter().all(|event| has(event));
    let which = random.pick(&[File::Executable, File::Subject]);
    let has_file = which == File::Executable || all(|event| event.file.is_some());
    let numbers = [
        Number::Uid,
        Number::Euid,
        Number::Gid,
        Number::Egid,
        Number::Cgroup,
        Number::UserNamespace,
        Number::PidNamespace,
        Number::MountNamespace,
        Number::NetNamespace,
        Number::Own,
    ];
    Some(match random.below(9) {
        0 => {
            let of = random.pick(&[Process::Actor, Process::Target]);
            if of == Process::Target && !all(|event| event.target.is_some()) {
                return None;
            }
            Condition::Process(of, random.some(3, process))
        }
        1 => Condition::DescendantOf(random.some(2, root)),
        2 if has_file => Condition::File(
            which,
            random.some(3, |random| {
                let version = random.once_in(4).then(|| random.below(2));
                FileIdentity { version, ..identity(random) }
            }),
        ),
        3 if has_file => Condition::Path(which, random.some(4, prefix)),
        4 if has_file && random.once_in(4) => Condition::PathUnknown(which),
        5 if has_file => Condition::DigestIn(
            which,
            random.some(2, |random| random.pick(&COLLECTIONS).to_owned()),
        ),
        6 => {
            let of = random.pick(&numbers);
            if of == Number::Own && !all(|event| event.own.is_some()) {
                return None;
            }
            Condition::Number(of, random.some(12, |random| number(random, of, events[0])))
        }
        7 if all(|event| event.name_at.is_some()) => Condition::Name(random.some(3, name)),
        8 => {
            let of = random.pick(&[
                Bits::Protection,
                Bits::Before,
                Bits::Flags,
                Bits::Record,
                Bits::Executable,
                Bits::File,
            ]);
            let has = match of {
                Bits::Protection => all(|event| event.protection.is_some()),
                Bits::Before => all(|event| event.before.is_some()),
                Bits::Flags => all(|event| event.flags.is_some()),
                Bits::File => all(|event| event.file.is_some()),
                Bits::Record | Bits::Executable => true,
            };
            if !has {
                return None;
            }
            Condition::Bits { of, mask: 1 + random.below(7) as u32, all: random.once_in(2) }
        }
        _ => return None,
    })
}

/// A set of `count` rules, all for the types that records here have.
pub(crate) fn rule_set(random: &mut Random, count: usize) -> RuleSet {
    let rules = (0..count).map(|at| {
        let deny = random.once_in(2);
        let denied: Vec<&Event> = EVENTS.iter().filter(|event| !deny || event.deniable).collect();
        let events = random.some(3, |random| random.pick(&denied));
        let action = match (deny, random.below(4)) {
            (true, _) => Action::Deny(random.pick(&[1, 13, 16])),
            (false, 0 | 1) => Action::Allow,
            (false, _) => Action::Notify,
        };
        let wanted = random.below(4);
        let conditions = (0..wanted).filter_map(|_| condition(random, &events)).collect();
        Rule {
            id: at as u32 * 3 + 1,
            events: events.iter().fold(0, |set, event| set | 1 << event.number),
            action,
            dry_run: random.once_in(6),
            conditions,
        }
    });
    RuleSet { rules: rules.collect() }
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    record[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_process(random: &mut Random, record: &mut [u8], at: usize) {
    let key = process(random);
    put(record, at, &key.pid.to_le_bytes());
    put(record, at + 8, &key.start.to_le_bytes());
}

/// A string in the tail: the reference at `at`, the bytes at the end of the record.
fn put_string(random: &mut Random, record: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if record.len() + bytes.len() + 8 > RECORD_MAX || random.once_in(20) {
        return;
    }
    let flags: u16 = if random.once_in(12) { 1 + random.below(2) as u16 } else { 0 };
    let offset = record.len() as u32;
    record.extend(bytes);
    put(record, at, &offset.to_le_bytes());
    put(record, at + 4, &(bytes.len() as u16).to_le_bytes());
    put(record, at + 6, &flags.to_le_bytes());
}

fn put_file(random: &mut Random, record: &mut Vec<u8>, at: usize) {
    let identity = identity(random);
    put(record, at + file::DEVICE, &identity.device.to_le_bytes());
    put(record, at + file::INODE, &identity.inode.to_le_bytes());
    put(record, at + file::VERSION, &random.below(2).to_le_bytes());
    put(record, at + file::FLAGS, &(random.below(16) as u32).to_le_bytes());
    put(record, at + file::DIGEST_ALGORITHM, &(random.below(3) as u32).to_le_bytes());
    put(record, at + file::DIGEST, &digest(random));
    let path = path(random);
    put_string(random, record, at + file::PATH, &path);
}

/// A record of some type, mostly whole.
pub(crate) fn record(random: &mut Random) -> Vec<u8> {
    let event = random.pick(&EVENTS.iter().collect::<Vec<_>>());
    record_of(random, event)
}

/// A record of this type, mostly whole.
pub(crate) fn record_of(random: &mut Random, event: &'static Event) -> Vec<u8> {
    let body = HEADER + ACTOR + if random.once_in(8) { 8 } else { 0 };
    let mut record = vec![0; body + event.size];
    for at in [actor::UID, actor::GID, actor::EUID, actor::EGID] {
        put(&mut record, HEADER + at, &(random.below(4) as u32).to_le_bytes());
    }
    for at in
        [actor::USER_NAMESPACE, actor::PID_NAMESPACE, actor::MOUNT_NAMESPACE, actor::NET_NAMESPACE]
    {
        put(&mut record, HEADER + at, &(random.below(4) as u32).to_le_bytes());
    }
    let cgroup = number(random, Number::Cgroup, event);
    put(&mut record, HEADER + actor::CGROUP, &cgroup.to_le_bytes());
    put_process(random, &mut record, HEADER + actor::PROCESS);
    put_file(random, &mut record, HEADER + actor::EXECUTABLE);
    if let Some(at) = event.target {
        put_process(random, &mut record, body + at);
    }
    if let Some(at) = event.file {
        put_file(random, &mut record, body + at);
    }
    let own = event.own.map(|(_, at)| at);
    for at in [own, event.protection, event.before, event.flags].into_iter().flatten() {
        put(&mut record, body + at, &(random.below(8) as u32).to_le_bytes());
    }
    if let Some(at) = event.name_at {
        let name = name(random);
        put_string(random, &mut record, body + at, &name);
    }
    record.resize(record.len().next_multiple_of(8), 0);
    let size = record.len() as u32;
    put(&mut record, header::SIZE, &size.to_le_bytes());
    put(&mut record, header::TYPE, &event.number.to_le_bytes());
    put(&mut record, header::BODY, &(body as u16).to_le_bytes());
    put(&mut record, header::FLAGS, &(random.below(32) as u32).to_le_bytes());
    if random.once_in(25) {
        damage(random, &mut record);
    }
    record
}

/// What no kernel writes, but what may not lead anybody out of the buffer.
fn damage(random: &mut Random, record: &mut [u8]) {
    match random.below(5) {
        0 => put(record, header::SIZE, &(random.below(1 << 15) as u32).to_le_bytes()),
        1 => put(record, header::BODY, &(random.below(BODY_MAX as u64 * 2) as u16).to_le_bytes()),
        2 => put(record, header::TYPE, &(random.next() as u16).to_le_bytes()),
        3 => {
            let at = HEADER + actor::EXECUTABLE + file::PATH;
            let reference = random.next() & 0xffff_0000_3fff;
            put(record, at, &reference.to_le_bytes());
        }
        _ => {
            let at = random.below(record.len() as u64 - 8) as usize;
            put(record, at, &random.next().to_le_bytes());
        }
    }
}

/// What is asked that is not in the record.
pub(crate) fn context(random: &mut Random) -> Context {
    let mut ancestors = BTreeSet::new();
    for _ in 0..random.below(3) {
        ancestors.insert(root(random));
    }
    Context { ancestors, collections: collections(random), observed: random.once_in(8) }
}

fn collections(random: &mut Random) -> BTreeMap<String, Collection> {
    let made = COLLECTIONS.iter().map(|name| {
        let digests = (0..random.below(6)).map(|_| digest(random)).collect();
        let algorithm = random.pick(&[Algorithm::Sha256, Algorithm::Sha512Truncated]);
        ((*name).to_owned(), Collection::new(algorithm, digests).unwrap())
    });
    made.collect()
}

/// Numbers for all that these sets name.
pub(crate) fn bindings(random: &mut Random) -> Bindings {
    let roots = (0..6).map(|at| (ProcessKey { pid: 100 + at, start: 7 }, at * 11));
    let collections = COLLECTIONS.iter().zip([0, 5, 15]);
    Bindings {
        collections: collections.map(|(name, number)| ((*name).to_owned(), number)).collect(),
        roots: roots.collect(),
        seed: random.next(),
        salt: random.next(),
        shards: 1 << random.below(5),
    }
}

/// The bits of the roots that the actor descends from.
pub(crate) fn lineage(context: &Context, bindings: &Bindings) -> u64 {
    let bits = context.ancestors.iter().filter_map(|key| bindings.roots.get(key));
    bits.fold(0, |bits, root| bits | 1 << root)
}
