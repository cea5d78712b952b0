// SPDX-License-Identifier: Apache-2.0
//! The file in which a baseline is kept.
//!
//! All numbers are little-endian. A string is its length as u32 and that many bytes of UTF-8.
//!
//! ```text
//! 0    8  magic "RFBASE" 0x1a 0x0a
//! 8    4  version of the format, 2
//! 12   4  H, length of the header that follows
//! 16   H  header:
//!           u32     where the bytes came from: 0 memory at first check, 1 the kernel's image
//!           string  release            string  build id        string  boot id
//!           u64     taken at, seconds since 1970
//!           u32     number of facts, then for each:  string name, string value
//!           u32     number of regions, then for each:
//!                   u32 kind (0 text, 1 rodata), u32 zero, u64 start address, u64 length,
//!                   u64 offset of its bytes from the start of the file, a multiple of 4096
//!      …  regions' bytes, each from a page boundary so that the file can be mapped; zeros between
//! -32  32 SHA-256 of everything before it
//! ```
//!
//! The digest finds damage, and a file that someone edited without knowing the format. It does not
//! stop root from writing another baseline with a good digest: where that matters, keep the digest
//! ([`Baseline::digest`]) outside the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::{Baseline, BaselineKind, Identity, Placed, RegionKind};

const MAGIC: [u8; 8] = *b"RFBASE\x1a\n";
const VERSION: u32 = 2;
const PREFIX: usize = 16;
const DIGEST: usize = 32;
const PAGE: u64 = 4096;

/// The header of a valid file is a few kilobytes; a larger one is not ours.
const HEADER_LIMIT: u32 = 1 << 20;

/// Why a file does not serve as the baseline. Each says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Another file.
    #[error("it is not a Ringfence baseline (no RFBASE at its start); name another file")]
    NotABaseline,
    /// A format of another time.
    #[error(
        "it is a baseline in format {0}, this program reads format {VERSION}; move it away and \
         take a new one after you have checked the machine by other means"
    )]
    Version(u32),
    /// The structure does not hold together.
    #[error(
        "it is damaged: {what} at offset {offset}; restore it, or move it away to take another"
    )]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Bytes from the start of the file.
        offset: usize,
    },
    /// The content is not what was sealed.
    #[error(
        "its digest does not match its content: it was damaged or changed after it was sealed; \
         do not trust this machine's baseline before you know why, restore it from a copy"
    )]
    Digest,
    /// Another kernel.
    #[error(
        "it belongs to the kernel with build id {sealed}, the running one has {running}; take a \
         baseline for this kernel in another file"
    )]
    BuildId {
        /// What the file says.
        sealed: String,
        /// What runs.
        running: String,
    },
    /// Another boot: addresses and run-time state are no longer the same.
    #[error(
        "it was taken in boot {sealed}, this is boot {running}; a baseline of the first check \
         lasts for one boot, take a new one"
    )]
    BootId {
        /// What the file says.
        sealed: String,
        /// What runs.
        running: String,
    },
}

/// A region before its bytes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) kind: RegionKind,
    pub(super) start: u64,
    pub(super) length: u64,
}

/// Writes a baseline from front to back and hashes it on the way.
pub(super) struct Sealer<'w, W: Write> {
    sink: &'w mut W,
    hash: Sha256,
    at: u64,
}

impl<'w, W: Write> Sealer<'w, W> {
    /// Writes the header. The regions' bytes must follow in the order of `regions`.
    pub(super) fn begin(
        sink: &'w mut W,
        kind: BaselineKind,
        identity: &Identity,
        taken_at: u64,
        facts: &BTreeMap<String, String>,
        regions: &[Outline],
    ) -> io::Result<Self> {
        let mut header = Vec::new();
        let source: u32 = match kind {
            BaselineKind::FirstCheck => 0,
            BaselineKind::Image => 1,
        };
        header.extend(source.to_le_bytes());
        for text in [&identity.release, &identity.build_id, &identity.boot_id] {
            put_string(&mut header, text)?;
        }
        header.extend(taken_at.to_le_bytes());
        header.extend(count(facts.len())?.to_le_bytes());
        for (name, value) in facts {
            put_string(&mut header, name)?;
            put_string(&mut header, value)?;
        }
        header.extend(count(regions.len())?.to_le_bytes());
        let length = count(header.len() + regions.len() * 32)?;
        if length > HEADER_LIMIT {
            return Err(io::Error::other("the facts of a baseline exceed one megabyte"));
        }
        let mut offset = (PREFIX as u64 + u64::from(length)).next_multiple_of(PAGE);
        for region in regions {
            let kind: u64 = match region.kind {
                RegionKind::Text => 0,
                RegionKind::Rodata => 1,
            };
            for number in [kind, region.start, region.length, offset] {
                header.extend(number.to_le_bytes());
            }
            offset = (offset + region.length).next_multiple_of(PAGE);
        }
        let mut sealer = Self { sink, hash: Sha256::new(), at: 0 };
        sealer.put(&MAGIC)?;
        sealer.put(&VERSION.to_le_bytes())?;
        sealer.put(&length.to_le_bytes())?;
        sealer.put(&header)?;
        Ok(sealer)
    }

    /// Fills up to the next page boundary, where a region begins.
    pub(super) fn next_region(&mut self) -> io::Result<()> {
        let gap = self.at.next_multiple_of(PAGE) - self.at;
        let zeros = [0; PAGE as usize];
        self.put(zeros.get(..gap as usize).unwrap_or_default())
    }

    /// Writes bytes of the present region.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
        self.sink.write_all(bytes)
    }

    /// Writes the digest.
    pub(super) fn end(self) -> io::Result<()> {
        self.sink.write_all(&self.hash.finalize())?;
        self.sink.flush()
    }
}

impl Baseline {
    /// Writes it in the format above.
    pub fn seal(&self, sink: &mut impl Write) -> io::Result<()> {
        let outlines: Vec<Outline> = self
            .regions()
            .map(|region| Outline {
                kind: region.kind,
                start: region.start,
                length: region.bytes.len() as u64,
            })
            .collect();
        let mut sealer =
            Sealer::begin(sink, self.kind, &self.identity, self.taken_at, &self.facts, &outlines)?;
        for region in self.regions() {
            sealer.next_region()?;
            sealer.put(region.bytes)?;
        }
        sealer.end()
    }

    /// Opens a sealed baseline and uses its bytes in place.
    ///
    /// Everything is verified first: format, digest, and that it is about this kernel and boot.
    /// The release is for show and not compared; the build id says more.
    pub fn open(
        bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
        running: &Identity,
    ) -> Result<Self, SealError> {
        let baseline = Self::read(bytes)?;
        let sealed = &baseline.identity;
        if sealed.build_id != running.build_id {
            let (sealed, running) = (sealed.build_id.clone(), running.build_id.clone());
            return Err(SealError::BuildId { sealed, running });
        }
        if sealed.boot_id != running.boot_id {
            let (sealed, running) = (sealed.boot_id.clone(), running.boot_id.clone());
            return Err(SealError::BootId { sealed, running });
        }
        Ok(baseline)
    }

    /// Opens a sealed baseline whatever kernel and boot it is about: for tests and for looking.
    pub fn read(bytes: Box<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, SealError> {
        let file: &[u8] = (*bytes).as_ref();
        let mut cursor = Cursor { bytes: file, at: 0 };
        if cursor.take(MAGIC.len()).ok() != Some(&MAGIC) {
            return Err(SealError::NotABaseline);
        }
        let version = cursor.u32()?;
        if version != VERSION {
            return Err(SealError::Version(version));
        }
        let length = cursor.u32()?;
        if length > HEADER_LIMIT {
            return Err(SealError::Damaged { what: "the header is too long", offset: 12 });
        }
        let sealed_end = file.len().saturating_sub(DIGEST).max(PREFIX);
        let header_end = PREFIX + length as usize;
        if header_end > sealed_end {
            return Err(SealError::Damaged { what: "the file is cut off", offset: file.len() });
        }
        let digest = digest_of(file, sealed_end)?;
        cursor.bytes = file.get(..header_end).unwrap_or_default();
        let kind = match cursor.u32()? {
            0 => BaselineKind::FirstCheck,
            1 => BaselineKind::Image,
            _ => return Err(cursor.damaged("where its bytes came from is unknown")),
        };
        let identity = Identity {
            release: cursor.string()?,
            build_id: cursor.string()?,
            boot_id: cursor.string()?,
        };
        let taken_at = cursor.u64()?;
        let mut facts = BTreeMap::new();
        for _ in 0..cursor.u32()? {
            let name = cursor.string()?;
            facts.insert(name, cursor.string()?);
        }
        let mut regions = Vec::new();
        for _ in 0..cursor.u32()? {
            regions.push(cursor.region(sealed_end)?);
        }
        regions.sort_by_key(|region| region.start);
        // Which bytes are expected at an address, and which region is the text, must have one answer.
        let overlap = |pair: &[Placed]| match pair {
            [one, next] => one.start + one.length as u64 > next.start,
            _ => false,
        };
        let kinds: BTreeSet<RegionKind> = regions.iter().map(|region| region.kind).collect();
        if regions.windows(2).any(overlap) || kinds.len() < regions.len() {
            return Err(cursor.damaged("two regions are of one kind or overlap"));
        }
        let sites = OnceLock::new();
        Ok(Self { kind, identity, taken_at, facts, digest, regions, bytes, sites })
    }
}

fn digest_of(file: &[u8], sealed_end: usize) -> Result<[u8; 32], SealError> {
    let content = file.get(..sealed_end).unwrap_or_default();
    let digest: [u8; 32] = Sha256::digest(content).into();
    if file.get(sealed_end..) == Some(&digest) { Ok(digest) } else { Err(SealError::Digest) }
}

fn count(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other("a baseline holds too many parts"))
}

fn put_string(sink: &mut Vec<u8>, text: &str) -> io::Result<()> {
    sink.extend(count(text.len())?.to_le_bytes());
    sink.extend(text.as_bytes());
    Ok(())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn damaged(&self, what: &'static str) -> SealError {
        SealError::Damaged { what, offset: self.at }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], SealError> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.damaged("a part is cut off"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SealError> {
        self.take(N)?.try_into().map_err(|_| self.damaged("a part is cut off"))
    }

    fn u32(&mut self) -> Result<u32, SealError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, SealError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String, SealError> {
        let length = self.u32()? as usize;
        let text = self.take(length)?;
        let text = std::str::from_utf8(text).map_err(|_| self.damaged("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn region(&mut self, sealed_end: usize) -> Result<Placed, SealError> {
        let kind = match self.u64()? {
            0 => RegionKind::Text,
            1 => RegionKind::Rodata,
            _ => return Err(self.damaged("a region is of unknown kind")),
        };
        let (start, length, offset) = (self.u64()?, self.u64()?, self.u64()?);
        let placed = (|| {
            let length = usize::try_from(length).ok()?;
            let offset = usize::try_from(offset).ok()?;
            start.checked_add(length as u64)?;
            let within = offset.checked_add(length)? <= sealed_end;
            (within && length > 0 && offset.is_multiple_of(PAGE as usize)).then_some(Placed {
                kind,
                start,
                offset,
                length,
            })
        })();
        placed.ok_or_else(|| self.damaged("a region lies outside the file"))
    }
}
