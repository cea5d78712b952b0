/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the gate's two sides say to each other: programs that ask (gate.h), and user space that
 * answers (crates/probes/src/gate). The Rust side is proven equal to this by a test over the BTF of
 * a built object. Byte order is the machine's; padding is a field, and zero.
 */
#ifndef RINGFENCE_GATE_ABI_H
#define RINGFENCE_GATE_ABI_H

/* Threads that can wait at once; one more is not asked about and falls back. */
#define GATE_WAITERS 8192
/* Processes whose work is exempt, and answers that are known. */
#define GATE_EXEMPT_PROCESSES 1024
#define GATE_CACHED_ANSWERS   65536
/* Types of events: RINGFENCE_TYPES of api/ringfence.h, which is a power of two. */
#define GATE_TYPES 64
/* The unit of the start of a process in /proc/PID/stat, in nanoseconds (USER_HZ is 100). */
#define GATE_TICK 10000000ULL

/* A process, as both the kernel and /proc can tell it from all others. */
struct gate_process {
	/* Of its thread group, in the initial pid namespace. */
	__u32 pid;
	__u32 reserved;
	/* When it started: since boot, in ticks of GATE_TICK, rounded down. */
	__u64 start;
};

/* Which clients are not asked about what a process does, as sets of their slots. */
struct gate_exemption {
	/* What its own threads do. */
	__u64 own;
	/* What its children do, and theirs, however far down. */
	__u64 descendants;
	/* Not 0: nobody is asked about those. */
	__u64 everybody;
};

/* What a task inherited of that. */
struct gate_mark {
	__u64 clients;
	__u64 everybody;
};

/* How tasks are marked. */
struct gate_marking {
	/* Clients that are in no mark: who has gone, until his slot is another's. */
	__u64 gone;
	/* As all tasks are gone through: whose descendants get a mark, nobody's if pid is 0; and
	 * the mark. */
	struct gate_process process;
	struct gate_mark mark;
	/* How many tasks could not be marked. */
	__u64 failed;
};

/* A file and what is in it: (device, inode, version) of struct ringfence_file. */
struct gate_file {
	__u64 device;
	__u64 inode;
	__u64 version;
};

/* The answer, as user space writes it into the waiting thread's own entry. */
struct gate_reply {
	/* Of the question that it answers. */
	__u64 event_id;
	/* GATE_ALLOW, GATE_DENY. */
	__u32 verdict;
	/* The errno of a denial, 1 to 4095; else 0. */
	__u32 error;
	__u64 reserved;
};

#define GATE_ALLOW 1
#define GATE_DENY  2

/* A question while it waits, and until then what a program wants to ask. */
struct gate_question {
	/* Of the record that tells of it. */
	__u64 event_id;
	/* Who is asked, as a set of slots. */
	__u64 askers;
	/* CLOCK_BOOTTIME, in nanoseconds. */
	__u64 time;
	/* Thread group, and when its first thread started: as in struct ringfence_process_key. */
	__u32 pid;
	__u32 thread;
	__u64 start;
	/* What it is about; zeroes if no file is. */
	struct gate_file file;
	/* RINGFENCE_PROCESS_EXEC ... */
	__u32 type;
	__u32 reserved;
	struct gate_reply reply;
};

/* A known answer belongs to a type of event and a file as it is now. */
struct gate_answer_key {
	struct gate_file file;
	__u32 type;
	__u32 reserved;
};

struct gate_answer {
	/* The clients that allow it, and said that it holds for as long as the file stays as it is.
	 */
	__u64 allowed;
};

struct gate_settings {
	/* The process whose executable is the file that is asked, in the initial pid namespace; 0
	 * if there is none. */
	__u32 anchor;
	__u32 reserved;
	/* That file: super_block.s_dev and inode.i_ino. */
	__u64 device;
	__u64 inode;
	/* For each type of event the clients for whom no answer is a denial. */
	__u64 deny_unanswered[GATE_TYPES];
};

/* How questions came out; the index of a counter in gate_counters. */
enum gate_outcome {
	/* Nobody had to be asked: all askers are exempt, or their answers known. */
	GATE_EXEMPT = 0,
	GATE_CACHED,
	/* The answer came. */
	GATE_ALLOWED,
	GATE_DENIED,
	/* The thread was killed while it waited. */
	GATE_KILLED,
	/* No answer came, because the kernel lacks the functions; */
	GATE_NO_FUNCTION,
	/* because there is no anchor, or the process with its number is not ours; */
	GATE_NO_ANCHOR,
	/* because too many wait, or this thread waits already; */
	GATE_NO_ROOM,
	/* because the connection is closed or was aborted; */
	GATE_ABORTED,
	/* because user space, or a security module, refused the question; */
	GATE_REFUSED,
	/* because the answer is not one, or another question's. */
	GATE_WRONG_REPLY,
	/* Of the questions without an answer: how many were allowed, and denied. */
	GATE_FELL_BACK_ALLOWED,
	GATE_FELL_BACK_DENIED,
	/* Nanoseconds in which threads waited, together. */
	GATE_WAITED,
	GATE_COUNTERS,
};

#endif
