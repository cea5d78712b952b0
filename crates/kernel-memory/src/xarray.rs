// SPDX-License-Identifier: Apache-2.0
//! Walks over the kernel's XArray and what is built on it: IDR and radix tree.
//!
//! Layout and encoding: include/linux/xarray.h and lib/xarray.c, Linux 4.20 to 7.3. `xa_head` is an
//! entry. An entry with its two low bits equal to binary 10 is internal: above 4096 it is a node,
//! two bytes before the value; below, it is a sibling, retry or zero entry. An entry with bit 0 set
//! is a number. Everything else is a pointer.

use crate::lists::KERNEL_HALF;
use crate::{AccessError, Kernel, ReadError};

/// Nodes that one walk visits at most. With 16 slots or more in each they hold 16 million entries.
const MAX_VISITED: usize = 1 << 20;

/// Internal entries up to here are not nodes (`xa_is_node`).
const LAST_SPECIAL: u64 = 4096;

fn is_internal(entry: u64) -> bool {
    entry & 3 == 2
}

fn is_node(entry: u64) -> bool {
    is_internal(entry) && entry > LAST_SPECIAL
}

/// Where the fields of `struct xa_node` are.
struct Layout {
    size: usize,
    shift: usize,
    slots: usize,
    count: usize,
    /// Bits of the index that one node decides: `XA_CHUNK_SHIFT`, 6 or 4 (CONFIG_BASE_SMALL).
    bits: u32,
}

impl Layout {
    fn of(kernel: &Kernel<'_>) -> Result<Self, AccessError> {
        let node = kernel.object("xa_node", 0)?;
        let count = node.count("slots")?;
        Ok(Self {
            size: node.size()? as usize,
            shift: node.offset_within("shift", 1)?,
            slots: node.offset_within("slots", 8 * u64::from(count))?,
            count: count as usize,
            bits: count.max(1).ilog2(),
        })
    }

    /// Takes the entries out of a node whose first slot has the index `base` and whose shift must
    /// stay below `below`; gives the nodes below it.
    fn node(
        &self,
        bytes: &[u8],
        (base, below): (u64, u32),
        entries: &mut Vec<(u64, u64)>,
        nodes: &mut Vec<(u64, u64, u32)>,
    ) -> Result<(), &'static str> {
        let shift = u32::from(bytes.get(self.shift).copied().unwrap_or(u8::MAX));
        if shift >= below || shift % self.bits.max(1) != 0 {
            return Err("the shift of the node does not fit its place in the tree");
        }
        let slots = bytes.get(self.slots..).unwrap_or_default().as_chunks::<8>().0;
        for (slot, word) in slots.iter().take(self.count).enumerate() {
            let entry = u64::from_le_bytes(*word);
            let index = base.wrapping_add((slot as u64) << shift);
            if is_node(entry) {
                if shift == 0 {
                    return Err("a node of the lowest level has nodes below it");
                }
                nodes.push((entry, index, shift));
            } else if entry != 0 && !is_internal(entry) {
                entries.push((index, entry));
            }
        }
        Ok(())
    }
}

fn unreadable(node: u64, cause: ReadError) -> AccessError {
    AccessError::Unreadable { what: "struct xa_node".to_owned(), address: node, cause }
}

impl<'a> Kernel<'a> {
    /// The entries of a `struct xarray` (also `radix_tree_root`) in order of index: the index and
    /// the entry, a pointer or, with bit 0 set, a number (`xa_to_value` shifts it right by one).
    pub fn xarray(&self, address: u64) -> Result<Vec<(u64, u64)>, AccessError> {
        let array = self.object("xarray", address)?;
        let head = array.u64("xa_head")?;
        let mut entries = Vec::new();
        if !is_internal(head) {
            if head != 0 {
                entries.push((0, head));
            }
            return Ok(entries);
        }
        let layout = Layout::of(self)?;
        let wrong = |at, reason| AccessError::Inconsistent {
            what: "xarray".to_owned(),
            start: address,
            at,
            reason,
        };
        let mut visited = 0;
        // Nodes to visit: entry, index of its first slot, and what its shift must stay below. All of
        // one level are read with one question.
        let mut level = vec![(head, 0_u64, 64_u32)];
        let mut ranges: Vec<(u64, u32)> = Vec::new();
        loop {
            level.retain(|(entry, ..)| is_node(*entry));
            if level.is_empty() {
                break;
            }
            ranges.clear();
            ranges.extend(level.iter().map(|(entry, ..)| (entry - 2, layout.size as u32)));
            if let Some((node, _)) = ranges.iter().find(|(node, _)| *node < KERNEL_HALF) {
                return Err(wrong(*node, "the node is not an address of the kernel"));
            }
            visited += level.len();
            if visited > MAX_VISITED {
                return Err(wrong(head - 2, "it has more than 1,048,576 nodes"));
            }
            let mut next = Vec::new();
            let mut outcome = Ok(());
            let read = self.memory.visit_many(&ranges, &mut |index, bytes| {
                let (Some((entry, base, below)), true) = (level.get(index), outcome.is_ok()) else {
                    return;
                };
                let node = entry - 2;
                outcome = match bytes {
                    Ok(bytes) => layout
                        .node(bytes, (*base, *below), &mut entries, &mut next)
                        .map_err(|reason| wrong(node, reason)),
                    Err(cause) => Err(unreadable(node, cause)),
                };
            });
            outcome?;
            read.map_err(|cause| unreadable(head - 2, cause))?;
            level = next;
        }
        // Nodes were visited level by level.
        entries.sort_by_key(|entry| entry.0);
        Ok(entries)
    }

    /// The entries of a `struct idr` in order of id: the id and the pointer.
    pub fn idr(&self, address: u64) -> Result<Vec<(u64, u64)>, AccessError> {
        let idr = self.object("idr", address)?;
        let base = idr.u64("idr_base")?;
        let mut entries = self.xarray(idr.field("idr_rt")?.address())?;
        for entry in &mut entries {
            entry.0 = entry.0.wrapping_add(base);
        }
        Ok(entries)
    }
}
