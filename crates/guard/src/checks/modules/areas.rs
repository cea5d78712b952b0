// SPDX-License-Identifier: Apache-2.0
//! Modules found by what lies in the kernel's area for them, without any list of modules.
//!
//! Memory for modules comes from vmalloc, so each piece is a `vmap_area` (mm/vmalloc.c). In these a
//! `struct module` gives itself away: its kobject points back at it (`mkobj.mod`, set by
//! `mod_sysfs_init`, kernel/module/sysfs.c), and its name is text.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use kernel_memory::{AccessError, Kernel, Object, Piece};

use crate::check::Missing;
use crate::recover::Recovered;

/// Where the kernel's area for modules may be (Documentation/arch/x86/x86_64/mm.rst): without KASLR
/// it begins at the first address, with it later.
const AREA: Range<u64> = 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000;

/// `struct module` begins at a cache line (include/linux/module.h).
const ALIGNMENT: usize = 64;

/// Trees of areas: one until 6.8, then one for some CPUs each (`nr_vmap_nodes` is at most 128).
const MOST_TREES: u64 = 1024;
/// Nodes that are looked at in one tree, and its height.
const MOST_NODES: usize = 1 << 16;
/// Areas are read up to this many bytes; the largest module has some 20 MB.
const MOST_BYTES: u64 = 256 << 20;

/// The addresses of what is `struct module` by its looks.
pub(super) fn carved(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<BTreeSet<u64>, Missing> {
    let module = kernel.object("module", 0)?;
    let back = module.offset_of("mkobj.mod")? as usize;
    let mut found = BTreeSet::new();
    for area in areas(kernel, recovered)? {
        let length = (area.end - area.start).min(MOST_BYTES);
        kernel.memory.visit(area.start, length, &mut |piece| {
            if let Piece::Bytes { address, bytes } = piece {
                found.extend(pointing_back(address, bytes, back));
            }
            ControlFlow::Continue(())
        })?;
    }
    found.retain(|address| is_module(&kernel.object_of(module.type_id(), *address)));
    Ok(found)
}

/// Addresses of which the bytes `back` further on hold that address. An object whose back pointer
/// lies in the next piece is missed here, so pieces are taken to be pages or more: a module's data is
/// not cut by them where the source gives whole areas.
fn pointing_back(address: u64, bytes: &[u8], back: usize) -> Vec<u64> {
    let skip = address.next_multiple_of(ALIGNMENT as u64) - address;
    // The first back pointer may belong to an object that began before this piece.
    let first = (skip as usize + back) % ALIGNMENT;
    let mut found = Vec::new();
    let mut at = first;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let object = address.wrapping_add(at as u64).wrapping_sub(back as u64);
        if u64::from_le_bytes(*word) == object && object.is_multiple_of(ALIGNMENT as u64) {
            found.push(object);
        }
        at += ALIGNMENT;
    }
    found
}

/// Whether its state is one there is and its name is text.
fn is_module(module: &Object<'_>) -> bool {
    let name = module.string("name").unwrap_or_default();
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty()
        && name.bytes().all(printable)
        && module.u64("state").is_ok_and(|state| state <= 3)
}

/// The kernel's pieces of memory in its area for modules.
fn areas(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Result<Vec<Range<u64>>, Missing> {
    let mut found = Vec::new();
    for root in roots(kernel, recovered)? {
        within(kernel, root, &mut found)?;
    }
    found.sort_by_key(|area| area.start);
    Ok(found)
}

/// The roots of the trees of areas in use.
fn roots(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Result<Vec<u64>, Missing> {
    if let Ok(root) = recovered.data_symbol(kernel, "vmap_area_root") {
        return Ok(vec![root.address]);
    }
    let nodes = recovered.data_symbol(kernel, "vmap_nodes")?;
    let count = recovered.data_symbol(kernel, "nr_vmap_nodes")?;
    let first = kernel.u64_at(nodes.address)?;
    let count = u64::from(kernel.u32_at(count.address)?).min(MOST_TREES);
    let size = kernel.size_of("vmap_node")?;
    let root = kernel.offset_of("vmap_node", "busy.root")?;
    Ok((0..count).map(|index| first.wrapping_add(index * size + root)).collect())
}

/// Adds what a tree has in [`AREA`]. It is in order of address, so most of it is passed over.
fn within(kernel: &Kernel<'_>, root: u64, found: &mut Vec<Range<u64>>) -> Result<(), AccessError> {
    let area = kernel.object("vmap_area", 0)?;
    let link = area.offset_of("rb_node")?;
    let mut open = vec![kernel.u64_at(root)?];
    let mut visited = 0;
    while let Some(node) = open.pop() {
        visited += 1;
        if node == 0 || visited > MOST_NODES {
            continue;
        }
        let area = kernel.object_of(area.type_id(), node.wrapping_sub(link));
        let (start, end) = (area.u64("va_start")?, area.u64("va_end")?);
        if start >= AREA.start {
            open.push(area.u64("rb_node.rb_left")?);
            if end <= AREA.end && start < end {
                found.push(start..end);
            }
        }
        if start < AREA.end {
            open.push(area.u64("rb_node.rb_right")?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_points_back_at_itself_is_found_wherever_the_piece_begins() {
        let object = 0xffff_ffff_c000_1040_u64;
        for back in [0, 8, 72, 200] {
            for start in [object, object - 64, object - 0x40 + 8 - 8] {
                let mut bytes = vec![0; 0x400];
                let at = (object - start) as usize + back;
                bytes[at..at + 8].copy_from_slice(&object.to_le_bytes());
                assert_eq!(pointing_back(start, &bytes, back), [object], "{back} from {start:#x}");
            }
        }
        assert!(pointing_back(object, &[0; 0x400], 8).is_empty());
    }
}
