// SPDX-License-Identifier: Apache-2.0
//! The structures of `api/ringfence.h`: the parts that all records share here, those of the events in a
//! file for each area. `tests/layout.rs` holds them to the header, field by field.

mod file;
mod image;
mod memory;
mod process;
mod session;
mod verdict;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use file::*;
pub use image::*;
pub use memory::*;
pub use process::*;
pub use session::*;
pub use verdict::*;

/// A place in the tail: a string or a list. `ringfence_string` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct StringRef {
    /// From the start of the record, in bytes; 0 where there is nothing.
    pub offset: u32,
    /// In bytes.
    pub length: u16,
    /// `STRING_…`
    pub flags: u16,
}

/// A process, from the start of its first thread to its end: no other has the same key until the
/// next boot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessKey {
    /// Of its thread group, in the initial pid namespace; 0 for nobody.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
    /// When its first thread started: CLOCK_BOOTTIME, in nanoseconds (task_struct.start_boottime).
    pub start: u64,
}

/// A file, as the kernel knows it. (device, inode, version) is the key of what was learned of its
/// contents.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct File {
    /// `major << 20 | minor` of its file system (`super_block.s_dev`).
    pub device: u64,
    /// Its number within the file system.
    pub inode: u64,
    /// Changes with its contents and attributes: the time of its last change in nanoseconds (inode
    /// ctime). Writes within one tick of the kernel's clock can have the same.
    pub version: u64,
    /// In bytes.
    pub size: u64,
    /// `S_IF…` and permission bits.
    pub mode: u32,
    /// Owner, in the initial user namespace.
    pub uid: u32,
    /// Group, in the initial user namespace.
    pub gid: u32,
    /// Hard links; 0: deleted, or never had a name.
    pub links: u32,
    /// `FILE_…`
    pub flags: u32,
    /// Of the digest, `DIGEST_…`; 0: none.
    pub digest_algorithm: u32,
    /// fs-verity's digest of the file, where it has one.
    pub digest: [u8; 32],
    /// As the kernel has it (d_path), not as the caller wrote it.
    pub path: StringRef,
}

/// What every record begins with.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Header {
    /// Of the whole record, in bytes; a multiple of 8.
    pub size: u32,
    /// Of the ABI: [`ABI`](crate::constants::ABI) of whoever made it.
    pub version: u16,
    /// Type of the event: [`PROCESS_EXEC`](crate::constants::PROCESS_EXEC) and so on.
    pub r#type: u16,
    /// Where the event's own part begins, in bytes from the start.
    pub body: u16,
    /// `CLASS_…`, one or more.
    pub classes: u8,
    /// `OUTCOME_…`
    pub outcome: u8,
    /// The errno with which it was denied, else 0. A few callers make another one of it (docs/rules.md).
    pub error: u16,
    /// Where the tail begins, in bytes from the start: tail - body is how long the event's own part
    /// is. 0: it is as long as it was when this ABI began.
    pub tail: u16,
    /// `FLAG_…`
    pub flags: u32,
    /// The rule that sent it to this client, or decided; 0: none. Its number is the client's own.
    pub rule: u32,
    /// How many records this client has lost since its session began, as this one was written.
    /// Never take it to fall: use the largest seen.
    pub lost: u64,
    /// One number for each event of this boot, the same for all clients that see it.
    pub global_sequence: u64,
    /// CLOCK_BOOTTIME, in nanoseconds.
    pub time: u64,
    /// What a verdict names; the same for all records of one event (asked, then told).
    pub event_id: u64,
    /// CLOCK_BOOTTIME, in nanoseconds; 0: nobody waits.
    pub deadline: u64,
    /// /proc/sys/kernel/random/boot_id as 16 bytes in the order of its text.
    pub boot_id: [u8; 16],
}

/// Who did it. All ids are those of the initial namespaces.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Actor {
    /// The process.
    pub process: ProcessKey,
    /// The process that it is a child of now.
    pub parent: ProcessKey,
    /// The thread that did it.
    pub thread: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved user id.
    pub suid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// User id for file systems.
    pub fsuid: u32,
    /// Group id for file systems.
    pub fsgid: u32,
    /// Of the login (audit), 4294967295 if there was none.
    pub login_uid: u32,
    /// The pid of the leader of its session.
    pub session: u32,
    /// The pid of the leader of its process group.
    pub group: u32,
    /// Effective capabilities: bits by number of the capability.
    pub effective: u64,
    /// Permitted capabilities, likewise.
    pub permitted: u64,
    /// Inode number of its user namespace, as in /proc/PID/ns.
    pub user_namespace: u32,
    /// Of its pid namespace.
    pub pid_namespace: u32,
    /// Of its mount namespace.
    pub mount_namespace: u32,
    /// Of its network namespace.
    pub net_namespace: u32,
    /// Id of its cgroup (v2), as in the inode number of its directory.
    pub cgroup: u64,
    /// What it runs.
    pub executable: File,
    /// Its name, ended by a zero.
    pub comm: [u8; 16],
}
