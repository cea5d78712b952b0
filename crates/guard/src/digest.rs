// SPDX-License-Identifier: Apache-2.0
//! Keyed digests of pages of memory, by which bytes that were looked at are known again.
//!
//! The digest is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, CRYPTO '99) under a key of
//! random words as long as a page: bytes that differ from others of the same length have the same
//! digest with a probability of at most 2^-32, whoever chose the difference, unless he knows the key.
//! Knowing it takes reading this process, which could be changed as well then.

use std::hash::{BuildHasher, RandomState};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use kernel_memory::{KernelMemory, Piece, ReadError};

/// The most bytes of which there is one digest.
pub(crate) const PAGE: usize = 4096;

/// What a page is known again by.
pub(crate) type Digest = u128;

/// Bytes that have two words of a key.
const PAIR: usize = 2 * size_of::<u64>();

/// A key. The one by default is none: [`Key::draw`] makes one. Copies are the same key.
#[derive(Clone, Debug)]
pub(crate) struct Key(Rc<[u64]>);

impl Default for Key {
    fn default() -> Self {
        Self(Rc::new([]))
    }
}

impl Key {
    /// A new one that nobody knows.
    pub(crate) fn draw() -> Self {
        let random = RandomState::new();
        Self((0..PAGE / size_of::<u64>()).map(|word| random.hash_one(word)).collect())
    }

    /// The digest of a page or of a part of one.
    pub(crate) fn digest(&self, bytes: &[u8]) -> Digest {
        let (pairs, rest) = bytes.as_chunks::<PAIR>();
        let whole = sum(pairs, &self.0);
        if rest.is_empty() {
            return whole;
        }
        let mut last = [0; PAIR];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let key = self.0.get(2 * pairs.len()..).unwrap_or_default();
        whole.wrapping_add(sum(&[last], key))
    }
}

impl Key {
    /// The digest of each page of a range, counted from its start, which need not be the start of one.
    pub(crate) fn digests_of(
        &self,
        memory: &dyn KernelMemory,
        range: &Range<u64>,
        digests: &mut Vec<Digest>,
    ) -> Result<(), ReadError> {
        // What is left of a chunk at the end of a piece: pieces end where pages end.
        let mut begun: Vec<u8> = Vec::new();
        let mut missing = None;
        memory.visit(range.start, range.end - range.start, &mut |piece| {
            let mut bytes = match piece {
                Piece::Bytes { bytes, .. } => bytes,
                Piece::Unreadable { address, .. } => {
                    missing = Some(address);
                    return ControlFlow::Break(());
                }
            };
            if !begun.is_empty() {
                let (more, rest) = bytes.split_at(bytes.len().min(PAGE - begun.len()));
                begun.extend_from_slice(more);
                bytes = rest;
                if begun.len() == PAGE {
                    digests.push(self.digest(&begun));
                    begun.clear();
                }
            }
            let whole = bytes.chunks_exact(PAGE);
            begun.extend_from_slice(whole.remainder());
            digests.extend(whole.map(|chunk| self.digest(chunk)));
            ControlFlow::Continue(())
        })?;
        if let Some(address) = missing {
            return Err(ReadError::Unreadable { address, through: memory.name() });
        }
        if !begun.is_empty() {
            digests.push(self.digest(&begun));
        }
        Ok(())
    }
}

/// By what this processor is quick at: it is what half of a pass is spent on. Which of the two it is
/// stays the same for as long as a digest does.
fn sum(pairs: &[[u8; PAIR]], key: &[u64]) -> Digest {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { narrow_avx2(pairs, key) };
    }
    wide(pairs, key)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn narrow_avx2(pairs: &[[u8; PAIR]], key: &[u64]) -> Digest {
    narrow(pairs.as_flattened().as_chunks().0, key)
}

/// NH with halves of words: the sum of products of neighbouring ones, each with its part of the key
/// added. Several at once by wide instructions.
#[inline(always)]
fn narrow(words: &[[u8; 8]], key: &[u64]) -> Digest {
    let add = |word: u64, key: u64| (word as u32).wrapping_add(key as u32);
    let sum = words.iter().zip(key).fold(0_u64, |sum, (word, key)| {
        let word = u64::from_le_bytes(*word);
        let product = u64::from(add(word, *key)) * u64::from(add(word >> 32, *key >> 32));
        sum.wrapping_add(product)
    });
    sum.into()
}

/// NH with whole words, one product for two of them: for processors whose widest multiplication this
/// is. One that is emulated needs a quarter of the time that half as wide ones by SSE2 take it.
fn wide(pairs: &[[u8; PAIR]], key: &[u64]) -> Digest {
    pairs.iter().zip(key.as_chunks::<2>().0).fold(0, |sum: Digest, (pair, key)| {
        let pair = Digest::from_le_bytes(*pair);
        let first = (pair as u64).wrapping_add(key[0]);
        let second = ((pair >> 64) as u64).wrapping_add(key[1]);
        sum.wrapping_add(Digest::from(first) * Digest::from(second))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_counts_in_a_page_and_in_a_part_of_one() {
        let key = Key::draw();
        for length in [1, 7, 8, 9, 64, 4091, 4096] {
            let mut bytes: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
            let digest = key.digest(&bytes);
            assert_eq!(key.digest(&bytes), digest);
            for at in 0..length {
                bytes[at] ^= 0x80;
                assert_ne!(key.digest(&bytes), digest, "byte {at} of {length}");
                bytes[at] ^= 0x80;
            }
            assert_ne!(Key::draw().digest(&bytes), digest);
        }
    }

    #[test]
    fn each_byte_counts_on_each_processor() {
        let key = Key::draw().0;
        let mut bytes: Vec<u8> = (0..PAGE).map(|at| ((at * 7919) >> 3) as u8).collect();
        let both = |bytes: &[u8]| {
            let (pairs, words) = (bytes.as_chunks::<PAIR>().0, bytes.as_chunks::<8>().0);
            [wide(pairs, &key), narrow(words, &key)]
        };
        for length in [16, 48, 64, 4080, 4096] {
            let before = both(&bytes[..length]);
            for at in 0..length {
                bytes[at] ^= 1;
                let after = both(&bytes[..length]);
                assert!(after[0] != before[0] && after[1] != before[1], "byte {at} of {length}");
                bytes[at] ^= 1;
            }
        }
    }

    #[test]
    fn wide_instructions_give_the_same_digest() {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            let key = Key::draw().0;
            let bytes: Vec<u8> = (0..PAGE).map(|at| ((at * 7919) >> 3) as u8).collect();
            for length in [16, 48, 64, 80, 4080, 4096] {
                let (pairs, words) = (bytes[..length].as_chunks().0, bytes[..length].as_chunks().0);
                assert_eq!(sum(pairs, &key), narrow(words, &key));
            }
        }
    }
}
