// SPDX-License-Identifier: Apache-2.0
//! Objects that lead to tables of operations: mounted file systems with the inodes at their roots,
//! the entries of /proc, protocols.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use kernel_memory::Kernel;

use super::places::{Place, Places};
use super::tables::TableType;
use super::{Found, Wrong};
use crate::check::Missing;
use crate::checks::looks;
use crate::fields::{Chain, Fields, Record};
use crate::recover::Recovered;

/// File systems that one kernel has mounted, and protocols; their lists are not followed further.
const MOST: usize = 1 << 16;

/// Entries of /proc.
const MOST_ENTRIES: usize = 1 << 18;

/// `PROC_SUPER_MAGIC` (include/uapi/linux/magic.h).
const PROC: u64 = 0x9fa0;

/// `S_IFMT` and `S_IFDIR` (include/uapi/linux/stat.h).
const FORMAT: u64 = 0o170_000;
const DIRECTORY: u64 = 0o040_000;

/// Names are not read further.
const NAME: usize = 64;

/// What the tables of an entry of /proc are called in `struct proc_dir_entry` (fs/proc/internal.h).
const OF_ENTRY: [&str; 3] = ["proc_iops", "proc_ops", "seq_ops"];

/// The layouts, looked up once.
#[derive(Debug)]
pub(super) struct Objects {
    file: TableType,
    inode: TableType,
    super_block: TableType,
    proc: TableType,
    protocol: TableType,
    of_super_block: Fields,
    of_type: Fields,
    of_dentry: Fields,
    of_inode: Fields,
    of_entry: Fields,
    of_protocol: Fields,
    /// What an entry of /proc led to when it was seen first, by its address and path.
    entries: HashMap<(u64, PathKey), [u64; 3]>,
    paths: RandomState,
}

/// A path, as 64 bits that nobody can foretell: there are some hundred of them.
type PathKey = u64;

/// A directory of /proc.
#[derive(Debug)]
struct Directory {
    path: String,
    key: PathKey,
}

impl Objects {
    pub(super) fn new(kernel: &Kernel<'_>) -> Result<Self, Missing> {
        let of = |name| TableType::of(kernel, name);
        let super_block = ["s_list.next", "s_magic", "s_type", "s_op", "s_root", "s_id"];
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
        Ok(Self {
            file: of("file_operations")?,
            inode: of("inode_operations")?,
            super_block: of("super_operations")?,
            proc: of("proc_ops")?,
            protocol: of("proto")?,
            of_super_block: Fields::of(kernel, "super_block", &super_block)?,
            of_type: Fields::of(kernel, "file_system_type", &["name"])?,
            of_dentry: Fields::of(kernel, "dentry", &["d_inode"])?,
            of_inode: Fields::of(kernel, "inode", &["i_op", "i_fop"])?,
            of_entry: Fields::of(kernel, "proc_dir_entry", &entry)?,
            of_protocol: Fields::of(kernel, "proto", &["node.next", "name", "owner"])?,
            entries: HashMap::new(),
            paths: RandomState::new(),
        })
    }

    /// Mounted file systems: what each and the inode at its root lead to. Gives the root of /proc.
    pub(super) fn file_systems(
        &self,
        kernel: &Kernel<'_>,
        recovered: &mut Recovered,
        places: &Places,
        found: &mut Found,
    ) -> Result<Option<u64>, Missing> {
        let head = recovered.data_symbol(kernel, "super_blocks")?.address;
        let link = kernel.offset_of("super_block", "s_list")?;
        let chain = Chain { head, link, next: 0, end: head, most: MOST };
        let mounted = walk(kernel, recovered, &self.of_super_block, chain, "file systems")?;
        let dentries: Vec<u64> = mounted.iter().map(|one| one.value(4)).collect();
        let dentries = self.of_dentry.read(kernel, &dentries);
        let inodes: Vec<u64> =
            dentries.iter().map(|one| one.as_ref().map_or(0, |one| one.value(0))).collect();
        let inodes = self.of_inode.read(kernel, &inodes);
        let mut proc = None;
        for (mounted, inode) in mounted.iter().zip(inodes) {
            let (magic, of_type) = (mounted.value(1), mounted.value(2));
            let what = || {
                let name = self
                    .of_type
                    .read_one(kernel, of_type)
                    .and_then(|of_type| kernel.string_at(of_type.value(0), NAME).ok())
                    .unwrap_or_default();
                format!("{name} on {}", mounted.text(5))
            };
            // A file system of the image has its operations there; one of a module in any module.
            let home = places.of(of_type);
            let mut lead = |place: u64, member: &str, table: u64, of: &TableType| {
                lead(
                    kernel,
                    places,
                    &home,
                    place,
                    &|| format!("{member} of {}", what()),
                    table,
                    of,
                    found,
                );
            };
            let at =
                |member| kernel.offset_of("super_block", member).map(|at| mounted.address + at);
            lead(at("s_op")?, "s_op", mounted.value(3), &self.super_block);
            let Some(inode) = inode else { continue };
            let at = |member| kernel.offset_of("inode", member).map(|at| inode.address + at);
            lead(at("i_op")?, "i_op of the root", inode.value(0), &self.inode);
            lead(at("i_fop")?, "i_fop of the root", inode.value(1), &self.file);
            if magic == PROC && proc.is_none() {
                let inode = kernel.object("inode", inode.address)?;
                let inode = inode.container_of("proc_inode", "vfs_inode")?;
                proc = inode.u64("pde").ok().filter(|entry| *entry != 0);
            }
        }
        Ok(proc)
    }

    /// The entries of /proc below these directories, which come with their paths. What each leads to
    /// is given to it when it is made, and never changed.
    pub(super) fn entries(
        &mut self,
        kernel: &Kernel<'_>,
        places: &Places,
        directories: &[(u64, String)],
        found: &mut Found,
    ) -> Result<(), Missing> {
        let node = kernel.offset_of("proc_dir_entry", "subdir_node")?;
        let offset = |member| kernel.offset_of("proc_dir_entry", member);
        let offsets = [offset("proc_iops")?, offset("proc_ops")?, offset("seq_ops")?];
        let mut seen = HashMap::with_capacity(self.entries.len());
        let mut level: Vec<(u64, Rc<Directory>)> = Vec::new();
        for (directory, path) in directories {
            let Some(directory) = self.of_entry.read_one(kernel, *directory) else { continue };
            let key = self.paths.hash_one(path.as_bytes());
            let path = Rc::new(Directory { path: path.clone(), key });
            level.extend(below(&directory, node).map(|first| (first, path)));
        }
        // Each step goes one node further in all trees at once.
        while !level.is_empty() && seen.len() < MOST_ENTRIES {
            let addresses: Vec<u64> = level.iter().map(|(address, _)| *address).collect();
            let mut next = Vec::new();
            let entries = self.of_entry.read(kernel, &addresses);
            let names = names(kernel, &entries);
            for ((entry, name), (address, directory)) in entries.iter().zip(&names).zip(level) {
                let Some(entry) = entry else { continue };
                let name = until_nul(name);
                let beside = [LEFT, RIGHT].map(|side| entry.value(side));
                let beside = beside.into_iter().filter(|link| *link != 0);
                next.extend(beside.map(|link| (link.wrapping_sub(node), Rc::clone(&directory))));
                let key = self.paths.hash_one((directory.key, name));
                let path = || format!("{}/{}", directory.path, String::from_utf8_lossy(name));
                if is_directory(entry)
                    && let Some(first) = below(entry, node)
                {
                    next.push((first, Rc::new(Directory { path: path(), key })));
                }
                // A number that was given anew belongs to another entry.
                let key = (address, key);
                let tables = [IOPS, OPS, SEQUENCE].map(|table| entry.value(table));
                let first = self.entries.get(&key).copied().unwrap_or(tables);
                seen.insert(key, first);
                // What is in read-only data is compared there.
                let pinned = |table: &u64| *table == 0 || places.is_pinned(*table);
                if tables == first && tables.iter().all(pinned) {
                    continue;
                }
                let is_directory = is_directory(entry);
                let one = Entry { path: &path, is_directory, first, tables };
                self.entry(kernel, places, &one, offsets.map(|at| address + at), found);
            }
            level = next;
        }
        self.entries = seen;
        Ok(())
    }

    fn entry(
        &self,
        kernel: &Kernel<'_>,
        places: &Places,
        entry: &Entry<'_>,
        at: [u64; 3],
        found: &mut Found,
    ) {
        // Of directories the second is a table of file operations, and there is no third; of files
        // the third may as well be a function (`single_show`).
        let second = if entry.is_directory { &self.file } else { &self.proc };
        let types = [Some(&self.inode), Some(second), None];
        let tables = entry.tables.into_iter().zip(entry.first).zip(types).zip(OF_ENTRY).zip(at);
        for ((((table, first), of), member), at) in tables {
            let what = || format!("{member} of {}", (entry.path)());
            if table != first {
                let wrong = Wrong {
                    target: table,
                    what: what(),
                    expected: format!(
                        "it leads to {}, as when it was seen first",
                        name(kernel, first)
                    ),
                    seen: format!("it leads to {}", in_words(kernel, places, table)),
                    technique: "operations of an object replaced",
                    owner: places.owner(table),
                };
                found.wrong.insert(at, wrong);
                continue;
            }
            // Entries of modules lead to them, and who made an entry is written nowhere.
            match of {
                Some(of) => {
                    lead(kernel, places, &Place::Module(String::new()), at, &what, table, of, found)
                }
                None if table != 0 && !entry.is_directory && places.of(table) == Place::Nobody => {
                    if let Some(objection) =
                        places.objection(kernel, &Place::Module(String::new()), table)
                    {
                        let wrong = Wrong {
                            target: table,
                            what: what(),
                            expected: "it leads to a table or function with an owner".to_owned(),
                            seen: format!("it leads to {table:#x}, {objection}"),
                            technique: "operations of an object replaced",
                            owner: None,
                        };
                        found.wrong.insert(at, wrong);
                    }
                }
                None => {}
            }
        }
    }

    /// The protocols that sockets are made of: each function of each.
    pub(super) fn protocols(
        &self,
        kernel: &Kernel<'_>,
        recovered: &mut Recovered,
        places: &Places,
        found: &mut Found,
    ) -> Result<(), Missing> {
        let head = recovered.data_symbol(kernel, "proto_list")?.address;
        let link = kernel.offset_of("proto", "node")?;
        let chain = Chain { head, link, next: 0, end: head, most: MOST };
        for protocol in walk(kernel, recovered, &self.of_protocol, chain, "protocols")? {
            let what = || format!("protocol {}", protocol.text(1));
            self.protocol.look(kernel, places, &what, protocol.address, found);
        }
        Ok(())
    }
}

// Positions in `Objects::of_entry`.
const LEFT: usize = 1;
const RIGHT: usize = 2;
const CHILDREN: usize = 3;
const MODE: usize = 4;
const ENTRY_NAME: usize = 5;
const IOPS: usize = 6;
const OPS: usize = 7;
const SEQUENCE: usize = 8;

/// An entry of /proc with the tables that it leads to now, and when it was seen first.
struct Entry<'p> {
    path: &'p dyn Fn() -> String,
    is_directory: bool,
    first: [u64; 3],
    tables: [u64; 3],
}

fn is_directory(entry: &Record<'_>) -> bool {
    entry.value(MODE) & FORMAT == DIRECTORY
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

/// The root of the tree of what a directory holds.
fn below(directory: &Record<'_>, node: u64) -> Option<u64> {
    let first = directory.value(CHILDREN);
    (first != 0).then(|| first.wrapping_sub(node))
}

/// Looks at a pointer at `at` to a table. `home` is whose the object is: one of the image leads to
/// the image, one of a module to the image or to any module.
#[allow(clippy::too_many_arguments, reason = "it is called with what each object has of these")]
fn lead(
    kernel: &Kernel<'_>,
    places: &Places,
    home: &Place,
    at: u64,
    what: &dyn Fn() -> String,
    table: u64,
    of: &TableType,
    found: &mut Found,
) {
    if table == 0 {
        return;
    }
    let place = places.of(table);
    let fits = match place {
        Place::Pinned | Place::Image => true,
        Place::Module(_) => matches!(home, Place::Module(_)),
        Place::Nobody => false,
    };
    if fits {
        of.look(kernel, places, what, table, found);
        return;
    }
    let expected = match home {
        Place::Module(_) => "it leads to a table of the kernel or of a module",
        _ => "it leads to a table of the kernel",
    };
    let wrong = Wrong {
        target: table,
        what: what(),
        expected: expected.to_owned(),
        seen: format!("it leads to {}", in_words(kernel, places, table)),
        technique: "operations of an object replaced",
        owner: places.owner(table),
    };
    found.wrong.insert(at, wrong);
}

/// A table by its symbol, or by whose memory it is in.
fn in_words(kernel: &Kernel<'_>, places: &Places, table: u64) -> String {
    match places.of(table) {
        Place::Pinned | Place::Image => name(kernel, table),
        Place::Module(module) => format!("{table:#x}, in memory of module {module}"),
        Place::Nobody => {
            format!("{table:#x}, in memory of neither the kernel's image nor a module")
        }
    }
}

fn name(kernel: &Kernel<'_>, table: u64) -> String {
    match kernel.symbols.containing(table) {
        Some((symbol, 0)) => symbol.name.to_owned(),
        _ => format!("{table:#x}"),
    }
}

fn walk<'f>(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    fields: &'f Fields,
    chain: Chain,
    what: &str,
) -> Result<Vec<Record<'f>>, Missing> {
    let walked = looks::settled(|| recovered.chains.walk(kernel, fields, chain));
    walked
        .map_err(|at| Missing(format!("the list of {what} breaks off or does not end, at {at:#x}")))
}
