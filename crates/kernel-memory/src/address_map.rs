// SPDX-License-Identifier: Apache-2.0
//! Maps and sets of addresses.
//!
//! Walks over the kernel's objects ask such a map about each address that they meet. The standard
//! hasher takes longer for that than the walk itself; this one is a multiplication. Its keys are drawn
//! once for each process, so that nobody can lay out objects such that their addresses collide; if
//! somebody could, it would cost time and nothing else.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// A map by address.
pub type AddressMap<V> = HashMap<u64, V, AddressState>;
/// A set of addresses.
pub type AddressSet = HashSet<u64, AddressState>;

/// The keys of the hasher.
#[derive(Clone, Copy, Debug)]
pub struct AddressState {
    add: u64,
    multiply: u64,
}

impl Default for AddressState {
    fn default() -> Self {
        static KEYS: OnceLock<AddressState> = OnceLock::new();
        *KEYS.get_or_init(|| {
            let random = RandomState::new();
            Self { add: random.hash_one(0), multiply: random.hash_one(1) | 1 }
        })
    }
}

impl BuildHasher for AddressState {
    type Hasher = AddressHasher;

    fn build_hasher(&self) -> AddressHasher {
        AddressHasher { state: self.add, multiply: self.multiply }
    }
}

/// Multiplies, and adds the upper half of the product to the lower.
#[derive(Clone, Copy, Debug)]
pub struct AddressHasher {
    state: u64,
    multiply: u64,
}

impl Hasher for AddressHasher {
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.multiply);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_objects_in_a_row_are_spread_over_all_buckets() {
        let state = AddressState::default();
        for size in [8, 64, 4096, 1 << 21] {
            let mut buckets = [0_u32; 256];
            for object in 0..4096_u64 {
                let hash = state.hash_one(0xffff_8880_0000_0000 + object * size);
                buckets[(hash >> 56) as usize] += 1;
                buckets[(hash & 0xff) as usize] += 1;
            }
            // 32 on average.
            let most = buckets.iter().max().copied().unwrap_or_default();
            assert!(most < 160, "{most} of 8192 in one bucket of 256, objects of {size}");
        }
    }

    #[test]
    fn what_is_put_in_is_found() {
        let mut map: AddressMap<u64> = AddressMap::default();
        map.extend((0..1000).map(|at| (at << 12, at)));
        assert!((0..1000).all(|at| map.get(&(at << 12)) == Some(&at)));
        assert_eq!(map.get(&1), None);
    }
}
