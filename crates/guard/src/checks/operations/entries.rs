// SPDX-License-Identifier: Apache-2.0
//! The entries of /proc. What each leads to is given to it when it is made, and never changed, so each
//! is held to what it led to when it was seen first: by this check, or by whoever took the baseline.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use kernel_memory::Kernel;

use super::objects::{in_words, lead, name};
use super::places::{Place, Places};
use super::tables::TableType;
use super::{Found, Wrong};
use crate::baseline::Baseline;
use crate::check::Missing;
use crate::fields::{Fields, Record};

/// The facts of a baseline that say what entries of the kernel's own led to, and how many more there
/// were.
const FACT: &str = "proc.entries";
const FACT_MORE: &str = "proc.entries.more";

/// Bytes of the first: all facts of a baseline together have a megabyte.
const MOST_WORDS: usize = 384 << 10;

/// Entries that are looked at.
const MOST: usize = 1 << 18;

/// `S_IFMT` and `S_IFDIR` (include/uapi/linux/stat.h).
const FORMAT: u64 = 0o170_000;
const DIRECTORY: u64 = 0o040_000;

/// Names are not read further.
const NAME: usize = 64;

/// What the tables of an entry are called in `struct proc_dir_entry` (fs/proc/internal.h).
const TABLES: [&str; 3] = ["proc_iops", "proc_ops", "seq_ops"];

// Positions in `Entries::of_entry`.
const LEFT: usize = 1;
const RIGHT: usize = 2;
const CHILDREN: usize = 3;
const MODE: usize = 4;
const ENTRY_NAME: usize = 5;
const IOPS: usize = 6;
const OPS: usize = 7;
const SEQUENCE: usize = 8;

/// A path, as 64 bits that nobody can foretell: there are some hundred of them.
type PathKey = u64;

/// What an entry leads to, by its address and path: a number that was given anew belongs to another.
type Known = HashMap<(u64, PathKey), [u64; 3]>;

/// A directory of /proc.
#[derive(Debug)]
struct Directory {
    path: String,
    key: PathKey,
}

/// The layouts, looked up once, and what entries led to when they were seen first.
#[derive(Debug)]
pub(super) struct Entries {
    file: TableType,
    inode: TableType,
    proc: TableType,
    of_entry: Fields,
    node: u64,
    /// Where an entry keeps its tables.
    offsets: [u64; 3],
    /// By the baseline.
    sealed: Known,
    first: Known,
    paths: RandomState,
}

/// An entry that is passed.
struct Entry<'p> {
    address: u64,
    key: PathKey,
    path: &'p dyn Fn() -> String,
    is_directory: bool,
    tables: [u64; 3],
}

impl Entries {
    pub(super) fn new(kernel: &Kernel<'_>) -> Result<Self, Missing> {
        let of = |name| TableType::of(kernel, name);
        let offset = |member| kernel.offset_of("proc_dir_entry", member);
        let entry = [
            "subdir_node.__rb_parent_color",
            "subdir_node.rb_left",
            "subdir_node.rb_right",
            "subdir.rb_node",
            "mode",
            "name",
            "proc_iops",
            "proc_ops",
            "seq_ops",
        ];
        let [iops, ops, sequence] = TABLES;
        Ok(Self {
            file: of("file_operations")?,
            inode: of("inode_operations")?,
            proc: of("proc_ops")?,
            of_entry: Fields::of(kernel, "proc_dir_entry", &entry)?,
            node: offset("subdir_node")?,
            offsets: [offset(iops)?, offset(ops)?, offset(sequence)?],
            sealed: Known::new(),
            first: Known::new(),
            paths: RandomState::new(),
        })
    }

    /// Takes what a baseline says ([`Self::in_words`]) for what was seen first; false if that is damaged.
    pub(super) fn recall(&mut self, words: &str, roots: &[(u64, String)]) -> bool {
        let recalled: Option<Known> = words
            .lines()
            .map(|line| {
                let (numbers, path) = line.split_once(" /")?;
                let mut numbers = numbers.split(' ').map(|word| u64::from_str_radix(word, 16).ok());
                let mut number = || numbers.next().flatten();
                let (address, tables) = (number()?, [number()?, number()?, number()?]);
                Some(((address, self.key_of(&format!("/{path}"), roots)?), tables))
            })
            .collect();
        self.sealed = recalled.unwrap_or_default();
        !self.sealed.is_empty()
    }

    /// The key of a path below one of `roots`, the longest of which counts.
    fn key_of(&self, path: &str, roots: &[(u64, String)]) -> Option<PathKey> {
        let below = |root: &str| Some((root.len(), path.strip_prefix(root)?.strip_prefix('/')?));
        let (length, names) = roots.iter().filter_map(|(_, root)| below(root)).max()?;
        let root = self.paths.hash_one(path.as_bytes().get(..length)?);
        Some(names.split('/').fold(root, |key, name| self.paths.hash_one((key, name.as_bytes()))))
    }

    /// What entries lead to of which all tables are the image's, as facts for a baseline. Those of
    /// modules come and go with them, and with them their places.
    pub(super) fn facts(
        &self,
        kernel: &Kernel<'_>,
        places: &Places,
        roots: &[(u64, String)],
    ) -> BTreeMap<String, String> {
        let (mut words, mut more) = (String::new(), 0_u64);
        self.walk(kernel, roots, &mut |entry| {
            let of_image = |table: &u64| {
                *table == 0
                    || places.owners.text.contains(table)
                    || matches!(places.of(*table), Place::Pinned | Place::Image)
            };
            if !entry.tables.iter().all(of_image) {
                return;
            }
            let (path, [iops, ops, sequence]) = ((entry.path)(), entry.tables);
            if path.contains('\n') || words.len() + path.len() + 4 * 17 > MOST_WORDS {
                more += 1;
                return;
            }
            // Writing to a string cannot fail.
            let _ = writeln!(words, "{:x} {iops:x} {ops:x} {sequence:x} {path}", entry.address);
        });
        let mut facts = BTreeMap::from([(FACT.to_owned(), words)]);
        if more > 0 {
            facts.insert(FACT_MORE.to_owned(), more.to_string());
        }
        facts
    }

    /// Looks at what each entry leads to, with what a baseline says of them.
    pub(super) fn look(
        &mut self,
        kernel: &Kernel<'_>,
        places: &Places,
        roots: &[(u64, String)],
        found: &mut Found,
    ) {
        let mut seen = Known::with_capacity(self.first.len());
        self.walk(kernel, roots, &mut |entry| {
            let known = (entry.address, entry.key);
            let first = self.sealed.get(&known).or_else(|| self.first.get(&known));
            let first = first.copied().unwrap_or(entry.tables);
            seen.insert(known, first);
            // What is in read-only data is compared there.
            let pinned = |table: &u64| *table == 0 || places.is_pinned(*table);
            if entry.tables != first || !entry.tables.iter().all(pinned) {
                self.judge(kernel, places, entry, first, found);
            }
        });
        self.first = seen;
    }

    /// Passes all entries below these directories, which come with their paths.
    fn walk(&self, kernel: &Kernel<'_>, roots: &[(u64, String)], pass: &mut dyn FnMut(&Entry<'_>)) {
        let mut level: Vec<(u64, Rc<Directory>)> = Vec::new();
        for (directory, path) in roots {
            let Some(directory) = self.of_entry.read_one(kernel, *directory) else { continue };
            let key = self.paths.hash_one(path.as_bytes());
            let path = Rc::new(Directory { path: path.clone(), key });
            level.extend(self.below(&directory).map(|first| (first, path)));
        }
        let mut passed = 0;
        // Each step goes one node further in all trees at once.
        while !level.is_empty() && passed < MOST {
            let addresses: Vec<u64> = level.iter().map(|(address, _)| *address).collect();
            let mut next = Vec::new();
            let entries = self.of_entry.read(kernel, &addresses);
            let names = names(kernel, &entries);
            for ((entry, name), (address, directory)) in entries.iter().zip(&names).zip(level) {
                let Some(entry) = entry else { continue };
                let name = until_nul(name);
                let beside = [LEFT, RIGHT].map(|side| entry.value(side));
                let beside = beside.into_iter().filter(|link| *link != 0);
                next.extend(
                    beside.map(|link| (link.wrapping_sub(self.node), Rc::clone(&directory))),
                );
                let key = self.paths.hash_one((directory.key, name));
                let path = || format!("{}/{}", directory.path, String::from_utf8_lossy(name));
                let is_directory = entry.value(MODE) & FORMAT == DIRECTORY;
                if is_directory && let Some(first) = self.below(entry) {
                    next.push((first, Rc::new(Directory { path: path(), key })));
                }
                let tables = [IOPS, OPS, SEQUENCE].map(|table| entry.value(table));
                pass(&Entry { address, key, path: &path, is_directory, tables });
                passed += 1;
            }
            level = next;
        }
    }

    /// The root of the tree of what a directory holds.
    fn below(&self, directory: &Record<'_>) -> Option<u64> {
        let first = directory.value(CHILDREN);
        (first != 0).then(|| first.wrapping_sub(self.node))
    }

    fn judge(
        &self,
        kernel: &Kernel<'_>,
        places: &Places,
        entry: &Entry<'_>,
        first: [u64; 3],
        found: &mut Found,
    ) {
        // Of directories the second is a table of file operations, and there is no third; of files
        // the third may as well be a function (`single_show`).
        let second = if entry.is_directory { &self.file } else { &self.proc };
        let types = [Some(&self.inode), Some(second), None];
        let places_of = self.offsets.map(|offset| entry.address + offset);
        let tables = entry.tables.into_iter().zip(first).zip(types).zip(TABLES).zip(places_of);
        for ((((table, first), of), member), at) in tables {
            let what = || format!("{member} of {}", (entry.path)());
            let mut wrong = |expected: String, seen: String| {
                let technique = "operations of an object replaced";
                let owner = places.owner(table);
                let wrong = Wrong { target: table, what: what(), expected, seen, technique, owner };
                found.wrong.insert(at, wrong);
            };
            if table != first {
                let expected = match first {
                    0 => "it leads nowhere, as when it was seen first".to_owned(),
                    first => {
                        format!("it leads to {}, as when it was seen first", name(kernel, first))
                    }
                };
                wrong(expected, format!("it leads to {}", in_words(kernel, places, table)));
                continue;
            }
            // Entries of modules lead to them, and who made an entry is written nowhere.
            let any = Place::Module(String::new());
            match of {
                Some(of) => lead(kernel, places, &any, at, &what, table, of, found),
                None if table != 0 && !entry.is_directory && places.of(table) == Place::Nobody => {
                    if let Some(objection) = places.objection(kernel, &any, table) {
                        wrong(
                            "it leads to a table or function with an owner".to_owned(),
                            format!("it leads to {table:#x}, {objection}"),
                        );
                    }
                }
                None => {}
            }
        }
    }
}

/// What a baseline says of entries, and what it leaves out; nothing if it was taken without.
pub(super) fn sealed(baseline: &Baseline) -> (Option<&str>, Option<&str>) {
    (baseline.fact(FACT), baseline.fact(FACT_MORE))
}

/// The names of entries, read in one go, with what stands behind them; zeroes where there is none.
fn names(kernel: &Kernel<'_>, entries: &[Option<Record<'_>>]) -> Vec<[u8; NAME]> {
    let place = |entry: &Option<Record<'_>>| entry.as_ref().map_or(0, |e| e.value(ENTRY_NAME));
    let places: Vec<(u64, u32)> = entries.iter().map(|entry| (place(entry), NAME as u32)).collect();
    let mut names = vec![[0; NAME]; entries.len()];
    let read = kernel.memory.visit_many(&places, &mut |index, bytes| {
        if let (Some(name), Ok(Some(bytes))) =
            (names.get_mut(index), bytes.map(|bytes| bytes.first_chunk()))
        {
            *name = *bytes;
        }
    });
    if read.is_err() {
        names.fill([0; NAME]);
    }
    names
}

fn until_nul(name: &[u8; NAME]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}
