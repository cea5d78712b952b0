// SPDX-License-Identifier: Apache-2.0
//! Rules in the kernel: sets and collections are put into the maps of bpf/rules.bpf.c, whole or not
//! at all.

mod cells;
mod error;
mod events;
#[cfg(test)]
mod layout;
mod lineage;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};
use rules::model::{Condition, ProcessKey};
use rules::{Bindings, Collection, RuleSet, abi, compile};

use crate::error::ProbeError;
use crate::kernel_types;
use crate::object::{self, Kind, Own};
use crate::pins::Pins;
use cells::Cells;
pub use error::RulesError;
use events::Events;
use lineage::Lineage;

/// bpf/rules.bpf.c, built.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rules.bpf.o"));

/// The maps that every object which decides by rules has to have in common with this one.
const SHARED: [&str; 4] = ["rules_sets", "rules_collections", "rules_events", "rules_lineages"];

/// What a rule did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// The client's number of the rule.
    pub id: u32,
    /// How often it matched, with no earlier rule of its client having decided.
    pub matches: u64,
    /// How often it denied.
    pub denies: u64,
}

/// The rules of all clients, as the kernel decides by them. Clients are slots from 0 to 63.
///
/// Nothing here decides anything by itself: the programs on the hooks do, which are loaded with the
/// same maps ([`Rules::share`]). As this is dropped, the maps stay as long as such a program does.
#[derive(Debug)]
pub struct Rules {
    shared: Vec<(&'static str, MapHandle)>,
    sets: MapHandle,
    collections: MapHandle,
    events: Events,
    lineage: Lineage,
    seed: u64,
    shards: u32,
    clients: Vec<Client>,
    _own: Own,
}

/// What a client has installed.
#[derive(Debug, Default)]
struct Client {
    set: Option<Set>,
    /// Types that its rules are not looked at for.
    withheld: u64,
    /// By number.
    collections: [Option<Named>; abi::COLLECTIONS],
}

#[derive(Debug)]
struct Set {
    cells: Cells,
    events: u64,
    ids: Vec<u32>,
    /// Names of the collections that it asks.
    names: Vec<String>,
    roots: Vec<ProcessKey>,
}

#[derive(Debug)]
struct Named {
    name: String,
    /// Kept, so that the guard knows it for ours.
    _cells: Cells,
}

impl Rules {
    /// Makes the maps, all empty, and begins to mark what descends from whom.
    ///
    /// # Errors
    /// When the kernel refuses BPF, or lacks what is needed (5.17 and later have it).
    pub fn load() -> Result<Self, ProbeError> {
        Self::load_after(None)
    }

    /// The same, with the marks that an earlier process left below this directory ([`Pins`]).
    pub(crate) fn load_after(pins: Option<&Path>) -> Result<Self, ProbeError> {
        let what = "loading the maps of the rules";
        let left = pins.and_then(lineage::left);
        let object = object::with_libbpf(what, || {
            let mut open = kernel_types::builder()?.open_memory(OBJECT)?;
            for (name, map) in left.iter().flatten() {
                if let Some(mut ours) = open.maps_mut().find(|ours| ours.name() == *name) {
                    ours.reuse_fd(map.as_fd())?;
                }
            }
            open.load()
        })?;
        let shared = SHARED.iter().map(|name| Ok((*name, handle(&object, name)?)));
        let shared = shared.collect::<Result<Vec<_>, ProbeError>>()?;
        let mut own = Own::default();
        for (_, map) in &shared {
            own.add(Kind::Map, map.as_fd())?;
        }
        let seed = random();
        let events = Events::new(&handle(&object, "rules_events")?, seed)?;
        Ok(Self {
            shared,
            sets: handle(&object, "rules_sets")?,
            collections: handle(&object, "rules_collections")?,
            events,
            lineage: Lineage::attach(object, &mut own)?,
            seed,
            shards: shards(),
            clients: std::iter::repeat_with(Client::default).take(abi::CLIENTS).collect(),
            _own: own,
        })
    }

    /// Gives an object that has bpf/lib/rules.h in it these maps, before it is loaded.
    ///
    /// # Errors
    /// What libbpf says.
    pub fn share(&self, object: &mut OpenObject) -> libbpf_rs::Result<()> {
        for mut map in object.maps_mut() {
            let ours = self.shared.iter().find(|(name, _)| map.name() == *name);
            if let Some((_, ours)) = ours {
                map.reuse_fd(ours.as_fd())?;
            }
        }
        Ok(())
    }

    /// Puts a client's rules in the place of those it had. Each event is decided by the old ones or by
    /// the new ones; where this fails, the old ones stay.
    ///
    /// # Errors
    /// When the set names a collection that the client has not, would be too slow, has more roots
    /// than there are, or the kernel refuses.
    pub fn install(&mut self, slot: u32, set: &RuleSet) -> Result<(), RulesError> {
        let made = self.make(slot, set).and_then(|made| {
            // More than there are is harmless, less would be a client that is passed over.
            self.events.add(slot, made.events & !self.withheld(slot));
            update(&self.sets, slot, &made.cells).map(|()| made)
        });
        let client = self.client(slot)?;
        let refused = match made {
            Ok(made) => {
                client.set = Some(made);
                None
            }
            Err(error) => Some(error),
        };
        let stays = client.set.as_ref();
        let (events, roots) = stays.map(|set| (set.events, set.roots.clone())).unwrap_or_default();
        self.events.keep(slot, events & !self.withheld(slot));
        self.lineage.keep(&roots, slot)?;
        refused.map_or(Ok(()), Err)
    }

    /// The types that a client has rules for.
    pub(crate) fn of(&self, slot: u32) -> u64 {
        let client = self.clients.get(slot as usize);
        client.and_then(|client| client.set.as_ref()).map_or(0, |set| set.events)
    }

    fn withheld(&self, slot: u32) -> u64 {
        self.clients.get(slot as usize).map_or(0, |client| client.withheld)
    }

    /// Has a client's rules looked at for these types only, those that come later too.
    ///
    /// # Errors
    /// When there is no such slot.
    pub(crate) fn allow(&mut self, slot: u32, types: u64) -> Result<(), RulesError> {
        let client = self.client(slot)?;
        client.withheld = !types;
        let events = client.set.as_ref().map_or(0, |set| set.events) & types;
        self.events.add(slot, events);
        self.events.keep(slot, events);
        Ok(())
    }

    /// A set in a map of its own, which no event sees yet.
    fn make(&mut self, slot: u32, set: &RuleSet) -> Result<Set, RulesError> {
        let names = collections_of(set);
        let roots = roots_of(set);
        let numbers = self.client(slot)?.numbers();
        if let Some(name) = names.iter().find(|name| !numbers.contains_key(*name)) {
            return Err(RulesError::NoCollection(name.clone()));
        }
        let bindings = Bindings {
            collections: numbers,
            roots: self.lineage.take(&roots, slot)?,
            seed: self.seed,
            salt: random(),
            shards: self.shards,
        };
        let compiled = compile(set, &bindings).map_err(RulesError::Refused)?;
        let cells = Cells::new("rules_set", &compiled.cells)?;
        Ok(Set { cells, events: compiled.events, ids: compiled.ids, names, roots })
    }

    /// Takes a client's rules away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, slot: u32) -> Result<(), RulesError> {
        if self.client(slot)?.set.is_none() {
            return Ok(());
        }
        delete(&self.sets, slot)?;
        self.events.keep(slot, 0);
        self.client(slot)?.set = None;
        self.lineage.keep(&[], slot)?;
        Ok(())
    }

    /// Takes all that a client has away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn remove_all(&mut self, slot: u32) -> Result<(), ProbeError> {
        let of_kernel = |error| match error {
            RulesError::Kernel(error) => error,
            other => ProbeError::Failed { what: "removing rules", reason: other.to_string() },
        };
        self.remove(slot).map_err(of_kernel)?;
        let names = self.client(slot).map_err(of_kernel)?.numbers();
        names.keys().try_for_each(|name| self.remove_collection(slot, name).map_err(of_kernel))
    }

    /// The types that some client has rules for which are looked at.
    #[must_use]
    pub fn types(&self) -> u64 {
        let of = |client: &Client| client.set.as_ref().map(|set| set.events & !client.withheld);
        self.clients.iter().filter_map(of).fold(0, |types, events| types | events)
    }

    /// Puts a collection in the place of the one of this name, or beside the others of the client.
    /// An event looks into the old one or into the new one.
    ///
    /// # Errors
    /// When the client has 16 of other names, or the kernel refuses.
    pub fn set_collection(
        &mut self,
        slot: u32,
        name: &str,
        ReadyCollection(cells): ReadyCollection,
    ) -> Result<(), RulesError> {
        let client = self.client(slot)?;
        let mut numbers = (0u32..).zip(&client.collections);
        let same = |entry: &Option<Named>| entry.as_ref().is_some_and(|entry| entry.name == name);
        let found = numbers.clone().find(|(_, entry)| same(entry));
        let place = found.or_else(|| numbers.find(|(_, entry)| entry.is_none()));
        let (number, _) = place.ok_or(RulesError::TooManyCollections)?;
        update(&self.collections, collection_key(slot, number), &cells)?;
        if let Some(entry) = self.client(slot)?.collections.get_mut(number as usize) {
            *entry = Some(Named { name: name.to_owned(), _cells: cells });
        }
        Ok(())
    }

    /// Takes a collection away that no installed rule asks.
    ///
    /// # Errors
    /// When a rule asks it, there is none, or the kernel refuses.
    pub fn remove_collection(&mut self, slot: u32, name: &str) -> Result<(), RulesError> {
        let client = self.client(slot)?;
        let asked = client.set.as_ref().is_some_and(|set| set.names.iter().any(|n| n == name));
        if asked {
            return Err(RulesError::InUse(name.to_owned()));
        }
        let number = client.numbers().get(name).copied();
        let number = number.ok_or_else(|| RulesError::NoCollection(name.to_owned()))?;
        delete(&self.collections, collection_key(slot, number))?;
        if let Some(entry) = self.client(slot)?.collections.get_mut(number as usize) {
            *entry = None;
        }
        Ok(())
    }

    /// What each rule of a client did since its set was installed, in order.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn counts(&self, slot: u32) -> Result<Vec<RuleCount>, RulesError> {
        let client = self.clients.get(slot as usize).ok_or(RulesError::NoClient(slot))?;
        let Some(set) = &client.set else { return Ok(Vec::new()) };
        let counts = (0..).zip(&set.ids).map(|(number, id)| {
            let abi::Counter { matches, denies } = set.cells.counter(number);
            RuleCount { id: *id, matches, denies }
        });
        Ok(counts.collect())
    }

    /// Forgets the marks that were left and that no rule has asked for.
    pub(crate) fn forget_the_rest(&mut self) -> Result<(), ProbeError> {
        self.lineage.forget_the_rest()
    }

    /// Has new tasks marked also when this process ends, as long as some rule asks for descendants.
    pub(crate) fn pin(&mut self, pins: &Pins) -> Result<(), ProbeError> {
        self.lineage.pin(pins)
    }

    /// Which root a process is for the marks of tasks, if some rule asks for its descendants.
    #[must_use]
    pub fn root(&self, key: ProcessKey) -> Option<u32> {
        self.lineage.root(key)
    }

    fn client(&mut self, slot: u32) -> Result<&mut Client, RulesError> {
        self.clients.get_mut(slot as usize).ok_or(RulesError::NoClient(slot))
    }
}

/// A collection in a map of its own, which nobody asks yet. Of a million digests it takes a fraction of a second
/// to make, and any thread can.
#[derive(Debug)]
pub struct ReadyCollection(Cells);

impl ReadyCollection {
    /// Of these digests.
    ///
    /// # Errors
    /// When too many of them fall together, as only made-up ones do, or the kernel refuses.
    pub fn new(collection: &Collection) -> Result<Self, RulesError> {
        let cells = collection.compile(random()).map_err(RulesError::Refused)?;
        Ok(Self(Cells::new("rules_digests", &cells)?))
    }
}

impl Client {
    /// The numbers of its collections.
    fn numbers(&self) -> BTreeMap<String, u32> {
        let named = (0u32..).zip(&self.collections);
        named.filter_map(|(number, entry)| Some((entry.as_ref()?.name.clone(), number))).collect()
    }
}

fn collections_of(set: &RuleSet) -> Vec<String> {
    let conditions = set.rules.iter().flat_map(|rule| &rule.conditions);
    let mut names: Vec<String> = conditions
        .filter_map(|condition| match condition {
            Condition::DigestIn(_, names) => Some(names.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn roots_of(set: &RuleSet) -> Vec<ProcessKey> {
    let conditions = set.rules.iter().flat_map(|rule| &rule.conditions);
    let mut keys: Vec<ProcessKey> = conditions
        .filter_map(|condition| match condition {
            Condition::DescendantOf(keys) => Some(keys.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A descriptor of our own for a map of the object.
fn handle(object: &Object, name: &str) -> Result<MapHandle, ProbeError> {
    object::map(object, name, "finding a map of the rules")
}

fn collection_key(slot: u32, number: u32) -> u32 {
    slot * abi::COLLECTIONS as u32 + number
}

fn update(outer: &MapHandle, key: u32, inner: &Cells) -> Result<(), RulesError> {
    let descriptor = inner.as_fd().as_raw_fd().to_ne_bytes();
    let what = "replacing a map of the rules";
    object::with_libbpf(what, || outer.update(&key.to_ne_bytes(), &descriptor, MapFlags::ANY))
        .map_err(RulesError::Kernel)
}

fn delete(outer: &MapHandle, key: u32) -> Result<(), RulesError> {
    object::with_libbpf("removing a map of the rules", || outer.delete(&key.to_ne_bytes()))
        .map_err(RulesError::Kernel)
}

/// Counters for so many processors that few meet, and no more.
fn shards() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(processors.next_power_of_two()).unwrap_or(16).clamp(1, 16)
}

/// The standard library's hashes are keyed with random numbers of the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
