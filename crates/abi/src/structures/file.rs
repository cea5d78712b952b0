// SPDX-License-Identifier: Apache-2.0
//! Files.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::File;

/// A file is opened. Draft.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct FileOpen {
    /// The file.
    pub file: File,
    /// `O_…` as open(2) has them.
    pub flags: u32,
    /// What is to be done with it: `PROT_…`, `PROT_EXEC` where the kernel opens it to execute it; 0 where
    /// that is not known, and then `flags` are not either.
    pub access: u32,
}

/// What is in a regular file may have changed. Draft.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct FileModify {
    /// The file. Its version says whether it has changed since another record of it.
    pub file: File,
    /// `MODIFY_…`
    pub how: u32,
    /// `O_…` of what was open; 0 if nothing was.
    pub flags: u32,
}
