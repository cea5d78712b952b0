// SPDX-License-Identifier: Apache-2.0
//! Which rules an event has to look at: each rule under one key, each key with a short list.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::abi::{self, Cell, Entry, Type, kind};
use crate::compile::{Bindings, bits_of, kind_of};
use crate::error::Refused;
use crate::events::{self, Event};
use crate::hash;
use crate::model::{Condition, Prefix, Rule, RuleSet};

/// Most entries of the index, all types of event and alternatives counted.
const ENTRIES: usize = 262_144;

/// A value that rules are found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Two words; the second 0 where one is enough.
    Words(u8, u64, u64),
    /// A name or a path prefix.
    Bytes(u8, Vec<u8>),
}

impl Key {
    fn kind(&self) -> u8 {
        match self {
            Self::Words(kind, ..) | Self::Bytes(kind, _) => *kind,
        }
    }

    fn tag(&self, seed: u64, event: &Event) -> u64 {
        match self {
            Self::Words(kind, first, second) => {
                hash::tag(seed, *kind, event.number, *first, *second)
            }
            Self::Bytes(kind, bytes) => {
                hash::tag(seed, *kind, event.number, hash::string(seed, bytes), 0)
            }
        }
    }
}

/// Numbers of rules in order: those that decide, and those that tell.
#[derive(Clone, Debug, Default)]
struct List {
    deciding: Vec<u32>,
    telling: Vec<u32>,
}

impl List {
    fn add(&mut self, rule: &Rule, number: u32) {
        let list = if rule.decides() { &mut self.deciding } else { &mut self.telling };
        if list.last() != Some(&number) {
            list.push(number);
        }
    }

    fn length(&self) -> usize {
        self.deciding.len() + self.telling.len()
    }
}

/// The index of a set.
#[derive(Debug)]
pub(crate) struct Index {
    /// By type of event.
    pub(crate) types: [Type; 64],
    /// The hash table, a power of two.
    pub(crate) cells: Vec<Cell>,
    pub(crate) probes: u32,
    pub(crate) salt: u64,
    /// All lists, one after the other.
    pub(crate) lists: Vec<u32>,
}

impl Index {
    pub(crate) fn of(set: &RuleSet, bindings: &Bindings) -> Result<Self, Refused> {
        let keys = chosen(set, bindings)?;
        let mut types = [Type::default(); 64];
        let mut lists = Vec::new();
        let mut entries = Vec::new();
        for event in &events::EVENTS {
            let of_type = collect(set, &keys, event);
            check(&of_type, event)?;
            let Some(slot) = types.get_mut(usize::from(event.number)) else { continue };
            *slot = describe(set, &of_type, event, bindings)?;
            let first = place(&mut lists, &of_type.always);
            (slot.first, slot.deciding, slot.telling) = first;
            let mut tags: BTreeMap<u64, List> = BTreeMap::new();
            for (key, list) in of_type.keyed {
                // Two keys with one hash share a list: whoever is looked at is verified.
                let merged = tags.entry(key.tag(bindings.seed, event)).or_default();
                merge(merged, list);
            }
            entries.extend(tags.into_iter().map(|(tag, list)| {
                let (first, deciding, telling) = place(&mut lists, &list);
                Entry { tag, first, deciding, telling }
            }));
            if entries.len() > ENTRIES {
                return Err(Refused::whole(format!(
                    "the rules have more than {ENTRIES} keys: fewer alternatives or types of event"
                )));
            }
        }
        let (cells, probes, salt) = table(&entries, bindings.salt)?;
        Ok(Self { types, cells, probes, salt, lists })
    }
}

/// The rules for one type of event.
#[derive(Debug, Default)]
struct OfType {
    keyed: HashMap<Key, List>,
    always: List,
}

fn collect(set: &RuleSet, keys: &[Vec<Key>], event: &Event) -> OfType {
    let mut of_type = OfType::default();
    for ((number, rule), keys) in (0u32..).zip(&set.rules).zip(keys) {
        if rule.events >> event.number & 1 == 0 {
            continue;
        }
        if keys.is_empty() {
            of_type.always.add(rule, number);
        }
        for key in keys {
            of_type.keyed.entry(key.clone()).or_default().add(rule, number);
        }
    }
    of_type
}

fn describe(
    set: &RuleSet,
    of_type: &OfType,
    event: &Event,
    bindings: &Bindings,
) -> Result<Type, Refused> {
    let mut described = Type::default();
    for key in of_type.keyed.keys() {
        described.keys |= 1 << key.kind();
        if let Key::Words(kind::LINEAGE, root, _) = key {
            described.lineage |= 1 << root;
        }
    }
    for rule in set.rules.iter().filter(|rule| rule.events >> event.number & 1 == 1) {
        described.tells |= u32::from(!rule.decides());
        for condition in &rule.conditions {
            let kind = kind_of(condition);
            if [kind::EXECUTABLE_DIGEST, kind::FILE_DIGEST].contains(&kind) {
                let bits = u16::try_from(bits_of(condition, bindings)?).unwrap_or_default();
                if kind == kind::FILE_DIGEST {
                    described.file_collections |= bits;
                } else {
                    described.actor_collections |= bits;
                }
            }
        }
    }
    Ok(described)
}

/// Appends a list; where it begins and how long its two halves are.
fn place(lists: &mut Vec<u32>, list: &List) -> (u32, u16, u16) {
    let first = u32::try_from(lists.len()).unwrap_or(u32::MAX);
    lists.extend(&list.deciding);
    lists.extend(&list.telling);
    let short = |list: &[u32]| u16::try_from(list.len()).unwrap_or(u16::MAX);
    (first, short(&list.deciding), short(&list.telling))
}

fn merge(into: &mut List, list: List) {
    for (into, from) in [(&mut into.deciding, list.deciding), (&mut into.telling, list.telling)] {
        into.extend(from);
        into.sort_unstable();
        into.dedup();
    }
}

/// The most rules that one event of a type can have to look at, if everything comes together.
fn check(of_type: &OfType, event: &Event) -> Result<(), Refused> {
    let mut worst: [usize; 32] = [0; 32];
    let mut raise = |kind: u8, length: usize, adds: bool| {
        if let Some(worst) = worst.get_mut(usize::from(kind)) {
            *worst = if adds { *worst + length } else { length.max(*worst) };
        }
    };
    for (key, list) in &of_type.keyed {
        match key {
            // A path has one prefix of each length: all above this one can be there too.
            Key::Bytes(kind @ (kind::EXECUTABLE_PATH | kind::FILE_PATH), bytes) => {
                let above = above(bytes).map(|prefix| Key::Bytes(*kind, prefix.to_owned()));
                let lists = above.filter_map(|key| of_type.keyed.get(&key));
                raise(*kind, list.length() + lists.map(List::length).sum::<usize>(), false);
            }
            // There can be many of these in one event.
            Key::Words(kind @ kind::LINEAGE.., ..) => raise(*kind, list.length(), true),
            Key::Words(kind, ..) | Key::Bytes(kind, _) => raise(*kind, list.length(), false),
        }
    }
    let most = of_type.always.length() + worst.iter().sum::<usize>();
    if most > abi::CANDIDATES {
        return Err(Refused::whole(format!(
            "one {} could have to look at {most} rules, and {} is the limit: {} of them have no \
             condition by which they can be found; give rules conditions that fewer others share, \
             such as a path, a file or a process, or put digests into a collection",
            event.name,
            abi::CANDIDATES,
            of_type.always.length(),
        )));
    }
    Ok(())
}

/// The prefixes above one, the root among them, itself not.
fn above(prefix: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = prefix.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.filter_map(|(at, _)| prefix.get(..at))
}

/// The key of each rule: the values of the condition that the fewest others share.
fn chosen(set: &RuleSet, bindings: &Bindings) -> Result<Vec<Vec<Key>>, Refused> {
    let mut shared: HashMap<Key, usize> = HashMap::new();
    let mut offers = Vec::with_capacity(set.rules.len());
    for rule in &set.rules {
        let offered = rule.conditions.iter().map(|condition| keys_of(condition, bindings));
        let offered: Vec<Vec<Key>> = offered.collect::<Result<_, _>>()?;
        for key in offered.iter().flatten() {
            *shared.entry(key.clone()).or_default() += 1;
        }
        offers.push(offered);
    }
    let cost = |keys: &Vec<Key>| {
        let sharing = keys.iter().filter_map(|key| shared.get(key)).max().copied();
        (sharing.unwrap_or_default(), rank(keys), keys.len())
    };
    let best = offers.into_iter().map(|offered| {
        offered.into_iter().filter(|keys| !keys.is_empty()).min_by_key(cost).unwrap_or_default()
    });
    Ok(best.collect())
}

/// Which kind is taken where as many share either: what fewer events have comes first.
fn rank(keys: &[Key]) -> usize {
    const ORDER: [u8; 20] = [
        kind::ACTOR,
        kind::FILE,
        kind::EXECUTABLE,
        kind::TARGET,
        kind::FILE_DIGEST,
        kind::NAME,
        kind::EXECUTABLE_DIGEST,
        kind::FILE_PATH,
        kind::EXECUTABLE_PATH,
        kind::LINEAGE,
        kind::CGROUP,
        kind::NET_NAMESPACE,
        kind::MOUNT_NAMESPACE,
        kind::PID_NAMESPACE,
        kind::USER_NAMESPACE,
        kind::UID,
        kind::GID,
        kind::EUID,
        kind::EGID,
        kind::OWN,
    ];
    // The root is a prefix of every path.
    let is_root = |key: &Key| matches!(key, Key::Bytes(_, bytes) if bytes.is_empty());
    let Some(first) = keys.first() else { return usize::MAX };
    if keys.iter().any(is_root) {
        return ORDER.len();
    }
    ORDER.iter().position(|kind| *kind == first.kind()).unwrap_or(ORDER.len())
}

/// The values that a condition can be found by; none where it cannot.
///
/// One event has at most one of them, or the same rule would be met twice.
fn keys_of(condition: &Condition, bindings: &Bindings) -> Result<Vec<Key>, Refused> {
    let kind = kind_of(condition);
    let words = |first, second| Key::Words(kind, first, second);
    let unique = |keys: Vec<Key>| {
        let mut seen = HashSet::new();
        keys.into_iter().filter(|key| seen.insert(key.clone())).collect()
    };
    Ok(match condition {
        Condition::Process(_, keys) => {
            unique(keys.iter().map(|key| words(key.pid.into(), key.start)).collect())
        }
        Condition::File(_, files) => {
            unique(files.iter().map(|file| words(file.device, file.inode)).collect())
        }
        Condition::Number(_, values) => {
            unique(values.iter().map(|value| words(*value, 0)).collect())
        }
        Condition::Name(names) => {
            unique(names.iter().map(|name| Key::Bytes(kind, name.clone())).collect())
        }
        Condition::Path(_, prefixes) => {
            let nests =
                |one: &Prefix| prefixes.iter().any(|other| other.covers(&one.0) && other != one);
            if prefixes.iter().any(nests) {
                return Ok(Vec::new());
            }
            unique(prefixes.iter().map(|prefix| Key::Bytes(kind, prefix.0.clone())).collect())
        }
        Condition::DescendantOf(_) | Condition::DigestIn(..) => {
            let bits = bits_of(condition, bindings)?;
            if bits.count_ones() == 1 {
                vec![words(bits.trailing_zeros().into(), 0)]
            } else {
                Vec::new()
            }
        }
        Condition::PathUnknown(_) | Condition::Bits { .. } => Vec::new(),
    })
}

/// The hash table of the entries: four in a cell, at most half full.
fn table(entries: &[Entry], salt: u64) -> Result<(Vec<Cell>, u32, u64), Refused> {
    let least = (entries.len() / 2).max(1).next_power_of_two();
    let attempts =
        (0..12u32).map(|attempt| (least << (attempt / 4), hash::mix(salt, attempt.into())));
    let built = attempts.into_iter().find_map(|(cells, salt)| filled(entries, cells, salt));
    built.ok_or_else(|| Refused::whole("no table was found for the keys of the rules".to_owned()))
}

fn filled(entries: &[Entry], cells: usize, salt: u64) -> Option<(Vec<Cell>, u32, u64)> {
    let mut slots = vec![[Entry::default(); 4]; cells];
    let mut probes = 1;
    for entry in entries {
        let start = usize::try_from(hash::cell_of(salt, entry.tag) & (cells as u64 - 1)).ok()?;
        let (distance, slot) = (0..abi::PROBES).find_map(|distance| {
            let at = (start + distance as usize) & (cells - 1);
            let free = slots.get(at)?.iter().position(|entry| entry.tag == 0)?;
            Some((distance, (at, free)))
        })?;
        *slots.get_mut(slot.0)?.get_mut(slot.1)? = *entry;
        probes = probes.max(distance + 1);
    }
    let cells = slots.into_iter().map(|entries| zerocopy::transmute!(entries)).collect();
    Some((cells, probes, salt))
}
