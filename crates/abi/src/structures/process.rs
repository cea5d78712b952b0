// SPDX-License-Identifier: Apache-2.0
//! Parts of the events of processes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{File, ProcessKey, StringRef};

/// A program is executed. Asked (class ask, and rules): before anything has changed, the actor is
/// who calls. Told: afterwards, the actor is what it has become.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessExec {
    /// What runs. For a script told of: the interpreter.
    pub file: File,
    /// The script whose interpreter file is, by its name; else nothing.
    pub script: StringRef,
    /// As the caller named the program.
    pub name: StringRef,
    /// Each ends with a zero. Asked: unverified.
    pub arguments: StringRef,
    /// How many arguments there are, those included that were truncated away.
    pub argument_count: u32,
    /// How many strings its environment has.
    pub environment_count: u32,
    /// `EXEC_…`
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// A process is made; the actor is its parent. thread_create has the same part.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessFork {
    /// The new process; for thread_create the process of the new thread.
    pub child: ProcessKey,
    /// Its first thread; for thread_create the new thread.
    pub thread: u32,
    /// Of the child, in the innermost pid namespace that it is in.
    pub inner_pid: u32,
}

/// A process has ended, with its last thread.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessExit {
    /// As given to exit, 0 to 255.
    pub code: u32,
    /// Signal that ended it, or 0.
    pub signal: u32,
    /// A core was dumped: 1.
    pub dumped: u32,
    /// Zero.
    pub reserved: u32,
    /// How long it lived, in nanoseconds.
    pub lifetime: u64,
    /// How long it ran in user mode, in nanoseconds; what its last thread ran since the last tick or switch
    /// is not counted yet.
    pub user_time: u64,
    /// How long it ran in the kernel, in nanoseconds, with the same omission.
    pub system_time: u64,
}

/// A signal is sent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessSignal {
    /// Whom the signal is for.
    pub target: ProcessKey,
    /// The thread that it is for, or 0 for the process.
    pub thread: u32,
    /// Its number.
    pub signal: u32,
    /// siginfo.si_code: SI_USER 0, SI_KERNEL 128, SI_TKILL -6 ...
    pub code: i32,
    /// Zero.
    pub reserved: u32,
    /// What the target runs.
    pub executable: File,
}

/// A process wants to see into another, or to change it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessTrace {
    /// The other process.
    pub target: ProcessKey,
    /// `TRACE_…`
    pub access: u32,
    /// Which thread of it.
    pub thread: u32,
    /// What the other process runs.
    pub executable: File,
}

/// The credentials of the actor change; the actor is as it was before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ProcessCredentials {
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
    /// Effective capabilities: bits by number of the capability.
    pub effective: u64,
    /// Permitted capabilities, likewise.
    pub permitted: u64,
    /// `CREDENTIALS_…`
    pub by: u32,
    /// Zero.
    pub reserved: u32,
}
