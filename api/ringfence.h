/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Ringfence: the records that a client reads from its ring.
 *
 * This file is the contract. The programs in the kernel fill these structures, crates/abi has them
 * as checked Rust types (a test holds both to each other by BTF), and a client in C includes it.
 *
 * Rules of all layouts
 *   - Little-endian. Integers of fixed width only: no bool, no enum, no pointer.
 *   - Padding is a field, named reserved, and zero. Whoever writes it otherwise breaks the
 *     contract; whoever reads it otherwise than zero ignores it.
 *   - The actor and the events' own parts grow at their ends only, and never change otherwise
 *     within one ABI version. Readers take the size of each from the record (header.body and
 *     header.tail) and must not read a field that the record is too short for.
 *   - The header does not grow, as the actor begins where it ends; neither does what stands
 *     within other structures (string, process key, file).
 *   - Strings and lists are in the tail, where a struct ringfence_string points to. They are bytes
 *     as the kernel has them: not UTF-8 by promise, and without a final zero.
 *   - Unknown types, flags and values are to be skipped, not refused.
 *
 * A record, in order
 *   struct ringfence_header
 *   struct ringfence_actor      who did it
 *   struct ringfence_<event>    what was done, at header.body
 *   tail                        strings and lists, each where its reference says
 *
 * Where records come from. A ring is a BPF ring buffer (BPF_MAP_TYPE_RINGBUF), whose descriptor a
 * client gets with its session and maps: one page with the consumer's position, which the client
 * writes; one page with the producer's position, and the data twice in a row, which it can only
 * read (kernel/bpf/ringbuf.c, 5.8 and later). Each entry has 8 bytes of the kernel's before it:
 * length with two flags (BUSY in bit 31, DISCARD in bit 30), page offset. Entries with DISCARD are
 * to be skipped; one with BUSY is not finished.
 *
 * Order and loss. The order in the ring is the order of the records. The number of a record in its
 * client's stream is its place in the ring, counted from the start of the session, plus the largest
 * header.lost seen up to it: so each client knows exactly how many it missed, and where. The kernel
 * does not number records for a client, because a number that is taken before there is a place for
 * the record comes out of order on a machine with two processors.
 */
#ifndef RINGFENCE_H
#define RINGFENCE_H

#ifndef RINGFENCE_KERNEL_TYPES_H
#include <linux/types.h>
#endif

/* Version of all that is below. A client says which it knows as it opens its session. */
#define RINGFENCE_ABI 1

/* No record is longer, in bytes; a ring has at least eight times as much. */
#define RINGFENCE_RECORD_MAX 12288

/* Longest path, name and argument list that a record carries, in bytes; longer ones are truncated,
 * with RINGFENCE_STRING_TRUNCATED: paths at their beginning, lists at their end. */
#define RINGFENCE_PATH_MAX	4096
#define RINGFENCE_ARGUMENTS_MAX 4096

/* --- types of events ------------------------------------------------------------------------- */

/* Process */
#define RINGFENCE_PROCESS_EXEC	      1
#define RINGFENCE_PROCESS_FORK	      2
#define RINGFENCE_PROCESS_EXIT	      3
#define RINGFENCE_PROCESS_SIGNAL      4
#define RINGFENCE_PROCESS_TRACE	      5
#define RINGFENCE_PROCESS_CREDENTIALS 6
#define RINGFENCE_THREAD_CREATE	      7
/* Image */
#define RINGFENCE_IMAGE_MAP	16
#define RINGFENCE_MODULE_LOAD	17
#define RINGFENCE_MODULE_UNLOAD 18
#define RINGFENCE_BPF_LOAD	19
#define RINGFENCE_KEXEC_LOAD	20
#define RINGFENCE_FIRMWARE_LOAD 21
/* Memory */
#define RINGFENCE_MEMORY_MAP	  32
#define RINGFENCE_MEMORY_PROTECT  33
#define RINGFENCE_MEMORY_ACCESS	  34
#define RINGFENCE_MEMORY_FILELESS 35
/* File */
#define RINGFENCE_FILE_OPEN   40
#define RINGFENCE_FILE_MODIFY 41
/* Tamper protection */
#define RINGFENCE_TAMPER_ATTEMPT 48
/* Kernel */
#define RINGFENCE_KERNEL_FINDING     52
#define RINGFENCE_KERNEL_LOCK_DENIED 53
/* Session: a client gets these without asking for them. */
#define RINGFENCE_LOSS		  56
#define RINGFENCE_DEADLINE_MISSED 57
#define RINGFENCE_STAGE_CHANGED	  58
#define RINGFENCE_SHUTTING_DOWN	  59
/* All types are below this, so that a set of them is one 64-bit word. */
#define RINGFENCE_TYPES 64

/* --- classes: why a record was sent ---------------------------------------------------------- */

/* The client is told. */
#define RINGFENCE_CLASS_NOTIFY 1
/* A rule with the action notify, or dry run, of this client matched; header.rule says which. */
#define RINGFENCE_CLASS_RULE 2
/* The task waits for this client's verdict, until header.deadline. */
#define RINGFENCE_CLASS_ASK 4

/* --- outcomes -------------------------------------------------------------------------------- */

/* Nothing was decided: the event cannot be denied, or not by anybody yet. */
#define RINGFENCE_OUTCOME_NONE	  0
#define RINGFENCE_OUTCOME_ALLOWED 1
#define RINGFENCE_OUTCOME_DENIED  2

/* --- flags of a record ----------------------------------------------------------------------- */

/* The kernel made this record where the thing is done, so without a record it was not done (or the
 * record is counted as lost). Without this flag it was made by a program that could have been gone
 * round, such as one on the entry of a system call. */
#define RINGFENCE_FLAG_MANDATORY 0x1
/* Some string of it is truncated. */
#define RINGFENCE_FLAG_TRUNCATED 0x2
/* The arguments come from memory that the caller can still change. */
#define RINGFENCE_FLAG_UNVERIFIED 0x4
/* The actor is the kernel itself (a kernel thread), not a process. */
#define RINGFENCE_FLAG_KERNEL_ACTOR 0x8
/* Some part of the record could not be read; its fields are zero. */
#define RINGFENCE_FLAG_INCOMPLETE 0x10

/* --- parts ----------------------------------------------------------------------------------- */

/* A place in the tail. */
struct ringfence_string {
	/* From the start of the record, in bytes; 0 where there is nothing. */
	__u32 offset;
	/* In bytes. */
	__u16 length;
	/* RINGFENCE_STRING_ */
	__u16 flags;
};

#define RINGFENCE_STRING_TRUNCATED 0x1
/* A path that cannot be reached from the root of the initial mount namespace. */
#define RINGFENCE_STRING_UNREACHABLE 0x2

/* A process, from the start of its first thread to its end. No other has its key in this boot. */
struct ringfence_process_key {
	/* Of its thread group, in the initial pid namespace; 0 for nobody. */
	__u32 pid;
	__u32 reserved;
	/* task_struct.start_boottime of its first thread: CLOCK_BOOTTIME, in nanoseconds. */
	__u64 start;
};

/* A file. (device, inode, version) is the key of what was learned of its contents. */
struct ringfence_file {
	/* major << 20 | minor of its file system (super_block.s_dev). */
	__u64 device;
	__u64 inode;
	/* Changes with its contents and attributes: the time of its last change in nanoseconds
	 * (inode ctime). Writes within one tick of the kernel's clock can have the same. */
	__u64 version;
	/* In bytes. */
	__u64 size;
	/* S_IF... and permission bits. */
	__u32 mode;
	/* Owner, in the initial user namespace. */
	__u32 uid;
	__u32 gid;
	/* Hard links; 0: deleted, or never had a name. */
	__u32 links;
	/* RINGFENCE_FILE_ */
	__u32 flags;
	/* Of the digest, RINGFENCE_DIGEST_; 0: none. */
	__u32 digest_algorithm;
	/* fs-verity's digest of the file, where it has one. */
	__u8 digest[32];
	/* As the kernel has it (d_absolute_path), not as the caller wrote it; " (deleted)" is a
	 * flag. What never was in a directory has its name behind a slash: /memfd:NAME. */
	struct ringfence_string path;
};

/* Made by memfd_create. */
#define RINGFENCE_FILE_MEMFD 0x1
/* Has no name any more. */
#define RINGFENCE_FILE_DELETED 0x2
/* Protected by fs-verity. */
#define RINGFENCE_FILE_VERITY 0x4
/* On a file system that lives in memory (tmpfs, ramfs, hugetlbfs). */
#define RINGFENCE_FILE_IN_MEMORY 0x8
/* Its mount has nosuid, noexec. */
#define RINGFENCE_FILE_NOSUID 0x10
#define RINGFENCE_FILE_NOEXEC 0x20
/* Set-user-ID or set-group-ID bit that the mount lets take effect. */
#define RINGFENCE_FILE_SETID 0x40

#define RINGFENCE_DIGEST_SHA256		  1
#define RINGFENCE_DIGEST_SHA512_TRUNCATED 2

struct ringfence_header {
	/* Of the whole record, in bytes; a multiple of 8. */
	__u32 size;
	/* RINGFENCE_ABI of whoever made it. */
	__u16 version;
	/* RINGFENCE_PROCESS_EXEC ... */
	__u16 type;
	/* Where the event's own part begins, in bytes from the start. */
	__u16 body;
	/* RINGFENCE_CLASS_, one or more. */
	__u8 classes;
	/* RINGFENCE_OUTCOME_ */
	__u8 outcome;
	/* The errno with which it was denied, else 0. A few callers make another one of it: docs/rules.md
	 * has them. */
	__u16 error;
	/* Where the tail begins, in bytes from the start: tail - body is how long the event's own
	 * part is. 0: it is as long as it was when this ABI began. */
	__u16 tail;
	/* RINGFENCE_FLAG_ */
	__u32 flags;
	/* The rule that sent it to this client, or decided, by the client's number; 0: none. */
	__u32 rule;
	/* How many records this client has lost since its session began, as this one was written.
	 * Never take it to fall: use the largest seen. */
	__u64 lost;
	/* One number for each event of this boot, the same for all clients that see it. What two
	 * processors tell of at the same time stands in a ring in either order, and not in the same
	 * in each client's; what one processor tells of stands in its order. */
	__u64 global_sequence;
	/* CLOCK_BOOTTIME, in nanoseconds. */
	__u64 time;
	/* What a verdict names; the same for all records of one event (asked, then told). */
	__u64 event_id;
	/* CLOCK_BOOTTIME, in nanoseconds; 0: nobody waits. */
	__u64 deadline;
	/* /proc/sys/kernel/random/boot_id as 16 bytes in the order of its text. */
	__u8 boot_id[16];
};

/* Who did it. All ids are those of the initial namespaces. */
struct ringfence_actor {
	struct ringfence_process_key process;
	/* The process that it is a child of now. */
	struct ringfence_process_key parent;
	/* The thread that did it. */
	__u32 thread;
	/* Real, effective, saved and file system ids. */
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
	__u32 suid;
	__u32 sgid;
	__u32 fsuid;
	__u32 fsgid;
	/* Of the login (audit), 4294967295 if there was none. */
	__u32 login_uid;
	/* Of its session and process group: pids of their leaders. */
	__u32 session;
	__u32 group;
	/* Bits by number of the capability. */
	__u64 effective;
	__u64 permitted;
	/* Inode numbers of its namespaces, as in /proc/PID/ns. */
	__u32 user_namespace;
	__u32 pid_namespace;
	__u32 mount_namespace;
	__u32 net_namespace;
	/* Id of its cgroup (v2), as in the inode number of its directory. */
	__u64 cgroup;
	/* What it runs. */
	struct ringfence_file executable;
	/* Its name, ends with a zero. */
	__u8 comm[16];
};

/* --- process --------------------------------------------------------------------------------- */

/*
 * A program is executed. Asked (class ask, and rules): before anything has changed, the actor is
 * who calls. Told: afterwards, the actor is what it has become.
 */
struct ringfence_process_exec {
	/* What runs. For a script told of: the interpreter. */
	struct ringfence_file file;
	/* The script whose interpreter file is, by its name; else nothing. */
	struct ringfence_string script;
	/* As the caller named the program. */
	struct ringfence_string name;
	/* Each ends with a zero. Asked: unverified. */
	struct ringfence_string arguments;
	/* How many there are, those included that were truncated away. */
	__u32 argument_count;
	__u32 environment_count;
	/* RINGFENCE_EXEC_ */
	__u32 flags;
	__u32 reserved;
};

/* Privileges are gained by the bits of the file. */
#define RINGFENCE_EXEC_SECURE 0x1
/* The file is deleted, or was made in memory: see memory_fileless. */
#define RINGFENCE_EXEC_FILELESS 0x2
/* A binfmt (script, misc) put another program in the place of the one that was named. */
#define RINGFENCE_EXEC_INTERPRETED 0x4

/* A process is made; the actor is its parent. thread_create has the same part. */
struct ringfence_process_fork {
	struct ringfence_process_key child;
	/* Its first thread; for thread_create the new thread. */
	__u32 thread;
	/* Of the child, in the innermost pid namespace that it is in. */
	__u32 inner_pid;
};

/* A process has ended, with its last thread. */
struct ringfence_process_exit {
	/* As given to exit, 0 to 255. */
	__u32 code;
	/* Signal that ended it, or 0. */
	__u32 signal;
	/* A core was dumped: 1. */
	__u32 dumped;
	__u32 reserved;
	/* How long it lived and ran in user and kernel mode, in nanoseconds. What its last thread
	 * ran since the last tick or switch (at most 1 / CONFIG_HZ seconds) is not counted yet. */
	__u64 lifetime;
	__u64 user_time;
	__u64 system_time;
};

/* A signal is sent. */
struct ringfence_process_signal {
	struct ringfence_process_key target;
	/* The thread that it is for, or 0 for the process. */
	__u32 thread;
	__u32 signal;
	/* siginfo.si_code: SI_USER 0, SI_KERNEL 128, SI_TKILL -6 ... */
	__s32 code;
	__u32 reserved;
	/* What the target runs. */
	struct ringfence_file executable;
};

/* A process wants to see into another, or to change it. */
struct ringfence_process_trace {
	struct ringfence_process_key target;
	/* RINGFENCE_TRACE_ */
	__u32 access;
	__u32 thread;
	struct ringfence_file executable;
};

/* As PTRACE_MODE_READ: look only (/proc/PID/..., kcmp, pidfd_getfd needs the next). */
#define RINGFENCE_TRACE_READ 1
/* As PTRACE_MODE_ATTACH: change (ptrace, /proc/PID/mem, process_vm_*, pidfd_getfd). */
#define RINGFENCE_TRACE_ATTACH 2
/* PTRACE_TRACEME: the actor's parent is to trace the actor. */
#define RINGFENCE_TRACE_ME 3

/* The credentials of the actor change; the actor is as it was before. */
struct ringfence_process_credentials {
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
	__u32 suid;
	__u32 sgid;
	__u32 fsuid;
	__u32 fsgid;
	__u64 effective;
	__u64 permitted;
	/* RINGFENCE_CREDENTIALS_ */
	__u32 by;
	__u32 reserved;
};

#define RINGFENCE_CREDENTIALS_SETUID 1
#define RINGFENCE_CREDENTIALS_SETGID 2
#define RINGFENCE_CREDENTIALS_CAPSET 3
#define RINGFENCE_CREDENTIALS_EXEC   4

/* --- image ----------------------------------------------------------------------------------- */

/* A file is mapped executable, or a mapping of it is made so. */
struct ringfence_image_map {
	struct ringfence_file file;
	/* Where it is, and its length in bytes: of the whole mapping where its protection is about
	 * to change; 0 where it is told of before it is mapped. */
	__u64 address;
	__u64 length;
	/* Of the file, in bytes; 0 as above. */
	__u64 offset;
	/* PROT_ */
	__u32 protection;
	/* MAP_ */
	__u32 flags;
};

/* A module is loaded: init_module (no file) or finit_module. */
struct ringfence_module_load {
	/* Empty (inode 0) if it came from memory. */
	struct ringfence_file file;
	/* Its name. Before it is read that is the name of its file up to the first point, with '_' for
	 * '-', and empty if it came from memory. */
	struct ringfence_string name;
	/* RINGFENCE_MODULE_FROM_; 0: not known, where it is told of by a tracepoint. */
	__u32 from;
	__u32 reserved;
};

#define RINGFENCE_MODULE_FROM_FILE   1
#define RINGFENCE_MODULE_FROM_MEMORY 2

struct ringfence_module_unload {
	struct ringfence_string name;
};

/* A BPF program is loaded. */
struct ringfence_bpf_load {
	/* BPF_PROG_TYPE_, expected BPF_ attach type (uapi/linux/bpf.h). */
	__u32 program_type;
	__u32 attach_type;
	/* Of the kernel's function or type that it is for, or 0. */
	__u32 attach_btf_id;
	/* Instructions. */
	__u32 instructions;
	/* Its name, ends with a zero. */
	__u8 name[16];
};

/* Another kernel is loaded for kexec, or firmware from a file or memory. */
struct ringfence_kernel_load {
	struct ringfence_file file;
	/* Empty. */
	struct ringfence_string name;
	/* RINGFENCE_MODULE_FROM_ */
	__u32 from;
	__u32 reserved;
};

/* --- memory ---------------------------------------------------------------------------------- */

/* Memory without a file is mapped executable, or any memory writable and executable. Address and
 * length are 0 where it is told of before it is mapped. */
struct ringfence_memory_map {
	__u64 address;
	__u64 length;
	__u32 protection;
	__u32 flags;
	/* Empty (inode 0) for anonymous memory. */
	struct ringfence_file file;
};

/* The protection of memory changes to executable, or from writable to executable. */
struct ringfence_memory_protect {
	__u64 address;
	__u64 length;
	/* PROT_ before and after; before is 0 where it is not known (RINGFENCE_FLAG_INCOMPLETE). */
	__u32 before;
	__u32 after;
	struct ringfence_file file;
};

/* One process reads or writes the memory of another. */
struct ringfence_memory_access {
	struct ringfence_process_key target;
	/* RINGFENCE_ACCESS_, or both: by /proc/PID/mem or ptrace one can do either. */
	__u32 access;
	/* By which way, RINGFENCE_ACCESS_BY_ */
	__u32 by;
	struct ringfence_file executable;
};

#define RINGFENCE_ACCESS_READ		    1
#define RINGFENCE_ACCESS_WRITE		    2
#define RINGFENCE_ACCESS_BY_PTRACE	    1
#define RINGFENCE_ACCESS_BY_PROC_MEM	    2
#define RINGFENCE_ACCESS_BY_PROCESS_VM	    3
#define RINGFENCE_ACCESS_BY_PROCESS_MADVISE 4

/* A file without a name (memfd, deleted) is executed or mapped executable. */
struct ringfence_memory_fileless {
	struct ringfence_file file;
	/* RINGFENCE_FILELESS_ */
	__u32 how;
	__u32 reserved;
};

#define RINGFENCE_FILELESS_EXEC 1
#define RINGFENCE_FILELESS_MAP	2

/* --- file ------------------------------------------------------------------------------------ */

/* A file is opened. Draft. */
struct ringfence_file_open {
	struct ringfence_file file;
	/* O_; 0 where fanotify asks, which does not say it. */
	__u32 flags;
	/* What for, as PROT_; PROT_EXEC by the kernel, which executes it. 0 as above. */
	__u32 access;
};

/* What is in a regular file may have changed: its version says whether it has. Draft. */
struct ringfence_file_modify {
	struct ringfence_file file;
	/* RINGFENCE_MODIFY_ */
	__u32 how;
	/* O_ of what was open; 0 if nothing was. */
	__u32 flags;
};

/* It was open for writing, and nobody has it open or mapped so any more; it is truncated by who has
 * it not open for writing. */
#define RINGFENCE_MODIFY_CLOSED	   1
#define RINGFENCE_MODIFY_TRUNCATED 2

/* --- session --------------------------------------------------------------------------------- */

/* Records did not reach this client. Comes as soon as there is place again. No actor (zero). */
struct ringfence_loss {
	/* Since the last loss record. */
	__u64 records;
	__u32 why; /* RINGFENCE_LOST_ */
	__u32 reserved;
	/* How many of each type, by its number. */
	__u32 by_type[RINGFENCE_TYPES];
};

/* The ring was full; there was no buffer to make the record in; the kernel (7.0 and later) ran no
 * program for it (threads count as forks). */
#define RINGFENCE_LOST_RING_FULL 1
#define RINGFENCE_LOST_NO_BUFFER 2
#define RINGFENCE_LOST_MISSED	 3

/* The verdict of this client came too late or not at all. No actor. */
struct ringfence_deadline_missed {
	/* Whose deadline it was. */
	__u64 missed_event_id;
	/* How long it took until there was a verdict, in nanoseconds; 0: none came. */
	__u64 took;
	/* Misses within the last minute. */
	__u32 misses;
	/* 1: this client is not asked any more. */
	__u32 demoted;
};

/* What can be had of an event on this host changed: RINGFENCE_STAGE_ is the most that can be had of
 * it, which GetCoverage has way by way. It is not how settled the event is. No actor. */
struct ringfence_stage_changed {
	__u16 event_type;
	/* RINGFENCE_STAGE_ */
	__u16 before;
	__u16 after;
	__u16 reserved;
	struct ringfence_string reason;
};

/* Nothing. */
#define RINGFENCE_STAGE_UNAVAILABLE 0
/* Clients are told of it. */
#define RINGFENCE_STAGE_OBSERVED 1
/* Clients are asked about it, and no rule holds. */
#define RINGFENCE_STAGE_ASKED 2
/* Rules decide it. */
#define RINGFENCE_STAGE_ENFORCED 3

/* The daemon ends; rules stay as the grant says, unless it was started with --forget. No actor. */
struct ringfence_shutting_down {
	/* RINGFENCE_SHUTDOWN_ */
	__u32 why;
	__u32 reserved;
};

#define RINGFENCE_SHUTDOWN_STOPPED 1
#define RINGFENCE_SHUTDOWN_REVOKED 2

/* A finding of the guard. No actor. */
struct ringfence_kernel_finding {
	/* Names of the check and of the technique; the finding as JSON (docs/check-report.md). */
	struct ringfence_string check;
	struct ringfence_string technique;
	struct ringfence_string finding;
	/* RINGFENCE_FINDING_; and when the daemon was told of it, as header.time. */
	__u32 state;
	__u32 reserved;
	__u64 found;
};
/* It was not there before; is there no more; was there before this client subscribed. */
#define RINGFENCE_FINDING_NEW	   1
#define RINGFENCE_FINDING_GONE	   2
#define RINGFENCE_FINDING_STANDING 3

/* --- verdicts -------------------------------------------------------------------------------- */

/* What a client answers to a record of class ask. One is one message on the second descriptor of
 * its session, a socket of the type SOCK_SEQPACKET. */
struct ringfence_verdict {
	/* header.event_id of the record that asked. */
	__u64 event_id;
	/* RINGFENCE_VERDICT_ */
	__u32 verdict;
	/* The errno that the caller is to get: 1 to 133, not EINTR (4); 0 with allow, or for EPERM.
	 */
	__u32 error;
	/* RINGFENCE_VERDICT_FLAG_ */
	__u32 flags;
	__u32 reserved;
};

#define RINGFENCE_VERDICT_ALLOW 1
#define RINGFENCE_VERDICT_DENY	2
/* The same verdict holds for the same file in the same version: do not ask this client again. */
#define RINGFENCE_VERDICT_FLAG_CACHEABLE 0x1

/* Comes back on the same socket, only for a verdict that does not count. */
struct ringfence_verdict_refused {
	__u64 event_id;
	/* RINGFENCE_REFUSED_ */
	__u32 status;
	__u32 reserved;
};

/* The deadline was over. */
#define RINGFENCE_REFUSED_TOO_LATE 1
/* This client's part was over: it had answered, its answer was known or its queue was full, or
 * another client's deny had settled it. */
#define RINGFENCE_REFUSED_ALREADY_ANSWERED 2
/* This client was never asked about it. */
#define RINGFENCE_REFUSED_NOT_ASKED 3
/* Neither allow nor deny, an unknown flag, an impossible errno, or not 24 bytes (event_id 0). */
#define RINGFENCE_REFUSED_MALFORMED 4

#endif
