// SPDX-License-Identifier: Apache-2.0
//! Processes whose descendants are told apart: their numbers, and the marks of tasks.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::{Iter, Link, MapCore, MapFlags, MapHandle, Object};
use rules::abi;
use rules::model::ProcessKey;

use crate::error::ProbeError;
use crate::events::shared::{Plain, ProcessKey as Named};
use crate::mapping::Mapping;
use crate::object::{self, Kind, Own};
use crate::pins::{self, Pins};

use super::error::RulesError;
use super::handle;

/// `struct rules_marking` of bpf/lib/rules_abi.h.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Marking {
    pub(super) pid: u32,
    pub(super) root: u32,
    pub(super) start: u64,
    pub(super) clear: u32,
    pub(super) reserved: u32,
}

/// Programs that do the same: bpf/lib/again.h.
const INHERIT: [&str; 3] = ["rules_inherit", "rules_inherit_again", "rules_inherit_last"];

/// The marks of tasks, and whose they are.
const MARKS: &str = "rules_lineages";
const ROOTS: &str = "rules_roots";

/// The maps of the last process below this directory that had marks, if they are laid out as here.
pub(super) fn left(pins: &Path) -> Option<[(&'static str, MapHandle); 2]> {
    // struct rules_lineage has two words.
    let maps = [(MARKS, 16), (ROOTS, size_of::<Named>())];
    let [marks, names] = Pins::maps_of_older(pins, maps.map(|(name, _)| name))?;
    let alike = [&marks, &names]
        .into_iter()
        .zip(maps)
        .all(|(map, (_, size))| map.value_size() as usize == size);
    alike.then_some([(MARKS, marks), (ROOTS, names)])
}

#[derive(Debug)]
pub(super) struct Lineage {
    object: Object,
    marks: MapHandle,
    names: MapHandle,
    /// Mark new tasks as long as they are there, which they are while there are roots.
    inherit: Option<([Link; 3], Own)>,
    mark: Link,
    marking: Mapping,
    roots: BTreeMap<ProcessKey, Root>,
}

#[derive(Clone, Copy, Debug)]
struct Root {
    number: u32,
    /// Slots of the clients whose rules ask for it.
    clients: u64,
    /// An earlier process marked it, and nobody has asked for it yet.
    left: bool,
}

impl Lineage {
    /// Of the object, which has been loaded. What marks new tasks is attached with the first root.
    pub(super) fn attach(object: Object, own: &mut Own) -> Result<Self, ProbeError> {
        let marking = handle(&object, "rules_marking")?;
        own.add(Kind::Map, marking.as_fd())?;
        let length = size_of::<Marking>();
        let marking = Mapping::new(marking.as_fd(), length, true).map_err(|error| {
            ProbeError::Failed { what: "mapping a map of the rules", reason: error.to_string() }
        })?;
        for program in object.progs() {
            own.add(Kind::Program, program.as_fd())?;
        }
        let mark = link(&object, "rules_mark", own)?;
        let (marks, names) = (handle(&object, MARKS)?, handle(&object, ROOTS)?);
        own.add(Kind::Map, names.as_fd())?;
        let mut roots = BTreeMap::new();
        for number in 0..abi::ROOTS as u32 {
            let what = "reading whose descendants are marked";
            let named = || names.lookup(&number.to_ne_bytes(), MapFlags::ANY);
            let named = object::with_libbpf(what, named)?.unwrap_or_default();
            if let Some(Named { pid: pid @ 1.., start, .. }) = Named::from_bytes(&named) {
                let key = ProcessKey { pid, start };
                roots.insert(key, Root { number, clients: 0, left: true });
            }
        }
        Ok(Self { object, marks, names, inherit: None, mark, marking, roots })
    }

    /// Writes down whose a number is; nobody's without a key.
    fn name(&self, number: u32, key: Option<ProcessKey>) -> Result<(), ProbeError> {
        let (pid, start) = key.map_or((0, 0), |key| (key.pid, key.start));
        let named = Named { pid, reserved: 0, start };
        object::with_libbpf("writing down whose descendants are marked", || {
            self.names.update(&number.to_ne_bytes(), named.bytes(), MapFlags::ANY)
        })
    }

    /// The number of a root.
    pub(super) fn root(&self, key: ProcessKey) -> Option<u32> {
        self.roots.get(&key).map(|root| root.number)
    }

    /// Numbers for these roots and this client, besides those it has; new ones are marked.
    pub(super) fn take(
        &mut self,
        keys: &[ProcessKey],
        slot: u32,
    ) -> Result<BTreeMap<ProcessKey, u32>, RulesError> {
        if !keys.is_empty() && self.inherit.is_none() {
            let mut own = Own::default();
            let [first, again, last] = INHERIT.map(|name| link(&self.object, name, &mut own));
            self.inherit = Some(([first?, again?, last?], own));
        }
        let mut numbers = BTreeMap::new();
        for key in keys {
            let number = match self.roots.get_mut(key) {
                Some(root) => {
                    root.clients |= 1 << slot;
                    root.left = false;
                    root.number
                }
                None => self.add(*key, slot)?,
            };
            numbers.insert(*key, number);
        }
        Ok(numbers)
    }

    fn add(&mut self, key: ProcessKey, slot: u32) -> Result<u32, RulesError> {
        let used = self.roots.values().fold(0u64, |used, root| used | 1 << root.number);
        let number = used.trailing_ones();
        if number as usize >= abi::ROOTS {
            return Err(RulesError::TooManyRoots);
        }
        self.name(number, Some(key))?;
        self.roots.insert(key, Root { number, clients: 1 << slot, left: false });
        let marking =
            Marking { pid: key.pid, root: number, start: key.start, ..Marking::default() };
        // Twice: what is made meanwhile has the mark that its parent had.
        self.walk(marking)?;
        self.walk(marking)?;
        Ok(number)
    }

    /// Leaves a client with these roots only; those that nobody asks for are forgotten.
    pub(super) fn keep(&mut self, keys: &[ProcessKey], slot: u32) -> Result<(), ProbeError> {
        for (key, root) in &mut self.roots {
            if !keys.contains(key) {
                root.clients &= !(1 << slot);
            }
        }
        self.forget(|root| root.clients == 0 && !root.left)
    }

    /// Forgets what an earlier process marked and nobody has asked for.
    pub(super) fn forget_the_rest(&mut self) -> Result<(), ProbeError> {
        self.forget(|root| root.left)
    }

    fn forget(&mut self, unused: impl Fn(&Root) -> bool) -> Result<(), ProbeError> {
        let unused = self.roots.iter().filter(|(_, root)| unused(root));
        let unused: Vec<_> = unused.map(|(key, root)| (*key, *root)).collect();
        for (key, root) in unused {
            // The number is free again when nobody has its mark, also not by inheritance meanwhile.
            let marking = Marking { root: root.number, clear: 1, ..Marking::default() };
            self.walk(marking)?;
            self.walk(marking)?;
            self.name(root.number, None)?;
            self.roots.remove(&key);
        }
        if self.roots.is_empty() {
            let mut links = self.inherit.iter_mut().flat_map(|(links, _)| links);
            // One whose file stays would go on marking.
            links.try_for_each(pins::let_go)?;
            self.inherit = None;
        }
        Ok(())
    }

    /// Has what marks new tasks, and the marks, stay when this process ends, if there are any.
    pub(super) fn pin(&mut self, pins: &Pins) -> Result<(), ProbeError> {
        let links = self.inherit.iter_mut().flat_map(|(links, _)| links);
        links.zip(INHERIT).try_for_each(|(link, name)| pins.keep(link, name))?;
        for (map, name) in [(&mut self.marks, MARKS), (&mut self.names, ROOTS)] {
            match self.roots.is_empty() {
                true => pins.let_map_go(name)?,
                false => pins.keep_map(map, name)?,
            }
        }
        Ok(())
    }

    /// Goes through all tasks.
    fn walk(&mut self, marking: Marking) -> Result<(), ProbeError> {
        // SAFETY: the mapping holds one of them, page-aligned; programs read it only during the walk
        // below, which needs `self` unshared.
        unsafe { self.marking.start().cast::<Marking>().as_ptr().write_volatile(marking) };
        let what = "marking descendants";
        let mut iterator = object::with_libbpf(what, || Iter::new(&self.mark))?;
        let mut nothing = Vec::new();
        let read = iterator.read_to_end(&mut nothing);
        read.map_err(|error| ProbeError::Failed { what, reason: error.to_string() })?;
        Ok(())
    }
}

/// Attaches a program of the object.
fn link(object: &Object, name: &'static str, own: &mut Own) -> Result<Link, ProbeError> {
    object::link(object, name, "attaching a program that marks descendants", own)
}
