// SPDX-License-Identifier: Apache-2.0
//! Objects that lead to tables of operations: mounted file systems with the inodes at their roots, and
//! protocols. For the entries of /proc see `entries`.

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

/// `PROC_SUPER_MAGIC` (include/uapi/linux/magic.h).
const PROC: u64 = 0x9fa0;

/// Names are not read further.
const NAME: usize = 64;

/// The layouts, looked up once.
#[derive(Debug)]
pub(super) struct Objects {
    file: TableType,
    inode: TableType,
    super_block: TableType,
    protocol: TableType,
    of_super_block: Fields,
    of_type: Fields,
    of_dentry: Fields,
    of_inode: Fields,
    of_protocol: Fields,
}

impl Objects {
    pub(super) fn new(kernel: &Kernel<'_>) -> Result<Self, Missing> {
        let of = |name| TableType::of(kernel, name);
        let super_block = ["s_list.next", "s_magic", "s_type", "s_op", "s_root", "s_id"];
        Ok(Self {
            file: of("file_operations")?,
            inode: of("inode_operations")?,
            super_block: of("super_operations")?,
            protocol: of("proto")?,
            of_super_block: Fields::of(kernel, "super_block", &super_block)?,
            of_type: Fields::of(kernel, "file_system_type", &["name"])?,
            of_dentry: Fields::of(kernel, "dentry", &["d_inode"])?,
            of_inode: Fields::of(kernel, "inode", &["i_op", "i_fop"])?,
            of_protocol: Fields::of(kernel, "proto", &["node.next", "name", "owner"])?,
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

/// Looks at a pointer at `at` to a table. `home` is whose the object is: one of the image leads to
/// the image, one of a module to the image or to any module.
#[allow(clippy::too_many_arguments, reason = "it is called with what each object has of these")]
pub(super) fn lead(
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
pub(super) fn in_words(kernel: &Kernel<'_>, places: &Places, table: u64) -> String {
    match places.of(table) {
        Place::Pinned | Place::Image => name(kernel, table),
        Place::Module(module) => format!("{table:#x}, in memory of module {module}"),
        Place::Nobody => {
            format!("{table:#x}, in memory of neither the kernel's image nor a module")
        }
    }
}

pub(super) fn name(kernel: &Kernel<'_>, table: u64) -> String {
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
