// SPDX-License-Identifier: Apache-2.0
//! Parts of the events of memory.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{File, ProcessKey};

/// Memory without a file is mapped executable, or any memory writable and executable.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct MemoryMap {
    /// Where it was asked for or is; 0 if anywhere.
    pub address: u64,
    /// In bytes.
    pub length: u64,
    /// `PROT_…`
    pub protection: u32,
    /// `MAP_…`
    pub flags: u32,
    /// Empty (inode 0) for anonymous memory.
    pub file: File,
}

/// The protection of memory changes to executable, or from writable to executable.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct MemoryProtect {
    /// Where it begins.
    pub address: u64,
    /// In bytes.
    pub length: u64,
    /// `PROT_…` before.
    pub before: u32,
    /// `PROT_…` after.
    pub after: u32,
    /// Empty (inode 0) for anonymous memory.
    pub file: File,
}

/// One process reads or writes the memory of another.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct MemoryAccess {
    /// Whose memory it is.
    pub target: ProcessKey,
    /// `ACCESS_…`
    pub access: u32,
    /// By which way, `ACCESS_BY_…`
    pub by: u32,
    /// What the other process runs.
    pub executable: File,
}

/// A file without a name (memfd, deleted) is executed or mapped executable.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct MemoryFileless {
    /// The file.
    pub file: File,
    /// `FILELESS_…`
    pub how: u32,
    /// Zero.
    pub reserved: u32,
}
