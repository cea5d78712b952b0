// SPDX-License-Identifier: Apache-2.0
//! Operation tables: the pointers by which the kernel calls what belongs to a file, a file system, an
//! entry of /proc, a protocol or a driver.
//!
//! Rootkits replace them to hide files, tasks and connections. Most tables are constants, which the
//! check of read-only data compares; this check looks at the rest:
//!
//! - **Pointers to code in writable data of the image** (`pointers`). The image says which words they
//!   are, so nothing has to be known of the structures that they are in.
//! - **Objects that lead to tables** (`objects`, `entries`). An object may be made to lead to a copy of
//!   its table that the attacker made, and the table itself stays as it was.
//!
//! What leads to another function of the kernel than by the image is told as a hook: the kernel does
//! so itself for some. What leads to a module from where no module registers, into the middle of a
//! function or to nobody's code is a finding.

mod entries;
mod objects;
mod places;
mod pointers;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use entries::Entries;
use kernel_memory::{AddressSet, Kernel};
use objects::Objects;
use places::Places;

use super::hooks::netfilter;
use crate::baseline::RegionKind;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::{Finding, Hook};
use crate::recover::Recovered;

/// More findings of one pass say nothing more.
const FINDINGS: usize = 64;

/// What is wrong with a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    /// Where it leads.
    target: u64,
    /// What it is: the member of which table, of which object.
    what: String,
    expected: String,
    seen: String,
    technique: &'static str,
    owner: Option<String>,
}

/// What one look found.
#[derive(Debug, Default)]
struct Found {
    /// By the address of the pointer.
    wrong: BTreeMap<u64, Wrong>,
    hooks: Vec<Hook>,
    reduced: Vec<String>,
    /// Tables that were looked at.
    tables: HashSet<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Operations {
    recovered: Recovered,
    pointers: Option<Result<pointers::Expected, Missing>>,
    objects: Option<Objects>,
    entries: Option<Entries>,
    /// What of the baseline could not be used.
    unsealed: Option<String>,
    /// Functions of the kernel that pointers led to.
    functions: AddressSet,
}

impl Check for Operations {
    fn name(&self) -> &'static str {
        "operations"
    }

    fn about(&self) -> About {
        About {
            needs: "the kernel's image, for the pointers in its data; addresses of super_blocks, \
                    proto_list, net_namespace_list and modules (symbol table or code)",
            reads: "pointers to code in writable data of the image; operations of mounted file \
                    systems, of the inodes at their roots, of the entries of /proc, of protocols",
            means: "an operation was replaced: the kernel calls somebody else's code for it",
            blind_to: "inodes other than those at roots, open files and sockets; without an image, \
                       pointers in its data but for protocols; an entry of /proc that a module made, \
                       changed before it was seen first; an operation replaced by another function \
                       of the kernel is told as a hook",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let mut first = self.look(system)?;
        // A module may be on its way in or out.
        if !first.wrong.is_empty() {
            let again = self.look(system)?.wrong;
            first.wrong.retain(|place, wrong| {
                again.get(place).is_some_and(|again| again.target == wrong.target)
            });
        }
        outcome.hooks.extend(first.hooks);
        let hidden = first.wrong.len().saturating_sub(FINDINGS);
        if hidden > 0 {
            first.reduced.push(format!("{hidden} more pointers are not shown"));
        }
        let wrong = first.wrong.into_iter().take(FINDINGS);
        outcome.findings.extend(wrong.map(|(place, wrong)| finding(system, place, wrong)));
        outcome.reduced.extend(first.reduced);
        Ok(())
    }
}

impl Operations {
    fn look(&mut self, system: &System<'_>) -> Result<Found, Missing> {
        let kernel = &system.kernel;
        let recovered = &mut self.recovered;
        let pinned = system.baseline.region(RegionKind::Rodata);
        let pinned = pinned.map_or(0..0, |region| region.start..region.end());
        let functions = std::mem::take(&mut self.functions);
        let places = Places::gather(kernel, recovered, pinned, functions)?;
        let mut found = Found::default();
        found.reduced.extend(places.owners.unseen.iter().cloned());
        let directories = self.directories(kernel, &places, &mut found)?;
        if self.entries.is_none() {
            let mut entries = Entries::new(kernel)?;
            self.unsealed = unsealed(&mut entries, system, &directories);
            self.entries = Some(entries);
        }
        found.reduced.extend(self.unsealed.clone());
        if let Some(entries) = &mut self.entries {
            entries.look(kernel, &places, &directories, &mut found);
        }
        if let Some(objects) = &self.objects
            && let Err(missing) =
                objects.protocols(kernel, &mut self.recovered, &places, &mut found)
        {
            found.reduced.push(missing.0);
        }
        match self.pointers.get_or_insert_with(|| pointers::expected(system)) {
            Ok(expected) => pointers::look(kernel, &places, expected, &mut found)?,
            Err(missing) => found.reduced.push(missing.0.clone()),
        }
        self.functions = places.into_functions();
        Ok(found)
    }

    /// Looks at mounted file systems; gives the directories below which all entries of /proc are.
    fn directories(
        &mut self,
        kernel: &Kernel<'_>,
        places: &Places,
        found: &mut Found,
    ) -> Result<Vec<(u64, String)>, Missing> {
        let objects = match &mut self.objects {
            Some(objects) => objects,
            none => none.insert(Objects::new(kernel)?),
        };
        let mut directories = Vec::new();
        match objects.file_systems(kernel, &mut self.recovered, places, found) {
            Ok(root) => directories.extend(root.map(|root| (root, "/proc".to_owned()))),
            Err(missing) => found.reduced.push(missing.0),
        }
        match netfilter::namespaces(kernel, &mut self.recovered) {
            Ok(namespaces) => directories.extend(namespaces.iter().filter_map(|net| {
                let directory = kernel.object("net", *net).ok()?.u64("proc_net").ok()?;
                Some((directory, "/proc/net".to_owned()))
            })),
            Err(missing) => found.reduced.push(missing.0),
        }
        Ok(directories)
    }
}

/// What the entries of /proc lead to now, as facts for a baseline: a later look, or another guard,
/// holds them to it. None where they cannot be read, which the check says when it runs.
pub fn collect(kernel: &Kernel<'_>) -> BTreeMap<String, String> {
    let collect = || -> Result<_, Missing> {
        let mut operations = Operations::default();
        let places =
            Places::gather(kernel, &mut operations.recovered, 0..0, AddressSet::default())?;
        let directories = operations.directories(kernel, &places, &mut Found::default())?;
        Ok(Entries::new(kernel)?.facts(kernel, &places, &directories))
    };
    collect().unwrap_or_default()
}

/// Has entries held to what the baseline says of them; gives what it does not say.
fn unsealed(
    entries: &mut Entries,
    system: &System<'_>,
    directories: &[(u64, String)],
) -> Option<String> {
    let why = match entries::sealed(system.baseline) {
        (None, _) => "the baseline was taken without what the entries of /proc lead to".to_owned(),
        (Some(words), _) if !entries.recall(words, directories) => {
            "what the baseline says of the entries of /proc is damaged".to_owned()
        }
        (Some(_), Some(more)) => {
            format!("{more} entries of /proc are not in the baseline, which is full")
        }
        (Some(_), None) => return None,
    };
    Some(format!("{why}: they are held to what they led to when this guard saw them first"))
}

fn finding(system: &System<'_>, place: u64, wrong: Wrong) -> Finding {
    let kernel = &system.kernel;
    let symbol = kernel.symbols.containing(place).filter(|_| in_image(system, place));
    let mut evidence = vec!["seen in each of 2 looks".to_owned()];
    if let Ok(bytes) = kernel.bytes_at(wrong.target, 24)
        && system.baseline.region(RegionKind::Rodata).is_none_or(|data| !data.holds(wrong.target))
    {
        let text = crate::evidence::text_of(system.baseline);
        let lines = crate::code::disassemble(&bytes, wrong.target, kernel.symbols, text);
        if wrong.technique == "operation replaced" {
            evidence.push(format!("the code there begins with {}", crate::code::render(&lines)));
        }
    }
    Finding {
        check: "operations",
        symbol: symbol.map(|(symbol, _)| symbol.name.to_owned()),
        offset: symbol.map_or(0, |(_, offset)| offset),
        address: place,
        expected: format!("{}: {}", wrong.what, wrong.expected),
        seen: wrong.seen,
        technique: wrong.technique.to_owned(),
        owner: wrong.owner,
        evidence,
    }
}

/// Whether the symbol before an address says what is there.
fn in_image(system: &System<'_>, place: u64) -> bool {
    let bound = |name| system.kernel.symbols.address_of(name);
    match (bound("_stext"), bound("_end")) {
        (Some(start), Some(end)) => (start..end).contains(&place),
        _ => false,
    }
}
