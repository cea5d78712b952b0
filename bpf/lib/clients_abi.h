/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs that make events share with the process that loads them. The Rust side is
 * proven equal to this by a test over the BTF of the built object (crates/probes/src/layout.rs).
 *
 * A client is a slot from 0 to 63, a set of clients one word, a set of types of events another.
 */
#ifndef RINGFENCE_CLIENTS_ABI_H
#define RINGFENCE_CLIENTS_ABI_H

#define CLIENTS 64

/* Buffers to make records in, for each processor that there can be, and at most. */
#define BUFFERS_EACH 4
#define BUFFERS_MOST 512

/* Longest prefix of a path that can be muted, in bytes: the longest key of an LPM trie
 * (LPM_DATA_SIZE_MAX, kernel/bpf/lpm_trie.c). */
#define PREFIX_MAX 256

/* Nanoseconds from the first record that an observer was not woken for until it is. */
#define WAKE_AFTER 10000000ULL
/* Until it is tried again to tell of a loss that found no place. */
#define LOSS_AFTER 250000000ULL

/* Who wants events of a type. Nobody: nothing is built. */
struct subscribers {
	/* Clients that are told. */
	__u64 notify;
	/* Clients that are asked. */
	__u64 ask;
};

/* What those who are asked about a type have declared. */
struct asked {
	/* How long each of them has for its verdict, by slot: nanoseconds. */
	__u64 time[CLIENTS];
	/* For whom it is a denial if the record that asks does not fit into the ring. */
	__u64 deny_full;
};

/* One for all; user space has it mapped, and writes single words of it. */
struct client_state {
	/* The number of the last event: header.global_sequence. Starts at the time of loading
	 * (CLOCK_BOOTTIME, nanoseconds), so that it goes on where a daemon is started again. */
	__u64 sequence;
	/* Clients with records in their rings that they were not woken for. */
	__u64 pending;
	/* Whether the timer that wakes them is set. */
	__u64 armed;
	/* Clients that mute by something; by what nobody mutes, nothing is looked up. */
	__u64 mute_process;
	__u64 mute_executable;
	__u64 mute_cgroup;
	__u64 mute_path;
	/* Clients whose mutes select what they get, instead of suppressing it. */
	__u64 inverted;
	/* /proc/sys/kernel/random/boot_id as 16 bytes in the order of its text. */
	__u8 boot_id[16];
	/* Inode number of the initial mount namespace, 0 if it is not known. */
	__u32 initial_mounts;
	/* How many buffers to make records in there are. */
	__u32 buffers;
	/* 1: there is no timer, so each record wakes. */
	__u32 wake_always;
	__u32 reserved;
	/* Types of events whose rules are decided by a program of their own on an LSM hook, and not
	 * by the one that tells, which is passed when it is done. */
	__u64 checked;
	/* Address of the kernel's table of what fs-verity knows of files: verity.h. 0 where there
	 * is none, or it is not known where. */
	__u64 verity_table;
	/* Clients that are told of those files only that they watch: watched.h. */
	__u64 watching;
};

/* Why records are lost, as an index: RINGFENCE_LOST_ less one. A power of two. */
#define LOST_KINDS 4
#define LOST_TYPES 64

/* What happened to the records of a client. Only grows during a session. */
struct client_counters {
	/* Records in its ring. */
	__u64 written;
	/* Records that are not: header.lost. */
	__u64 lost;
	/* How many of those it was told of, by loss records. */
	__u64 told;
	/* Taken while a loss record is made. */
	__u32 telling;
	/* It was woken because its ring fills up. */
	__u32 woken;
	__u32 lost_by[LOST_KINDS][LOST_TYPES];
	__u32 told_by[LOST_KINDS][LOST_TYPES];
};

/* The key of a muted executable. */
struct executable_key {
	__u64 device;
	__u64 inode;
};

/* The key of a muted prefix. */
struct prefix_key {
	/* In bits. */
	__u32 length;
	__u8 path[PREFIX_MAX];
};

/* The context of the program that puts a record of user space into a ring, with the record behind
 * it. */
struct write_call {
	__u32 slot;
	/* 1: the client is woken at once. */
	__u32 wake;
	/* Of the record, in bytes. */
	__u32 length;
	__u32 reserved;
};

/* The context of the program that counts what no program was run for: bpf/lib/again.h. */
struct missed_call {
	/* Clients that would have been told. */
	__u64 clients;
	/* Of the event, or the first one if the tracepoint has several. */
	__u32 type;
	__u32 count;
};

/* What the one that writes returns. */
#define WRITE_DONE	0
#define WRITE_NO_RING	1
#define WRITE_FULL	2
#define WRITE_REFUSED	3
#define WRITE_NO_BUFFER 4

#endif
