// SPDX-License-Identifier: Apache-2.0
//! From a rule set to the cells of its map, in the layout of bpf/lib/rules_abi.h.
//!
//! Each rule is found by one of its conditions, the one that the fewest others of the set share
//! (`index.rs`). What an event may have to look at is worked out here and bounded, so the kernel
//! needs no way to give up in the middle.

use std::collections::BTreeMap;

use zerocopy::IntoBytes;

use crate::abi::{self, Cell, ConditionCell, RuleCell, Set, flag, kind};
use crate::error::Refused;
use crate::hash;
use crate::index::Index;
use crate::model::{Action, Bits, Condition, File, Number, Process, ProcessKey, RuleSet};

/// Numbers that the maps of this host have for what rules name.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Collections of this client: below 16.
    pub collections: BTreeMap<String, u32>,
    /// Processes whose descendants are told apart: below 64, for all clients.
    pub roots: BTreeMap<ProcessKey, u32>,
    /// Of all hashes, from `struct rules_event`.
    pub seed: u64,
    /// Which keys share a cell; any number.
    pub salt: u64,
    /// Sets of counters, a power of two up to 16.
    pub shards: u32,
}

/// A set as it lies in its map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// All of the map.
    pub cells: Vec<Cell>,
    /// Types of event that it has rules for, bits by number.
    pub events: u64,
    /// The client's numbers of its rules, in order.
    pub ids: Vec<u32>,
}

/// Compiles a set.
///
/// # Errors
/// When it names what `bindings` has not, or when one event would have to look at too many rules.
pub fn compile(set: &RuleSet, bindings: &Bindings) -> Result<Compiled, Refused> {
    let index = Index::of(set, bindings)?;
    let mut parts = Parts::default();
    let rules = set.rules.iter().enumerate().map(|(at, rule)| {
        let mut conditions = Vec::new();
        for condition in &rule.conditions {
            parts.condition(condition, bindings, &mut conditions)?;
        }
        if conditions.len() > abi::CONDITIONS {
            return Err(Refused::whole(format!(
                "the conditions of rule {} have more than 64 parts: use fewer alternatives",
                rule.id
            )));
        }
        let (action, error) = match rule.action {
            Action::Allow => (abi::ALLOW, 0),
            Action::Deny(error) => (abi::DENY, error),
            Action::Notify => (abi::NOTIFY, 0),
        };
        let cell = RuleCell {
            events: rule.events,
            id: rule.id,
            conditions_at: u32::try_from(parts.conditions.len()).unwrap_or(u32::MAX),
            conditions: u16::try_from(conditions.len()).unwrap_or(u16::MAX),
            error,
            action,
            dry_run: rule.dry_run.into(),
            ..RuleCell::default()
        };
        debug_assert!(at < crate::read::RULES);
        parts.conditions.extend(conditions);
        Ok(cell)
    });
    let rules = rules.collect::<Result<Vec<RuleCell>, Refused>>()?;
    Ok(Compiled {
        cells: layout(bindings, &index, parts, rules)?,
        events: set.rules.iter().fold(0, |events, rule| events | rule.events),
        ids: set.rules.iter().map(|rule| rule.id).collect(),
    })
}

/// Puts the parts one after the other, and the numbers of cells into them.
fn layout(
    bindings: &Bindings,
    index: &Index,
    parts: Parts,
    rules: Vec<RuleCell>,
) -> Result<Vec<Cell>, Refused> {
    let number = |cells: usize| {
        u32::try_from(cells).map_err(|_| Refused::whole("the set is too large".to_owned()))
    };
    let index_at = 1 + index.types.len();
    let lists_at = index_at + index.cells.len();
    let rules_at = lists_at + index.lists.len().div_ceil(16);
    let conditions_at = rules_at + rules.len();
    let strings_at = conditions_at + parts.conditions.len();
    let counters_at = strings_at + parts.strings.len();
    let shards = bindings.shards.clamp(1, 16).next_power_of_two();
    let counters = rules.len().div_ceil(4) * shards as usize;
    let header = Set {
        version: abi::VERSION,
        cells: number(counters_at + counters)?,
        rules: number(rules.len())?,
        index_at: number(index_at)?,
        lists_at: number(lists_at)?,
        rules_at: number(rules_at)?,
        counters_at: number(counters_at)?,
        shards,
        index_mask: number(index.cells.len() - 1)?,
        index_probes: index.probes,
        index_salt: index.salt,
        ..Set::default()
    };
    let mut cells: Vec<Cell> = vec![header.into()];
    cells.extend(index.types.iter().map(|of_type| Cell::from(*of_type)));
    cells.extend(&index.cells);
    cells.extend(index.lists.chunks(16).map(packed));
    let (first_condition, first_string) = (number(conditions_at)?, number(strings_at)?);
    cells.extend(rules.into_iter().map(|rule| {
        Cell::from(RuleCell { conditions_at: rule.conditions_at + first_condition, ..rule })
    }));
    cells.extend(parts.conditions.into_iter().map(|condition| {
        let is_path = [kind::EXECUTABLE_PATH, kind::FILE_PATH].contains(&condition.kind);
        let string_at = condition.string_at + if is_path { first_string } else { 0 };
        Cell::from(ConditionCell { string_at, ..condition })
    }));
    cells.extend(parts.strings);
    cells.extend(std::iter::repeat_n(Cell::default(), counters));
    Ok(cells)
}

/// Up to sixteen numbers in a cell.
fn packed(numbers: &[u32]) -> Cell {
    let mut cell = Cell::default();
    let bytes = numbers.as_bytes();
    if let Some(to) = cell.as_mut_bytes().get_mut(..bytes.len()) {
        to.copy_from_slice(bytes);
    }
    cell
}

/// Conditions and strings, both counted from their own beginning.
#[derive(Debug, Default)]
struct Parts {
    conditions: Vec<ConditionCell>,
    strings: Vec<Cell>,
}

impl Parts {
    /// The cells of one condition: an alternative each, or several numbers.
    fn condition(
        &mut self,
        condition: &Condition,
        bindings: &Bindings,
        cells: &mut Vec<ConditionCell>,
    ) -> Result<(), Refused> {
        let first = cells.len();
        let kind = kind_of(condition);
        let cell = |values: &[u64]| {
            let mut cell = ConditionCell { kind, ..ConditionCell::default() };
            for (to, from) in cell.values.iter_mut().zip(values) {
                *to = *from;
            }
            cell
        };
        match condition {
            Condition::Process(_, keys) => {
                cells.extend(keys.iter().map(|key| cell(&[key.pid.into(), key.start])));
            }
            Condition::DescendantOf(_) | Condition::DigestIn(..) => {
                cells.push(cell(&[bits_of(condition, bindings)?]));
            }
            Condition::File(_, files) => cells.extend(files.iter().map(|file| ConditionCell {
                flags: if file.version.is_some() { flag::VERSION } else { 0 },
                ..cell(&[file.device, file.inode, file.version.unwrap_or_default()])
            })),
            Condition::Path(_, prefixes) => {
                for prefix in prefixes {
                    cells.push(ConditionCell {
                        count: u16::try_from(prefix.0.len()).unwrap_or(u16::MAX),
                        string_at: u32::try_from(self.strings.len()).unwrap_or(u32::MAX),
                        ..cell(&[])
                    });
                    self.string(&prefix.0);
                }
            }
            Condition::PathUnknown(_) => cells.push(cell(&[])),
            Condition::Number(_, values) => {
                cells.extend(values.chunks(7).map(|values| ConditionCell {
                    count: u16::try_from(values.len()).unwrap_or_default(),
                    ..cell(values)
                }));
            }
            Condition::Name(names) => cells.extend(names.iter().map(|name| {
                let words: Vec<u64> = name.chunks(8).map(hash::word).collect();
                ConditionCell {
                    count: u16::try_from(name.len()).unwrap_or_default(),
                    ..cell(&words)
                }
            })),
            Condition::Bits { of, mask, all } => cells.push(ConditionCell {
                flags: if *all { flag::ALL } else { 0 },
                count: mask_of(*of),
                ..cell(&[u64::from(*mask)])
            }),
        }
        let last = cells.len().saturating_sub(1);
        for cell in cells.get_mut(first..last).unwrap_or_default() {
            cell.flags |= flag::OR;
        }
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) {
        self.strings.extend(bytes.chunks(64).map(|chunk| {
            let mut cell = Cell::default();
            for (word, bytes) in cell.words.iter_mut().zip(chunk.chunks(8)) {
                *word = hash::word(bytes);
            }
            cell
        }));
    }
}

/// `RULES_KEY_...` of a condition.
pub(crate) fn kind_of(condition: &Condition) -> u8 {
    let of_file = |file: &File, executable, subject| match file {
        File::Executable => executable,
        File::Subject => subject,
    };
    match condition {
        Condition::Process(Process::Actor, _) => kind::ACTOR,
        Condition::Process(Process::Target, _) => kind::TARGET,
        Condition::DescendantOf(_) => kind::LINEAGE,
        Condition::File(file, _) => of_file(file, kind::EXECUTABLE, kind::FILE),
        Condition::Path(file, _) => of_file(file, kind::EXECUTABLE_PATH, kind::FILE_PATH),
        Condition::PathUnknown(file) => {
            of_file(file, kind::EXECUTABLE_PATH_UNKNOWN, kind::FILE_PATH_UNKNOWN)
        }
        Condition::DigestIn(file, _) => of_file(file, kind::EXECUTABLE_DIGEST, kind::FILE_DIGEST),
        Condition::Number(number, _) => match number {
            Number::Uid => kind::UID,
            Number::Euid => kind::EUID,
            Number::Gid => kind::GID,
            Number::Egid => kind::EGID,
            Number::Cgroup => kind::CGROUP,
            Number::UserNamespace => kind::USER_NAMESPACE,
            Number::PidNamespace => kind::PID_NAMESPACE,
            Number::MountNamespace => kind::MOUNT_NAMESPACE,
            Number::NetNamespace => kind::NET_NAMESPACE,
            Number::Own => kind::OWN,
        },
        Condition::Name(_) => kind::NAME,
        Condition::Bits { .. } => kind::MASK,
    }
}

/// `RULES_MASK_...`
fn mask_of(bits: Bits) -> u16 {
    match bits {
        Bits::Protection => 0,
        Bits::Before => 1,
        Bits::Flags => 2,
        Bits::Record => 3,
        Bits::Executable => 4,
        Bits::File => 5,
    }
}

/// The bits of collections or roots that a condition names.
pub(crate) fn bits_of(condition: &Condition, bindings: &Bindings) -> Result<u64, Refused> {
    let bit = |number: Option<&u32>, most: usize, what: String| match number {
        Some(number) if (*number as usize) < most => Ok(1u64 << number),
        _ => Err(Refused::whole(format!("{what} is not there"))),
    };
    match condition {
        Condition::DigestIn(_, names) => names.iter().try_fold(0, |bits, name| {
            let number = bindings.collections.get(name);
            Ok(bits | bit(number, abi::COLLECTIONS, format!("the collection {name:?}"))?)
        }),
        Condition::DescendantOf(keys) => keys.iter().try_fold(0, |bits, key| {
            let what = format!("the number of process {} started at {}", key.pid, key.start);
            Ok(bits | bit(bindings.roots.get(key), abi::ROOTS, what)?)
        }),
        _ => Ok(0),
    }
}
