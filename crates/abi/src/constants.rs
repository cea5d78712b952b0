// SPDX-License-Identifier: Apache-2.0
//! The constants of `api/ringfence.h`, without their prefix `RINGFENCE_`. `tests/layout.rs` holds them
//! to the header, name by name.

/// Version of all that is below. A client says which it knows as it opens its session.
pub const ABI: u16 = 1;
/// No record is longer, in bytes; a ring has at least eight times as much.
pub const RECORD_MAX: usize = 12_288;
/// Longest path and name that a record carries, in bytes; longer paths are truncated at their
/// beginning, with [`STRING_TRUNCATED`].
pub const PATH_MAX: usize = 4_096;
/// Longest list of arguments that a record carries, in bytes; longer ones are truncated at their
/// end.
pub const ARGUMENTS_MAX: usize = 4_096;

// types of events

/// A program is executed.
pub const PROCESS_EXEC: u16 = 1;
/// A process is made.
pub const PROCESS_FORK: u16 = 2;
/// A process has ended.
pub const PROCESS_EXIT: u16 = 3;
/// A signal is sent.
pub const PROCESS_SIGNAL: u16 = 4;
/// A process wants to see into another, or to change it.
pub const PROCESS_TRACE: u16 = 5;
/// The credentials of a process change.
pub const PROCESS_CREDENTIALS: u16 = 6;
/// A thread is made.
pub const THREAD_CREATE: u16 = 7;
/// A file is mapped executable.
pub const IMAGE_MAP: u16 = 16;
/// A module is loaded.
pub const MODULE_LOAD: u16 = 17;
/// A module is unloaded.
pub const MODULE_UNLOAD: u16 = 18;
/// A BPF program is loaded.
pub const BPF_LOAD: u16 = 19;
/// Another kernel is loaded for kexec.
pub const KEXEC_LOAD: u16 = 20;
/// Firmware is loaded.
pub const FIRMWARE_LOAD: u16 = 21;
/// Memory without a file is mapped executable, or any memory writable and executable.
pub const MEMORY_MAP: u16 = 32;
/// The protection of memory changes to executable.
pub const MEMORY_PROTECT: u16 = 33;
/// One process reads or writes the memory of another.
pub const MEMORY_ACCESS: u16 = 34;
/// A file without a name is executed or mapped executable.
pub const MEMORY_FILELESS: u16 = 35;
/// A file is opened.
pub const FILE_OPEN: u16 = 40;
/// A file that was changed is closed.
pub const FILE_MODIFY: u16 = 41;
/// Something was attempted against a protected object.
pub const TAMPER_ATTEMPT: u16 = 48;
/// A finding of the guard.
pub const KERNEL_FINDING: u16 = 52;
/// A way into the kernel that is locked was tried.
pub const KERNEL_LOCK_DENIED: u16 = 53;
/// Records did not reach this client. A client gets this and the following without asking for them.
pub const LOSS: u16 = 56;
/// A verdict of this client came too late or not at all.
pub const DEADLINE_MISSED: u16 = 57;
/// What can be had of an event changed.
pub const STAGE_CHANGED: u16 = 58;
/// The session ends.
pub const SHUTTING_DOWN: u16 = 59;
/// All types are below this, so that a set of them is one 64-bit word.
pub const TYPES: usize = 64;

// classes: why a record was sent

/// The client is told.
pub const CLASS_NOTIFY: u8 = 1;
/// A rule with the action notify, or dry run, of this client matched; `rule` of the header says
/// which.
pub const CLASS_RULE: u8 = 2;
/// The task waits for this client's verdict, until `deadline` of the header.
pub const CLASS_ASK: u8 = 4;

// outcomes

/// Nothing was decided: the event cannot be denied, or not by anybody yet.
pub const OUTCOME_NONE: u8 = 0;
/// It was allowed.
pub const OUTCOME_ALLOWED: u8 = 1;
/// It was denied; `error` of the header says how.
pub const OUTCOME_DENIED: u8 = 2;

// flags of a record

/// The kernel made this record where the thing is done, so without a record it was not done (or the
/// record is counted as lost). Without this flag it was made by a program that could have been gone
/// round, such as one on the entry of a system call.
pub const FLAG_MANDATORY: u32 = 0x1;
/// Some string of it is truncated.
pub const FLAG_TRUNCATED: u32 = 0x2;
/// The arguments come from memory that the caller can still change.
pub const FLAG_UNVERIFIED: u32 = 0x4;
/// The actor is the kernel itself (a kernel thread), not a process.
pub const FLAG_KERNEL_ACTOR: u32 = 0x8;
/// Some part of the record could not be read; its fields are zero.
pub const FLAG_INCOMPLETE: u32 = 0x10;

// parts

/// Only a part of it is here.
pub const STRING_TRUNCATED: u16 = 0x1;
/// A path that cannot be reached from the root of the initial mount namespace.
pub const STRING_UNREACHABLE: u16 = 0x2;
/// Made by memfd_create.
pub const FILE_MEMFD: u32 = 0x1;
/// Has no name any more.
pub const FILE_DELETED: u32 = 0x2;
/// Protected by fs-verity.
pub const FILE_VERITY: u32 = 0x4;
/// On a file system that lives in memory (tmpfs, ramfs, hugetlbfs).
pub const FILE_IN_MEMORY: u32 = 0x8;
/// Its mount has nosuid.
pub const FILE_NOSUID: u32 = 0x10;
/// Its mount has noexec.
pub const FILE_NOEXEC: u32 = 0x20;
/// Set-user-ID or set-group-ID bit that the mount lets take effect.
pub const FILE_SETID: u32 = 0x40;
/// SHA-256.
pub const DIGEST_SHA256: u32 = 1;
/// The first 32 bytes of SHA-512.
pub const DIGEST_SHA512_TRUNCATED: u32 = 2;

// process

/// Privileges are gained by the bits of the file.
pub const EXEC_SECURE: u32 = 0x1;
/// The file is deleted, or was made in memory: see memory_fileless.
pub const EXEC_FILELESS: u32 = 0x2;
/// A binfmt (script, misc) put another program in the place of the one that was named.
pub const EXEC_INTERPRETED: u32 = 0x4;
/// As PTRACE_MODE_READ: look only (/proc/PID/..., kcmp, pidfd_getfd needs the next).
pub const TRACE_READ: u32 = 1;
/// As PTRACE_MODE_ATTACH: change (ptrace, /proc/PID/mem, process_vm_*, pidfd_getfd).
pub const TRACE_ATTACH: u32 = 2;
/// PTRACE_TRACEME: the actor's parent is to trace the actor.
pub const TRACE_ME: u32 = 3;
/// By a call of the setuid family.
pub const CREDENTIALS_SETUID: u32 = 1;
/// By a call of the setgid family.
pub const CREDENTIALS_SETGID: u32 = 2;
/// By capset.
pub const CREDENTIALS_CAPSET: u32 = 3;
/// By executing a program.
pub const CREDENTIALS_EXEC: u32 = 4;

// image

/// From a file.
pub const MODULE_FROM_FILE: u32 = 1;
/// From memory of the caller.
pub const MODULE_FROM_MEMORY: u32 = 2;

// memory

/// Read.
pub const ACCESS_READ: u32 = 1;
/// Write.
pub const ACCESS_WRITE: u32 = 2;
/// ptrace.
pub const ACCESS_BY_PTRACE: u32 = 1;
/// /proc/PID/mem.
pub const ACCESS_BY_PROC_MEM: u32 = 2;
/// process_vm_readv, process_vm_writev.
pub const ACCESS_BY_PROCESS_VM: u32 = 3;
/// process_madvise.
pub const ACCESS_BY_PROCESS_MADVISE: u32 = 4;
/// Executed.
pub const FILELESS_EXEC: u32 = 1;
/// Mapped executable.
pub const FILELESS_MAP: u32 = 2;

// file

/// What was open for writing is open no more.
pub const MODIFY_CLOSED: u32 = 1;
/// It is truncated by who has it not open for writing.
pub const MODIFY_TRUNCATED: u32 = 2;

// session

/// The ring was full.
pub const LOST_RING_FULL: u32 = 1;
/// There was no buffer to make the record in.
pub const LOST_NO_BUFFER: u32 = 2;
/// The kernel (7.0 and later) ran no program for it; where forks and threads are, as forks.
pub const LOST_MISSED: u32 = 3;
/// It cannot be had.
pub const STAGE_UNAVAILABLE: u16 = 0;
/// Clients are told of it.
pub const STAGE_OBSERVED: u16 = 1;
/// Clients can be asked for a verdict.
pub const STAGE_ASKED: u16 = 2;
/// Rules in the kernel can deny it.
pub const STAGE_ENFORCED: u16 = 3;
/// The daemon was stopped.
pub const SHUTDOWN_STOPPED: u32 = 1;
/// The grant of this client was revoked.
pub const SHUTDOWN_REVOKED: u32 = 2;
/// The finding was not there before.
pub const FINDING_NEW: u32 = 1;
/// It was told of and is there no more.
pub const FINDING_GONE: u32 = 2;
/// It was found before this client subscribed, and is still there.
pub const FINDING_STANDING: u32 = 3;

// verdicts

/// Allow.
pub const VERDICT_ALLOW: u32 = 1;
/// Deny, with `error`.
pub const VERDICT_DENY: u32 = 2;
/// The same verdict holds for the same file in the same version: do not ask this client again.
pub const VERDICT_FLAG_CACHEABLE: u32 = 0x1;
/// The deadline was over.
pub const REFUSED_TOO_LATE: u32 = 1;
/// This client had answered already.
pub const REFUSED_ALREADY_ANSWERED: u32 = 2;
/// This client was never asked about it.
pub const REFUSED_NOT_ASKED: u32 = 3;
/// Neither allow nor deny, an unknown flag, an impossible errno, or not 24 bytes (event_id 0).
pub const REFUSED_MALFORMED: u32 = 4;
