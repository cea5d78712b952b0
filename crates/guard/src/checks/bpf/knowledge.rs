// SPDX-License-Identifier: Apache-2.0
//! Who stands behind a program and what it can do: what stays the same as long as it lives, found
//! out once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::objects::{Inventory, Program};
use super::{calls, holders, objects};
use crate::check::System;
use crate::recover::Recovered;

/// What is known of a program.
#[derive(Clone, Debug)]
struct Known {
    reaches: Vec<(&'static str, &'static str)>,
    owner: String,
}

/// What is known of all programs that were seen.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// By id and address: an id may be used again by another program.
    known: BTreeMap<(u32, u64), Known>,
}

impl Knowledge {
    /// Looks at the programs that were not there before, and forgets those that are gone.
    pub fn update(
        &mut self,
        system: &System<'_>,
        recovered: &mut Recovered,
        inventory: &Inventory,
    ) {
        let kernel = &system.kernel;
        let key = |program: &Program| (program.id, program.address);
        let present: BTreeSet<(u32, u64)> = inventory.all().map(key).collect();
        self.known.retain(|key, _| present.contains(key));
        // What the kernel keeps private to its init is only counted.
        let new: Vec<&Program> = inventory
            .all()
            .filter(|program| !program.private && !self.known.contains_key(&key(program)))
            .collect();
        if new.is_empty() {
            return;
        }
        // Who attached a program may hold nothing but its link.
        let addresses: HashSet<u64> = new.iter().map(|program| program.address).collect();
        // That the table of links cannot be read the check of BPF says.
        let mut links = objects::linked(kernel, recovered).unwrap_or_default();
        links.retain(|(_, program)| addresses.contains(program));
        let objects = addresses.into_iter().chain(links.iter().map(|(link, _)| *link)).collect();
        let tasks = recovered
            .data_symbol(kernel, "init_task")
            .ok()
            .and_then(|first| crate::checks::tasks::processes(kernel, first.address).ok());
        let holders = holders::holders(kernel, &tasks.unwrap_or_default(), &objects);
        for program in new {
            let mut owner = match program.uid(kernel) {
                Some(uid) => format!("loaded by user {uid}"),
                None => "loaded by an unknown user".to_owned(),
            };
            let mut its_links = links.iter().filter(|(_, of)| *of == program.address);
            let by_link = || its_links.find_map(|(link, _)| holders.get(link));
            match holders.get(&program.address).or_else(by_link) {
                Some(holder) => owner.push_str(&format!(", held by {holder}")),
                None => owner.push_str(", held by no process"),
            }
            let reaches = calls::reaching_out(kernel, &program.code_ranges(kernel));
            self.known.insert(key(program), Known { reaches, owner });
        }
    }

    /// Whether the program can change more than its own maps and packets.
    pub fn reaches_out(&self, program: &Program) -> bool {
        self.known
            .get(&(program.id, program.address))
            .is_some_and(|known| !known.reaches.is_empty())
    }

    /// Its title, with what it can do.
    pub fn title(&self, system: &System<'_>, program: &Program) -> String {
        let title = program.title(&system.kernel);
        let known = self.known.get(&(program.id, program.address));
        let reaches: Vec<String> = known
            .iter()
            .flat_map(|known| &known.reaches)
            .map(|(helper, does)| format!("{does} ({helper})"))
            .collect();
        match reaches.is_empty() {
            true => title,
            false => format!("{title}: {}", reaches.join(", ")),
        }
    }

    /// Who stands behind it.
    pub fn owner(&self, program: &Program) -> String {
        let known = self.known.get(&(program.id, program.address));
        known.map_or_else(|| "unknown".to_owned(), |known| known.owner.clone())
    }
}
