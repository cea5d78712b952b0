// SPDX-License-Identifier: Apache-2.0
//! Goes through a compiled set as bpf/lib/rules.h does, in plain Rust.
//!
//! So that what is wrong with the layout or the index is found without a kernel. It shares no code
//! with the compiler: the hashes are written down again.

use std::collections::BTreeMap;

use rules::abi::{self, Cell, Collection, ConditionCell, Entry, RuleCell, Set, Type, flag, kind};
use rules::model::{Bits, File, Number, Process};
use rules::record::Record;

fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The hash of each prefix that ends before a slash or at the end, by the walk of the path.
fn levels(seed: u64, path: &[u8]) -> Vec<u64> {
    let mut hash = seed;
    let mut levels = Vec::new();
    for start in (0..=path.len().min(abi::PREFIX)).step_by(8) {
        let chunk = &path[start..path.len().min(start + 8)];
        for at in 0..8 {
            let is_end = chunk.len() == at && start + at == path.len();
            if (chunk.get(at) == Some(&b'/') || is_end) && levels.len() < abi::LEVELS {
                levels.push(mix(mix(hash, word(&chunk[..at])), (start + at) as u64));
            }
        }
        hash = mix(hash, word(chunk));
    }
    levels
}

pub(crate) struct Kernel<'a> {
    pub(crate) cells: &'a [Cell],
    pub(crate) seed: u64,
    pub(crate) lineage: u64,
    /// By number.
    pub(crate) collections: BTreeMap<u32, Vec<Cell>>,
}

/// What a client's rules say: the rule that decided, and those that told, by place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) decided: Option<usize>,
    pub(crate) told: Vec<usize>,
    /// How many rules were looked at.
    pub(crate) looked_at: usize,
}

impl Kernel<'_> {
    fn set(&self) -> Set {
        self.cells[0].into()
    }

    fn list(&self, first: u32, count: u16) -> Vec<u32> {
        let lists = self.set().lists_at as usize;
        let number = |at: usize| {
            let word = self.cells[lists + at / 16].words[at % 16 / 2];
            (word >> (at % 2 * 32)) as u32
        };
        (first as usize..).take(count.into()).map(number).collect()
    }

    fn probe(&self, tag: u64) -> Option<Entry> {
        let set = self.set();
        let start = mix(set.index_salt, tag) as u32;
        for distance in 0..set.index_probes {
            let at = set.index_at + (start.wrapping_add(distance) & set.index_mask);
            let entries: [Entry; 4] = zerocopy::transmute!(self.cells[at as usize]);
            if let Some(found) = entries.iter().find(|entry| entry.tag == tag) {
                return Some(*found);
            }
        }
        None
    }

    fn collected(&self, record: &Record<'_>, file: File, wanted: u16) -> u64 {
        let Some((algorithm, digest)) = record.digest(file) else { return 0 };
        let has = |number: &u32| {
            let Some(cells) = self.collections.get(number) else { return false };
            let header: Collection = cells[0].into();
            let hash = mix(mix(header.salt, word(&digest[..8])), word(&digest[8..16]));
            let start = hash % u64::from(header.buckets);
            let mut looked = (0..u64::from(header.probes)).flat_map(|distance| {
                let at = 1 + (start + distance) % u64::from(header.buckets);
                let halves: [[u8; 32]; 2] = zerocopy::transmute!(cells[at as usize]);
                halves
            });
            header.algorithm == algorithm && looked.any(|other| other == digest)
        };
        (0..16)
            .filter(|bit| wanted >> bit & 1 == 1)
            .filter(has)
            .fold(0, |bits, bit| bits | 1 << bit)
    }

    pub(crate) fn decide(&self, record: &Record<'_>) -> Said {
        let event = record.event().number;
        let of_type: Type = self.cells[1 + usize::from(event)].into();
        let executables = self.collected(record, File::Executable, of_type.actor_collections);
        let files = self.collected(record, File::Subject, of_type.file_collections);
        let mut values: Vec<(u8, u64, u64)> = Vec::new();
        for (kind, number) in NUMBERS {
            values.extend(record.number(number).map(|value| (kind, value, 0)));
        }
        for (kind, process) in [(kind::ACTOR, Process::Actor), (kind::TARGET, Process::Target)] {
            values.extend(record.process(process).map(|key| (kind, key.pid.into(), key.start)));
        }
        for (kind, file) in [(kind::EXECUTABLE, File::Executable), (kind::FILE, File::Subject)] {
            values.extend(record.file(file).map(|file| (kind, file.device, file.inode)));
        }
        if let Some(name) = record.name().filter(|name| name.len() <= abi::NAME) {
            let words = name.chunks_exact(8);
            let rest = word(words.remainder());
            let hash = words.fold(self.seed, |hash, chunk| mix(hash, word(chunk)));
            values.push((kind::NAME, mix(mix(hash, rest), name.len() as u64), 0));
        }
        let paths = [(kind::EXECUTABLE_PATH, File::Executable), (kind::FILE_PATH, File::Subject)];
        for (kind, file) in paths {
            let path = record.path(file).unwrap_or_default();
            let levels = if path.is_empty() { Vec::new() } else { levels(self.seed, path) };
            values.extend(levels.into_iter().map(|level| (kind, level, 0)));
        }
        let bits = [
            (kind::LINEAGE, self.lineage),
            (kind::EXECUTABLE_DIGEST, executables),
            (kind::FILE_DIGEST, files),
        ];
        for (kind, bits) in bits {
            let set = (0..64).filter(|bit| bits >> bit & 1 == 1);
            values.extend(set.map(|bit| (kind, bit, 0)));
        }

        let mut lists = vec![(of_type.first, of_type.deciding, of_type.telling)];
        for (kind, first, second) in values {
            let start = mix(self.seed, u64::from(kind) | u64::from(event) << 8);
            let tag = mix(mix(start, first), second).max(1);
            let found = (of_type.keys >> kind & 1 == 1).then(|| self.probe(tag)).flatten();
            lists.extend(found.map(|entry| (entry.first, entry.deciding, entry.telling)));
        }
        let mut said = Said::default();
        for (first, deciding, _) in &lists {
            for number in self.list(*first, *deciding) {
                said.looked_at += 1;
                let better = said.decided.is_none_or(|best| (number as usize) < best);
                if better && self.matches(number, record, executables, files) {
                    said.decided = Some(number as usize);
                }
            }
        }
        for (first, deciding, telling) in &lists {
            for number in self.list(first + u32::from(*deciding), *telling) {
                said.looked_at += 1;
                let before = said.decided.is_none_or(|best| (number as usize) < best);
                if before && self.matches(number, record, executables, files) {
                    said.told.push(number as usize);
                }
            }
        }
        said.told.sort_unstable();
        said
    }

    fn matches(&self, number: u32, record: &Record<'_>, executables: u64, files: u64) -> bool {
        let rule: RuleCell = self.cells[(self.set().rules_at + number) as usize].into();
        let mut any = false;
        for at in 0..u32::from(rule.conditions) {
            let condition: ConditionCell = self.cells[(rule.conditions_at + at) as usize].into();
            let holds = any || self.holds(&condition, record, executables, files);
            any = holds && condition.flags & flag::OR != 0;
            if condition.flags & flag::OR == 0 && !holds {
                return false;
            }
        }
        rule.events >> record.event().number & 1 == 1
    }

    fn holds(
        &self,
        condition: &ConditionCell,
        record: &Record<'_>,
        executables: u64,
        files: u64,
    ) -> bool {
        let values = condition.values;
        if let Some((_, number)) = NUMBERS.iter().find(|(kind, _)| *kind == condition.kind) {
            let wanted = &values[..condition.count.into()];
            return record.number(*number).is_some_and(|seen| wanted.contains(&seen));
        }
        let process = |process| {
            record
                .process(process)
                .is_some_and(|key| (u64::from(key.pid), key.start) == (values[0], values[1]))
        };
        let file = |file| {
            record.file(file).is_some_and(|file| {
                (file.device, file.inode) == (values[0], values[1])
                    && (condition.flags & flag::VERSION == 0 || file.version == Some(values[2]))
            })
        };
        let path = |file| {
            let length = usize::from(condition.count);
            let cells = &self.cells[condition.string_at as usize..];
            let prefix: Vec<u8> = cells[..length.div_ceil(64)]
                .iter()
                .flat_map(|c| c.words)
                .flat_map(u64::to_le_bytes)
                .take(length)
                .collect();
            record.path(file).is_some_and(|path| {
                path.starts_with(&prefix) && (path.len() == length || path[length] == b'/')
            })
        };
        match condition.kind {
            kind::ACTOR => process(Process::Actor),
            kind::TARGET => process(Process::Target),
            kind::EXECUTABLE => file(File::Executable),
            kind::FILE => file(File::Subject),
            kind::EXECUTABLE_PATH => path(File::Executable),
            kind::FILE_PATH => path(File::Subject),
            kind::EXECUTABLE_PATH_UNKNOWN => record.path(File::Executable).is_none(),
            kind::FILE_PATH_UNKNOWN => record.path(File::Subject).is_none(),
            kind::LINEAGE => self.lineage & values[0] != 0,
            kind::EXECUTABLE_DIGEST => executables & values[0] != 0,
            kind::FILE_DIGEST => files & values[0] != 0,
            kind::NAME => {
                let bytes: Vec<u8> = values.iter().flat_map(|word| word.to_le_bytes()).collect();
                record.name() == Some(&bytes[..condition.count.into()])
            }
            kind::MASK => {
                let of = [
                    Bits::Protection,
                    Bits::Before,
                    Bits::Flags,
                    Bits::Record,
                    Bits::Executable,
                    Bits::File,
                ];
                let seen = u64::from(record.bits(of[usize::from(condition.count)]).unwrap());
                let common = seen & values[0];
                if condition.flags & flag::ALL != 0 { common == values[0] } else { common != 0 }
            }
            other => panic!("no condition is {other}"),
        }
    }
}

const NUMBERS: [(u8, Number); 10] = [
    (kind::UID, Number::Uid),
    (kind::EUID, Number::Euid),
    (kind::GID, Number::Gid),
    (kind::EGID, Number::Egid),
    (kind::CGROUP, Number::Cgroup),
    (kind::USER_NAMESPACE, Number::UserNamespace),
    (kind::PID_NAMESPACE, Number::PidNamespace),
    (kind::MOUNT_NAMESPACE, Number::MountNamespace),
    (kind::NET_NAMESPACE, Number::NetNamespace),
    (kind::OWN, Number::Own),
];
