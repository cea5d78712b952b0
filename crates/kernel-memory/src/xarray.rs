// SPDX-License-Identifier: Apache-2.0
//! Walks over the kernel's XArray and what is built on it: IDR and radix tree.
//!
//! Layout and encoding: include/linux/xarray.h and lib/xarray.c, Linux 4.20 to 7.3. `xa_head` is an
//! entry. An entry with its two low bits equal to binary 10 is internal: above 4096 it is a node,
//! two bytes before the value; below, it is a sibling, retry or zero entry. An entry with bit 0 set
//! is a number. Everything else is a pointer.

use crate::lists::KERNEL_HALF;
use crate::{AccessError, Kernel};

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
        let mut bytes = vec![0; layout.size];
        let mut visited = 0;
        // Nodes yet to visit: entry, index of its first slot, and what its shift must stay below.
        let mut pending = vec![(head, 0_u64, 64_u32)];
        while let Some((entry, base, below)) = pending.pop() {
            if !is_node(entry) {
                continue;
            }
            let node = entry - 2;
            if node < KERNEL_HALF {
                return Err(wrong(node, "the node is not an address of the kernel"));
            }
            visited += 1;
            if visited > MAX_VISITED {
                return Err(wrong(node, "it has more than 1,048,576 nodes"));
            }
            self.read_into("struct xa_node", node, &mut bytes)?;
            let shift = u32::from(bytes.get(layout.shift).copied().unwrap_or(u8::MAX));
            if shift >= below || shift % layout.bits.max(1) != 0 {
                return Err(wrong(
                    node,
                    "the shift of the node does not fit its place in the tree",
                ));
            }
            let slots = bytes.get(layout.slots..).unwrap_or_default().as_chunks::<8>().0;
            let first_child = pending.len();
            for (slot, word) in slots.iter().take(layout.count).enumerate() {
                let entry = u64::from_le_bytes(*word);
                let index = base.wrapping_add((slot as u64) << shift);
                if is_node(entry) {
                    if shift == 0 {
                        return Err(wrong(node, "a node of the lowest level has nodes below it"));
                    }
                    pending.push((entry, index, shift));
                } else if entry != 0 && !is_internal(entry) {
                    entries.push((index, entry));
                }
            }
            // The last one pushed is visited next, and low indices must come first.
            pending.get_mut(first_child..).unwrap_or_default().reverse();
        }
        // Entries of several indices stand above the lowest level, beside nodes.
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
