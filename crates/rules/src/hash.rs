// SPDX-License-Identifier: Apache-2.0
//! The hashes that keys are found by, the same as in bpf/lib/rules_hash.h.
//!
//! They choose who is looked at, never who matches: each candidate's conditions are all verified. So
//! they need be fast, not strong; the seed keeps people from choosing paths that fall together.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes a word into a hash.
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(MULTIPLIER);
    product ^ product >> 32
}

/// What an entry of the index is called: never 0.
pub(crate) fn tag(seed: u64, kind: u8, event: u16, first: u64, second: u64) -> u64 {
    let start = mix(seed, u64::from(kind) | u64::from(event) << 8);
    mix(mix(start, first), second).max(1)
}

/// Of a string, by words; of a path prefix it comes out as the walk of a path has it at its length.
pub(crate) fn string(seed: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = word(words.remainder());
    let whole = words.fold(seed, |hash, chunk| mix(hash, word(chunk)));
    mix(mix(whole, rest), bytes.len() as u64)
}

/// Up to eight bytes as a little-endian word, filled up with zeroes.
pub(crate) fn word(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(whole)
}

/// Which cell of the index a tag falls on, before the mask.
pub(crate) fn cell_of(salt: u64, tag: u64) -> u64 {
    mix(salt, tag)
}

/// Which bucket of a collection a digest falls on, before the reduction to their number.
pub(crate) fn bucket_of(salt: u64, digest: &[u8; 32]) -> u64 {
    mix(mix(salt, word(&digest[..8])), word(&digest[8..16]))
}
