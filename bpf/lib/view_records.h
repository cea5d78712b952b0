/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The records that the iterators of views.bpf.c write, one after the other, in the byte order of
 * the machine. The Rust side is proven equal to this by a test over the BTF of the built object
 * (crates/probes/src/layout.rs).
 */
#ifndef RINGFENCE_VIEW_RECORDS_H
#define RINGFENCE_VIEW_RECORDS_H

#define VIEW_NAME 16

/* A thread. */
struct task_record {
	/* Kernel address of its task_struct. */
	__u64 address;
	/* Process id (thread group) and thread id in the initial pid namespace. */
	__u32 tgid;
	__u32 tid;
	/* The same in the pid namespace of the thread that reads the iterator; 0 if not in it. */
	__u32 own_tgid;
	__u32 own_tid;
	/* Its name, filled up with zeroes. */
	__u8 comm[VIEW_NAME];
};

/* A BPF program, map or link. */
struct bpf_record {
	__u32 id;
	/* enum bpf_prog_type, bpf_map_type or bpf_link_type of the uapi. */
	__u32 kind;
	/* Its name, filled up with zeroes; links have none. */
	__u8 name[VIEW_NAME];
};

/* The context of the program that tells about the thread that calls it. */
struct caller_record {
	/* Kernel address of its task_struct, written by the program. */
	__u64 task;
};

#endif
