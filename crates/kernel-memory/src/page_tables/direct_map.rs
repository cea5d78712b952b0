// SPDX-License-Identifier: Apache-2.0
//! Where the kernel maps all of physical memory.

use super::{Levels, PRESENT, PageTables};
use crate::{KernelMemory, PAGE_SIZE, ReadError};

/// Where the kernel maps physical memory, and with how many levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectMap {
    /// The virtual address of physical address 0: `page_offset_base`.
    pub base: u64,
    /// The levels of its page tables.
    pub levels: Levels,
    /// Bits of entries that are no part of the address: the encryption bit of AMD SME and SEV
    /// (`sme_me_mask`), or 0.
    pub encryption: u64,
}

/// The base is a multiple of this (`PUD_SIZE`; arch/x86/mm/kaslr.c randomises in such steps).
const BASE_STEP: u64 = 1 << 30;
/// Physical memory with 4 levels is at most this (`MAX_PHYSMEM_BITS` 46).
const BASE_REACH: u64 = 64 << 40;
/// Where AMD processors have their encryption bit (CPUID 0x8000001f, EBX bits 0 to 5): 47 in the
/// first generation, 51 since.
const ENCRYPTION_BITS: [u64; 2] = [1 << 51, 1 << 47];

impl DirectMap {
    /// Finds the base, given the virtual address of a root table: that of `swapper_pg_dir` in the
    /// direct map, or of any `mm_struct.pgd`, which is one.
    ///
    /// A base is right if tables read through it map the root to the physical address that the base
    /// says it has, and each table on the way likewise. With another base, what is read are other
    /// pages, which do not agree with each other. The nearest bases are tried first: there are as
    /// many as gigabytes of physical memory below the root.
    pub fn find(memory: &dyn KernelMemory, root: u64) -> Option<Self> {
        let encryption = encryption_of(memory, root);
        let nearest = root & !(BASE_STEP - 1);
        (0..BASE_REACH / BASE_STEP).find_map(|step| {
            let base = nearest.checked_sub(step * BASE_STEP)?;
            [Levels::Five, Levels::Four].into_iter().find_map(|levels| {
                let map = Self { base, levels, encryption };
                let tables = PageTables::new(memory, root, map);
                let fits =
                    levels.canonical(base) == base && tables.is_consistent().unwrap_or(false);
                fits.then_some(map)
            })
        })
    }
}

/// The encryption bit that entries of the root have, if they have one. Without encryption, the bit
/// is zero in each: no machine has memory at such addresses.
fn encryption_of(memory: &dyn KernelMemory, root: u64) -> u64 {
    let mut bytes = [0; PAGE_SIZE as usize];
    if memory.read(root & !(PAGE_SIZE - 1), &mut bytes).is_err() {
        return 0;
    }
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let all = words.filter(|entry| entry & PRESENT != 0).fold(0, |all, entry| all | entry);
    ENCRYPTION_BITS.into_iter().find(|bit| all & bit != 0).unwrap_or(0)
}

impl PageTables<'_> {
    /// Whether the root, and each table on the way to it, is mapped where the base says.
    fn is_consistent(&self) -> Result<bool, ReadError> {
        let mut tables = vec![self.root & !(PAGE_SIZE - 1)];
        if self.descend(self.root, &mut |table| tables.push(table))?.is_none() {
            return Ok(false);
        }
        for table in tables {
            let expected = table.wrapping_sub(self.map.base);
            match self.translate(table)? {
                Some(found) if found.physical == expected => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// The virtual address of physical address 0, as [`DirectMap::find`] finds it.
pub fn find_direct_map_base(memory: &dyn KernelMemory, root: u64) -> Option<u64> {
    DirectMap::find(memory, root).map(|map| map.base)
}
