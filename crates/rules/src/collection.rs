// SPDX-License-Identifier: Apache-2.0
//! Collections: sets of digests that rules ask for by name.
//!
//! Compiled, a collection is cells of two digests each, found by a hash of the digest and probed cell
//! by cell. A set of the kernel's own hash map would take four times the memory and a system call
//! for each few digests; this is written by one copy, and looked up without a lock.

use zerocopy::IntoBytes;

use crate::abi::{self, Cell};
use crate::error::{Place, Problem, Refused};
use crate::hash;

/// A digest of a file's contents (fs-verity).
pub type Digest = [u8; 32];

/// Most digests of one collection.
pub const DIGESTS: usize = 1_000_000;

pub(crate) const NAME_RULE: &str = "1 to 64 of a-z, 0-9, - and _";

/// Whether a collection can be called so.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

/// What made the digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// fs-verity with SHA-256.
    Sha256,
    /// fs-verity with SHA-512, of which a record has the first 32 bytes.
    Sha512Truncated,
}

impl Algorithm {
    /// `RINGFENCE_DIGEST_`
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512Truncated => 2,
        }
    }
}

/// A set of digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    algorithm: Algorithm,
    /// Sorted, each once.
    digests: Vec<Digest>,
}

impl Collection {
    /// Of digests in any order.
    ///
    /// # Errors
    /// When there are more than a million.
    pub fn new(algorithm: Algorithm, mut digests: Vec<Digest>) -> Result<Self, Refused> {
        digests.sort_unstable();
        digests.dedup();
        if digests.len() > DIGESTS {
            return Err(Refused::whole(format!(
                "{} digests are more than the {DIGESTS} of one collection",
                digests.len()
            )));
        }
        Ok(Self { algorithm, digests })
    }

    /// Reads a list: a digest in hexadecimal in each line, with comments after `#`. The digest can
    /// have `sha256:` before it, as `fsverity digest` prints it, and a name behind it.
    ///
    /// # Errors
    /// Everything that is wrong, with line and column.
    pub fn from_text(algorithm: Algorithm, text: &str) -> Result<Self, Refused> {
        let mut digests = Vec::new();
        let mut problems = Vec::new();
        for (number, line) in (1u32..).zip(text.lines()) {
            let content = line.split('#').next().unwrap_or_default();
            let Some(word) = content.split_whitespace().next() else { continue };
            let hex = word.strip_prefix("sha256:").or(word.strip_prefix("sha512:")).unwrap_or(word);
            if let Some(digest) = from_hex(hex) {
                digests.push(digest);
            } else if problems.len() < Refused::SHOWN {
                let before = content.len() - content.trim_start().len();
                let column = u32::try_from(before + word.len() - hex.len() + 1).unwrap_or(u32::MAX);
                problems.push(Problem {
                    place: Some(Place { line: number, column }),
                    path: String::new(),
                    message: "64 hexadecimal digits (of SHA-512 the first 64) are wanted"
                        .to_owned(),
                });
            }
        }
        if problems.is_empty() { Self::new(algorithm, digests) } else { Err(Refused { problems }) }
    }

    /// What made the digests.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digests, sorted.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// How many digests.
    #[must_use]
    pub fn count(&self) -> usize {
        self.digests.len()
    }

    /// Whether a digest, made by what a record says (`RINGFENCE_DIGEST_`), is in it.
    #[must_use]
    pub fn has(&self, algorithm: u32, digest: &Digest) -> bool {
        algorithm == self.algorithm.number() && self.digests.binary_search(digest).is_ok()
    }

    /// As it lies in its map. `salt` is best random: it decides which digests fall together.
    ///
    /// # Errors
    /// When too many digests fall together under several salts, as only made-up ones do.
    pub fn compile(&self, salt: u64) -> Result<Vec<Cell>, Refused> {
        (0..16)
            .find_map(|attempt| self.compile_with(hash::mix(salt, attempt), attempt > 7))
            .ok_or_else(|| {
                Refused::whole(
                    "the digests of this collection are no hashes: too many fall together"
                        .to_owned(),
                )
            })
    }

    fn compile_with(&self, salt: u64, roomy: bool) -> Option<Vec<Cell>> {
        // Half full: of a million random digests none is more than some twenty cells from where it
        // falls (two thirds full it is fifty), and they take 64 MB.
        let wanted = if roomy { self.digests.len() * 2 } else { self.digests.len() };
        let buckets = wanted + 1;
        let mut cells = vec![Cell::default(); buckets + 1];
        let mut used = vec![0u8; buckets];
        let mut most = 1;
        for digest in &self.digests {
            let start = hash::bucket_of(salt, digest) % buckets as u64;
            let mut at = usize::try_from(start).ok()?;
            let mut probes = 1;
            while *used.get(at)? == 2 {
                at = (at + 1) % buckets;
                probes += 1;
                if probes > abi::COLLECTION_PROBES {
                    return None;
                }
            }
            let place = usize::from(*used.get(at)?) * 32;
            let bytes = cells.get_mut(at + 1)?.as_mut_bytes();
            bytes.get_mut(place..place + 32)?.copy_from_slice(digest);
            *used.get_mut(at)? += 1;
            most = most.max(probes);
        }
        let header = abi::Collection {
            version: abi::VERSION,
            algorithm: self.algorithm.number(),
            buckets: u32::try_from(buckets).ok()?,
            probes: most,
            salt,
            count: self.digests.len() as u64,
            ..abi::Collection::default()
        };
        *cells.first_mut()? = header.into();
        Some(cells)
    }
}

/// A digest of 64 hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != digest.len() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_comments_prefixes_and_names() {
        let one = "ab".repeat(32);
        let text = format!("# known\n\nsha256:{one}  /usr/bin/true\n{one} # twice\n");
        let collection = Collection::from_text(Algorithm::Sha256, &text).unwrap();
        assert_eq!(collection.count(), 1);
        assert!(collection.has(1, &[0xab; 32]));
        assert!(!collection.has(2, &[0xab; 32]));
        assert!(!collection.has(1, &[0xac; 32]));
    }

    #[test]
    fn what_is_no_digest_is_told_with_its_place() {
        let error = Collection::from_text(Algorithm::Sha256, "\n  sha256:12\nxyz\n").unwrap_err();
        assert_eq!(error.problems[0].place, Some(Place { line: 2, column: 10 }));
        assert_eq!(error.problems[1].place, Some(Place { line: 3, column: 1 }));
    }

    #[test]
    fn digests_that_all_fall_together_are_refused() {
        // The bucket is made of the first sixteen bytes only.
        let alike = (0..200u8).map(|number| {
            let mut digest = [7; 32];
            digest[31] = number;
            digest
        });
        let collection = Collection::new(Algorithm::Sha256, alike.collect()).unwrap();
        assert!(collection.compile(1).is_err());
    }

    #[test]
    fn an_empty_collection_compiles() {
        let cells = Collection::new(Algorithm::Sha256, Vec::new()).unwrap().compile(1).unwrap();
        let header: abi::Collection = cells[0].into();
        assert_eq!((header.buckets, header.count), (1, 0));
    }
}
