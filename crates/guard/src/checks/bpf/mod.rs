// SPDX-License-Identifier: Apache-2.0
//! BPF objects: the kernel's own id tables against what its interfaces admit to.
//!
//! A BPF program runs inside the kernel with the verifier's blessing, so it is the easiest rootkit
//! to write; to stay it must not be seen by `bpftool`. It hides by filtering the bpf system call
//! (then the id table has more than the call lists) or by leaving the id table (then its machine
//! code is still among the kernel's BPF images). Each is a finding here. Every program that user
//! space loaded is reported with what it can do and who holds it.

mod calls;
mod holders;
pub mod knowledge;
pub mod objects;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use kernel_memory::Kernel;
use knowledge::Knowledge;
use objects::Inventory;

use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::{Finding, Hook};
use crate::owners::Owners;
use crate::recover::Recovered;
use crate::views::{BpfKind, BpfView};

const KINDS: [BpfKind; 3] = [BpfKind::Program, BpfKind::Map, BpfKind::Link];

/// Long enough for an object that is being made or freed to be through.
const PAUSE: Duration = Duration::from_millis(3);

/// How an object differs between views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// In the id table, not listed by the bpf system call.
    NotListed,
    /// In the id table, not shown by the BPF iterator.
    NotIterated,
    /// Shown by an interface, not in the id table.
    NotInTable,
    /// Its machine code is there, and it is not in the id table.
    OnlyCode,
}

impl Difference {
    /// Whether it is one of an interface, which may leave out objects by design.
    fn is_of_interface(self) -> bool {
        matches!(self, Self::NotListed | Self::NotIterated)
    }
}

/// An object in a comparison: its id and where it is (0 where only an interface names it).
type Key = (u32, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Bpf {
    recovered: Recovered,
    knowledge: Knowledge,
    /// Each object that was seen, and whether the kernel kept it private to its init then.
    marks: BTreeMap<(u8, Key), bool>,
    making: Making,
}

impl Check for Bpf {
    fn name(&self) -> &'static str {
        "bpf"
    }

    fn about(&self) -> About {
        About {
            needs: "CONFIG_BPF_SYSCALL; prog_idr, map_idr and link_idr (symbol table or code)",
            reads: "the kernel's id tables and its list of BPF images, the bpf system call, BPF \
                    iterators, the machine code of programs, descriptors of processes",
            means: "a BPF object exists that an interface does not show, or one is shown that does \
                    not exist",
            blind_to: "a program taken off both the id table and the list of BPF images (the check \
                       of executable pages sees its code); who loaded a program that nobody holds",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let mut seen_any = false;
        for kind in KINDS {
            match self.compare(system, kind, outcome) {
                Ok(()) => seen_any = true,
                Err(missing) => outcome.reduced.push(missing.0),
            }
        }
        if !seen_any {
            return Err(Missing(outcome.reduced.join("; ")));
        }
        if let Err(missing) = self.report_programs(system, outcome) {
            outcome.reduced.push(missing.0);
        }
        Ok(())
    }
}

impl Bpf {
    fn compare(
        &mut self,
        system: &System<'_>,
        kind: BpfKind,
        outcome: &mut Outcome,
    ) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let word = objects::word(kind);
        let (recovered, marks) = (&mut self.recovered, &mut self.marks);
        let mut being_made = BTreeSet::new();
        let (making, now) = (&self.making, Instant::now());
        let mut unseen: BTreeSet<String> = BTreeSet::new();
        let mut table = BTreeSet::new();
        let lasting = looks::lasting(PAUSE, || {
            let before = keys(objects::entries(kernel, recovered, kind)?);
            let code_only = match kind {
                BpfKind::Program => code_without_program(system, recovered),
                BpfKind::Map | BpfKind::Link => BTreeSet::new(),
            };
            let mut view = |name, view: Result<Vec<BpfView>, Missing>| match view {
                Ok(view) => Some(view.iter().map(|object| object.id).collect::<BTreeSet<u32>>()),
                Err(missing) => {
                    unseen.insert(format!("{word}s by {name}: {}", missing.0));
                    None
                }
            };
            let listed = view("the bpf system call", system.views.bpf_listed(kind));
            let iterated = view("a BPF iterator", system.views.bpf_iterated(kind));
            table = keys(objects::entries(kernel, recovered, kind)?);
            let mut found = differences(&before, listed.as_ref(), iterated.as_ref(), &table);
            found.extend(code_only.into_iter().map(|key| (key, Difference::OnlyCode)));
            note_marks(kernel, kind, &table, marks)?;
            found.retain(|(key, difference)| {
                let by_design = marks.get(&(kind as u8, *key)).copied().unwrap_or(false);
                !(by_design && difference.is_of_interface())
            });
            if kind == BpfKind::Link {
                being_made = unsettled(kernel, &table)?;
                excuse_unsettled(&mut found, |key| {
                    being_made.contains(key) && making.excuses(key, now)
                });
            }
            Ok(found)
        })?;
        outcome.reduced.extend(unseen);
        for (key, difference) in lasting {
            outcome.findings.push(finding(system, kind, key, difference));
        }
        if kind == BpfKind::Link {
            if !being_made.is_empty() {
                let count = being_made.len();
                outcome.reduced.push(format!("{count} links were being made and had no id yet"));
            }
            self.making.note(&table, being_made, now);
        }
        let marks = &self.marks;
        let private =
            marks.iter().filter(|((of, _), private)| *of == kind as u8 && **private).count();
        if private > 0 {
            outcome.reduced.push(format!(
                "{private} {word}s are marked init_private by this kernel, which leaves them out \
                 of what it tells processes other than init"
            ));
        }
        Ok(())
    }

    /// Reports programs that reach out of BPF, and those that no link ties to a place: the others
    /// are reported with their links by the check of hooks.
    fn report_programs(
        &mut self,
        system: &System<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let inventory = Inventory::gather(kernel, &mut self.recovered)?;
        self.knowledge.update(system, &mut self.recovered, &inventory);
        let linked: HashSet<u64> = objects::linked(kernel, &mut self.recovered)?
            .into_iter()
            .map(|(_, program)| program)
            .collect();
        let own = system.views.own_bpf().unwrap_or_default();
        for program in inventory.all() {
            let is_linked = linked.contains(&program.address);
            if program.private || (is_linked && !self.knowledge.reaches_out(program)) {
                continue;
            }
            let place = if is_linked { "the place of its links" } else { "no link" };
            outcome.hooks.push(Hook {
                mechanism: "bpf",
                target: program.made_for.clone().unwrap_or_else(|| place.to_owned()),
                handler: self.knowledge.title(system, program),
                owner: match own.contains(&(BpfKind::Program, program.id)) {
                    true => "ringfence itself".to_owned(),
                    false => self.knowledge.owner(program),
                },
            });
        }
        Ok(())
    }
}

/// Notes of each object of the table whether it is private when it is seen first: a mark that is set
/// later hides nothing from this check.
fn note_marks(
    kernel: &Kernel<'_>,
    kind: BpfKind,
    table: &BTreeSet<Key>,
    marks: &mut BTreeMap<(u8, Key), bool>,
) -> Result<(), Missing> {
    let number = kind as u8;
    marks.retain(|(of, key), _| *of != number || table.contains(key));
    let new: Vec<Key> =
        table.iter().filter(|key| !marks.contains_key(&(number, **key))).copied().collect();
    let addresses: Vec<u64> = new.iter().map(|(_, address)| *address).collect();
    let private = objects::private_among(kernel, kind, &addresses)?;
    marks.extend(new.into_iter().map(|key| ((number, key), private.contains(&key.1))));
    Ok(())
}

/// The links of the table that have no id of their own.
fn unsettled(kernel: &Kernel<'_>, table: &BTreeSet<Key>) -> Result<BTreeSet<Key>, Missing> {
    let addresses: Vec<u64> = table.iter().map(|(_, address)| *address).collect();
    let unsettled = objects::unsettled_links(kernel, &addresses)?;
    Ok(table.iter().filter(|(_, address)| unsettled.contains(address)).copied().collect())
}

/// Leaves out differences of links that are being made.
fn excuse_unsettled(found: &mut BTreeSet<(Key, Difference)>, is_being_made: impl Fn(&Key) -> bool) {
    found.retain(|(key, difference)| {
        // The iterator shows a link without an id as 0, which no entry of the table is.
        let nameless = key.0 == 0 && *difference == Difference::NotInTable;
        !(nameless || difference.is_of_interface() && is_being_made(key))
    });
}

/// For how long a link may be without an id. Attaching waits for whoever changes text: 22 seconds were seen
/// on an emulated processor where a tracer came and went and tracepoints went on and off.
const MAKING: Duration = Duration::from_secs(60);

/// Links that have no id of their own because they are being made. One that has been without for too long
/// hides, and so does one that had an id before.
#[derive(Debug, Default)]
struct Making {
    since: BTreeMap<Key, Instant>,
    had: BTreeSet<Key>,
}

impl Making {
    fn excuses(&self, key: &Key, now: Instant) -> bool {
        let late = self.since.get(key).is_some_and(|since| now >= *since + MAKING);
        !late && !self.had.contains(key)
    }

    /// Notes what a pass saw: the links of the table, and those of them that had no id.
    fn note(&mut self, table: &BTreeSet<Key>, without: BTreeSet<Key>, now: Instant) {
        self.had.retain(|key| table.contains(key));
        self.had.extend(table.difference(&without));
        self.since.retain(|key, _| without.contains(key));
        for key in without {
            self.since.entry(key).or_insert(now);
        }
    }
}

fn keys(entries: Vec<objects::Entry>) -> BTreeSet<Key> {
    entries.into_iter().map(|entry| (entry.id, entry.address)).collect()
}

/// How the id table, read before and after the interfaces, differs from them.
fn differences(
    before: &BTreeSet<Key>,
    listed: Option<&BTreeSet<u32>>,
    iterated: Option<&BTreeSet<u32>>,
    after: &BTreeSet<Key>,
) -> BTreeSet<(Key, Difference)> {
    let mut differences = BTreeSet::new();
    let views = [(listed, Difference::NotListed), (iterated, Difference::NotIterated)];
    for (view, difference) in views {
        let Some(view) = view else { continue };
        let missing = looks::missing_from(before, |(id, _)| view.contains(id), after);
        differences.extend(missing.into_iter().map(|key| (key, difference)));
        let exists = |id| [before, after].iter().any(|table| table.iter().any(|key| key.0 == id));
        let unreal = view.iter().filter(|id| !exists(**id));
        differences.extend(unreal.map(|id| ((*id, 0), Difference::NotInTable)));
    }
    differences
}

/// Programs among the kernel's BPF images that no entry of the id table has.
fn code_without_program(system: &System<'_>, recovered: &mut Recovered) -> BTreeSet<Key> {
    let kernel = &system.kernel;
    let owners = Owners::gather(kernel, recovered);
    let Ok(inventory) = Inventory::gather(kernel, recovered) else { return BTreeSet::new() };
    let mut orphans: BTreeSet<u64> = owners
        .images
        .iter()
        .filter(|image| image.owner.is_bpf_program() && !image.is_data)
        .map(|image| image.range.start)
        .filter(|start| inventory.with_code(*start).is_none())
        .collect();
    if !orphans.is_empty() {
        for program in inventory.all() {
            for (start, _) in program.code_ranges(kernel) {
                orphans.remove(&start);
            }
        }
    }
    orphans.into_iter().map(|start| (0, start)).collect()
}

fn finding(
    system: &System<'_>,
    kind: BpfKind,
    (id, address): Key,
    difference: Difference,
) -> Finding {
    let kernel = &system.kernel;
    let word = objects::word(kind);
    let described = match kind {
        BpfKind::Program => {
            objects::programs(kernel, &[address]).ok().and_then(|mut all| all.pop())
        }
        BpfKind::Map | BpfKind::Link => None,
    };
    let title = match &described {
        Some(program) if difference != Difference::OnlyCode => program.title(kernel),
        _ if id == 0 => format!("BPF {word} with code at {address:#x}"),
        _ => format!("BPF {word} (id {id})"),
    };
    let (seen, technique) = match difference {
        Difference::NotListed => (
            "in the kernel's id table, not listed by the bpf system call",
            format!("BPF {word} hidden from the bpf system call"),
        ),
        Difference::NotIterated => (
            "in the kernel's id table, not shown by a BPF iterator",
            format!("BPF {word} hidden from iterators"),
        ),
        Difference::NotInTable => (
            "shown by the kernel's interfaces, not in its id table",
            format!("BPF {word} removed from the id table"),
        ),
        Difference::OnlyCode => (
            "among the kernel's BPF images, not in its id table",
            format!("BPF {word} removed from the id table"),
        ),
    };
    let mut evidence = vec![format!("seen in each of {} looks", looks::LOOKS)];
    if address != 0 && difference != Difference::OnlyCode {
        evidence.push(format!("struct at {address:#x}"));
    }
    let uid = described.as_ref().and_then(|program| program.uid(kernel));
    Finding {
        check: "bpf",
        symbol: None,
        offset: 0,
        address,
        expected: "the id table, the bpf system call and iterators show the same objects"
            .to_owned(),
        seen: format!("{title}: {seen}"),
        technique,
        owner: uid.map(|uid| format!("loaded by user {uid}")),
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ids: &[u32]) -> BTreeSet<Key> {
        ids.iter().map(|id| (*id, 0xffff_c900_0000_0000 + u64::from(*id) * 4096)).collect()
    }

    fn ids(ids: &[u32]) -> BTreeSet<u32> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_program_that_the_call_does_not_list_is_a_difference() {
        let memory = table(&[1, 2, 3]);
        let found = differences(&memory, Some(&ids(&[1, 3])), Some(&ids(&[1, 2, 3])), &memory);
        let hidden = (2, 0xffff_c900_0000_2000);
        assert_eq!(found, BTreeSet::from([(hidden, Difference::NotListed)]));
    }

    #[test]
    fn a_program_that_only_interfaces_show_is_a_difference() {
        let memory = table(&[1]);
        let found = differences(&memory, None, Some(&ids(&[1, 9])), &memory);
        assert_eq!(found, BTreeSet::from([((9, 0), Difference::NotInTable)]));
    }

    #[test]
    fn a_link_that_is_being_made_is_excused_for_some_time_and_one_that_had_an_id_is_not() {
        let memory = table(&[7]);
        let key = *memory.first().unwrap();
        let shown = ids(&[0]);
        let all = || differences(&memory, Some(&ids(&[])), Some(&shown), &memory);
        let start = Instant::now();
        let mut making = Making::default();
        let look = |making: &mut Making, now: Instant| {
            let mut found = all();
            excuse_unsettled(&mut found, |key| making.excuses(key, now));
            making.note(&memory, memory.clone(), now);
            found
        };
        for second in 0..MAKING.as_secs() {
            let found = look(&mut making, start + Duration::from_secs(second));
            assert!(found.is_empty(), "{found:?}");
        }
        let hidden = [Difference::NotListed, Difference::NotIterated];
        let hidden: BTreeSet<_> = hidden.into_iter().map(|hidden| (key, hidden)).collect();
        assert_eq!(look(&mut making, start + MAKING), hidden);
        // One that lost its id.
        let mut making = Making::default();
        making.note(&memory, BTreeSet::new(), start);
        for _ in 0..2 {
            assert_eq!(look(&mut making, start), hidden);
        }
        // One that has its id.
        let mut found = all();
        excuse_unsettled(&mut found, |_| false);
        assert_eq!(found, hidden);
    }

    #[test]
    fn what_comes_or_goes_meanwhile_is_no_difference() {
        let found = differences(&table(&[1, 2]), Some(&ids(&[1, 3])), None, &table(&[1, 3]));
        assert!(found.is_empty(), "{found:?}");
        // An id used again by another object is another key.
        let again = BTreeSet::from([(2, 0xffff_c900_ffff_0000)]);
        assert!(differences(&table(&[2]), Some(&ids(&[])), None, &again).is_empty());
    }
}
