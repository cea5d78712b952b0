// SPDX-License-Identifier: Apache-2.0
//! What rules ask of a record, read from its bytes with every place checked.
//!
//! The offsets are those of api/ringfence.h; a test holds them against the BTF of the built object
//! (crates/probes/src/rules/layout.rs).

use crate::collection::Digest;
use crate::events::{self, Event};
use crate::model::{Bits, File, FileIdentity, Number, Process, ProcessKey};

/// `RINGFENCE_RECORD_MAX`.
pub const RECORD_MAX: usize = 12288;
/// Bytes of `struct ringfence_header`.
pub const HEADER: usize = 80;
/// Bytes of `struct ringfence_actor`.
pub const ACTOR: usize = 232;
/// No own part begins later, in bytes: the kernel side reads it at a bounded place.
pub const BODY_MAX: usize = 1024;

/// Offsets within `struct ringfence_header`.
pub mod header {
    #![allow(missing_docs, reason = "named as the fields of api/ringfence.h")]
    pub const SIZE: usize = 0;
    pub const TYPE: usize = 6;
    pub const BODY: usize = 8;
    pub const OUTCOME: usize = 11;
    pub const ERROR: usize = 12;
    pub const FLAGS: usize = 16;
    pub const RULE: usize = 20;
}

/// Offsets within `struct ringfence_actor`.
pub mod actor {
    #![allow(missing_docs, reason = "named as the fields of api/ringfence.h")]
    pub const PROCESS: usize = 0;
    pub const UID: usize = 36;
    pub const GID: usize = 40;
    pub const EUID: usize = 44;
    pub const EGID: usize = 48;
    pub const USER_NAMESPACE: usize = 96;
    pub const PID_NAMESPACE: usize = 100;
    pub const MOUNT_NAMESPACE: usize = 104;
    pub const NET_NAMESPACE: usize = 108;
    pub const CGROUP: usize = 112;
    pub const EXECUTABLE: usize = 120;
}

/// Offsets within `struct ringfence_file`.
pub mod file {
    #![allow(missing_docs, reason = "named as the fields of api/ringfence.h")]
    pub const DEVICE: usize = 0;
    pub const INODE: usize = 8;
    pub const VERSION: usize = 16;
    pub const FLAGS: usize = 48;
    pub const DIGEST_ALGORITHM: usize = 52;
    pub const DIGEST: usize = 56;
    pub const PATH: usize = 88;
}

/// `RINGFENCE_STRING_TRUNCATED | RINGFENCE_STRING_UNREACHABLE`.
const UNKNOWN: u16 = 0x3;

/// A record that rules can be asked about.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
    event: &'static Event,
    body: usize,
}

impl<'a> Record<'a> {
    /// Of its bytes, which can be more than the record. None where no rules can be for it: another
    /// type, or not whole.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let size = usize::try_from(u32_at(bytes, header::SIZE)?).ok()?;
        let bytes = bytes.get(..size).filter(|bytes| bytes.len() <= RECORD_MAX)?;
        let event = events::by_number(u16_at(bytes, header::TYPE)?)?;
        let body = usize::from(u16_at(bytes, header::BODY)?);
        let fits = (HEADER + ACTOR..=BODY_MAX).contains(&body) && body + event.size <= size;
        fits.then_some(Self { bytes, event, body })
    }

    /// Its type.
    #[must_use]
    pub fn event(&self) -> &'static Event {
        self.event
    }

    fn own_u32(&self, at: Option<usize>) -> Option<u32> {
        u32_at(self.bytes, self.body + at?)
    }

    /// A number of it.
    #[must_use]
    pub fn number(&self, number: Number) -> Option<u64> {
        let of_actor = |at| u32_at(self.bytes, HEADER + at).map(u64::from);
        match number {
            Number::Uid => of_actor(actor::UID),
            Number::Euid => of_actor(actor::EUID),
            Number::Gid => of_actor(actor::GID),
            Number::Egid => of_actor(actor::EGID),
            Number::Cgroup => u64_at(self.bytes, HEADER + actor::CGROUP),
            Number::UserNamespace => of_actor(actor::USER_NAMESPACE),
            Number::PidNamespace => of_actor(actor::PID_NAMESPACE),
            Number::MountNamespace => of_actor(actor::MOUNT_NAMESPACE),
            Number::NetNamespace => of_actor(actor::NET_NAMESPACE),
            Number::Own => self.own_u32(self.event.own.map(|(_, at)| at)).map(u64::from),
        }
    }

    /// A process of it.
    #[must_use]
    pub fn process(&self, process: Process) -> Option<ProcessKey> {
        let at = match process {
            Process::Actor => HEADER + actor::PROCESS,
            Process::Target => self.body + self.event.target?,
        };
        Some(ProcessKey { pid: u32_at(self.bytes, at)?, start: u64_at(self.bytes, at + 8)? })
    }

    fn file_at(&self, file: File) -> Option<usize> {
        match file {
            File::Executable => Some(HEADER + actor::EXECUTABLE),
            File::Subject => Some(self.body + self.event.file?),
        }
    }

    /// The identity of a file of it, with its version.
    #[must_use]
    pub fn file(&self, file: File) -> Option<FileIdentity> {
        let at = self.file_at(file)?;
        Some(FileIdentity {
            device: u64_at(self.bytes, at + file::DEVICE)?,
            inode: u64_at(self.bytes, at + file::INODE)?,
            version: u64_at(self.bytes, at + file::VERSION),
        })
    }

    /// The digest of a file of it, with `RINGFENCE_DIGEST_`, where it has one.
    #[must_use]
    pub fn digest(&self, file: File) -> Option<(u32, Digest)> {
        let at = self.file_at(file)?;
        let algorithm = u32_at(self.bytes, at + file::DIGEST_ALGORITHM)?;
        let digest = array_at(self.bytes, at + file::DIGEST)?;
        (algorithm != 0).then_some((algorithm, digest))
    }

    /// The path of a file of it, where it is whole and reachable.
    #[must_use]
    pub fn path(&self, file: File) -> Option<&'a [u8]> {
        self.string(self.file_at(file)? + file::PATH)
    }

    /// The name that it carries.
    #[must_use]
    pub fn name(&self) -> Option<&'a [u8]> {
        self.string(self.body + self.event.name_at?)
    }

    fn string(&self, at: usize) -> Option<&'a [u8]> {
        let offset = usize::try_from(u32_at(self.bytes, at)?).ok()?;
        let length = usize::from(u16_at(self.bytes, at + 4)?);
        let flags = u16_at(self.bytes, at + 6)?;
        if length == 0 || flags & UNKNOWN != 0 {
            return None;
        }
        self.bytes.get(offset..offset.checked_add(length)?)
    }

    /// Whether it is about a file at all.
    #[must_use]
    pub fn has_file(&self, file: File) -> bool {
        self.file_at(file).is_some()
    }

    /// Bits of it.
    #[must_use]
    pub fn bits(&self, bits: Bits) -> Option<u32> {
        match bits {
            Bits::Protection => self.own_u32(self.event.protection),
            Bits::Before => self.own_u32(self.event.before),
            Bits::Flags => self.own_u32(self.event.flags),
            Bits::Record => u32_at(self.bytes, header::FLAGS),
            Bits::Executable => u32_at(self.bytes, self.file_at(File::Executable)? + file::FLAGS),
            Bits::File => u32_at(self.bytes, self.file_at(File::Subject)? + file::FLAGS),
        }
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
