// SPDX-License-Identifier: Apache-2.0
//! Parts of the events of images: code that comes from files.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{File, StringRef};

/// A file is mapped executable, or a mapping of it is made so.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ImageMap {
    /// What is mapped.
    pub file: File,
    /// Where it was asked for or is; 0 if anywhere.
    pub address: u64,
    /// In bytes; 0 if not known.
    pub length: u64,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// `PROT_…`
    pub protection: u32,
    /// `MAP_…`
    pub flags: u32,
}

/// A module is loaded: init_module (no file) or finit_module.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ModuleLoad {
    /// Empty (inode 0) if it came from memory.
    pub file: File,
    /// Its name, where it is known already.
    pub name: StringRef,
    /// `MODULE_…`
    pub from: u32,
    /// Zero.
    pub reserved: u32,
}

/// A module is unloaded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ModuleUnload {
    /// Its name.
    pub name: StringRef,
}

/// A BPF program is loaded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct BpfLoad {
    /// `BPF_PROG_TYPE_…` (uapi/linux/bpf.h).
    pub program_type: u32,
    /// Expected attach type, `BPF_…` (uapi/linux/bpf.h).
    pub attach_type: u32,
    /// BTF id of the kernel's function or type that it is for, or 0.
    pub attach_btf_id: u32,
    /// How many instructions it has.
    pub instructions: u32,
    /// Its name, ended by a zero.
    pub name: [u8; 16],
}

/// Another kernel is loaded for kexec, or firmware from a file or memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct KernelLoad {
    /// Empty (inode 0) if it came from memory.
    pub file: File,
    /// Its name, where it has one.
    pub name: StringRef,
    /// `MODULE_FROM_…`
    pub from: u32,
    /// Zero.
    pub reserved: u32,
}
