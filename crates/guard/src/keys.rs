// SPDX-License-Identifier: Apache-2.0
//! The values of many keys, of static calls or of branches: read in one go, into a buffer that is
//! kept from pass to pass.

use kernel_memory::{KernelMemory, ReadError};

use crate::batch::Places;

/// Keys, and what they held when they were read last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys<const N: usize> {
    addresses: Vec<u64>,
    places: Places,
    values: Vec<Option<[u8; N]>>,
}

impl<const N: usize> Keys<N> {
    /// Of keys at these addresses, which may come more than once, the `N` bytes at `offset`.
    pub(crate) fn of(addresses: impl IntoIterator<Item = u64>, offset: u64) -> Self {
        let mut addresses: Vec<u64> = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let places = addresses.iter().map(|at| (at.wrapping_add(offset), N as u32));
        let places = Places::of(places);
        Self { values: vec![None; addresses.len()], addresses, places }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Where a key is among them.
    pub(crate) fn index_of(&self, key: u64) -> Option<usize> {
        self.addresses.binary_search(&key).ok()
    }

    /// Reads all, and gives whether any holds something else than before. What cannot be read holds
    /// nothing.
    pub(crate) fn read(&mut self, memory: &dyn KernelMemory) -> Result<bool, ReadError> {
        let (mut changed, mut next) = (false, 0);
        let values = &mut self.values;
        let mut set = |index: usize, value: Option<[u8; N]>| {
            if let Some(before) = values.get_mut(index) {
                changed |= *before != value;
                *before = value;
            }
        };
        self.places.visit(memory, &mut |index, bytes| {
            // Those in between could not be read, or come after the others: then they are changed
            // twice, and count as changed.
            (next..index).for_each(|between| set(between, None));
            set(index, bytes.try_into().ok());
            next = next.max(index + 1);
        })?;
        (next..self.addresses.len()).for_each(|behind| set(behind, None));
        Ok(changed)
    }

    /// What the key with this index holds.
    pub(crate) fn value(&self, index: usize) -> Option<[u8; N]> {
        self.values.get(index).copied().flatten()
    }

    /// Each key with what it holds; those that could not be read are left out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, u64, [u8; N])> {
        let keys = self.addresses.iter().zip(&self.values).enumerate();
        keys.filter_map(|(index, (address, value))| Some((index, *address, (*value)?)))
    }
}

#[cfg(test)]
mod tests {
    use kernel_memory::FakeMemory;

    use super::*;

    const AT: u64 = 0xffff_ffff_8200_0000;

    #[test]
    fn a_key_that_changes_or_cannot_be_read_any_more_is_noticed_and_one_that_stays_is_not() {
        let mut memory = FakeMemory::new();
        let keys = [AT + 0x18, AT, AT + 0x18, AT + 0x1000, AT + 0x3000];
        for (key, value) in [(AT, 1), (AT + 0x18, 2), (AT + 0x1000, 3), (AT + 0x3000, 4)] {
            memory.write_u64(key + 8, value);
        }
        let mut keys = Keys::<8>::of(keys, 8);
        let values = |keys: &Keys<8>| -> Vec<(u64, u64)> {
            keys.iter().map(|(_, key, value)| (key - AT, u64::from_le_bytes(value))).collect()
        };
        assert!(keys.read(&memory).unwrap());
        assert_eq!(values(&keys), [(0, 1), (0x18, 2), (0x1000, 3), (0x3000, 4)]);
        assert!(!keys.read(&memory).unwrap());
        memory.write(AT + 0x1008 + 7, &[0x80]);
        assert!(keys.read(&memory).unwrap());
        assert_eq!(keys.value(keys.index_of(AT + 0x1000).unwrap()).unwrap()[7], 0x80);
        assert!(!keys.read(&memory).unwrap());
        for (page, left) in [(0x3000, 3), (0x1000, 2), (0, 0)] {
            memory.remove_page(AT + page);
            assert!(keys.read(&memory).unwrap());
            assert!(!keys.read(&memory).unwrap());
            assert_eq!(keys.iter().count(), left);
        }
        assert_eq!(keys.index_of(AT + 8), None);
    }
}
