/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that the programs here touch, by hand.
 *
 * Only the fields that are read are named, and not at their real offsets: preserve_access_index
 * makes clang record each access by name, and libbpf puts in the offset of the running kernel as
 * it loads the program (CO-RE). A field that a kernel does not have fails the load with its name
 * in the log. A generated vmlinux.h would say the same in 3 MB.
 */
#ifndef RINGFENCE_KERNEL_TYPES_H
#define RINGFENCE_KERNEL_TYPES_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
/* bpf_helper_defs.h, which libbpf generates, names these. */
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

typedef _Bool bool;
#define false 0
#define true 1

#ifndef NULL
#define NULL ((void *)0)
#endif

/* include/uapi/linux/bpf.h; numbers of the uapi never change. */
enum bpf_map_type {
	BPF_MAP_TYPE_UNSPEC = 0,
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum bpf_prog_type {
	BPF_PROG_TYPE_UNSPEC = 0,
};

enum bpf_attach_type {
	BPF_ATTACH_TYPE_ANY,
};

enum bpf_link_type {
	BPF_LINK_TYPE_UNSPEC = 0,
};

enum {
	BPF_F_NO_PREALLOC = 1U << 0,
	BPF_F_MMAPABLE = 1U << 10,
};

/* Flags of bpf_map_update_elem. */
enum {
	BPF_NOEXIST = 1,
};

/* Flags of a write to a ring, and what bpf_ringbuf_query is asked for. */
enum {
	BPF_RB_NO_WAKEUP = 1U << 0,
	BPF_RB_FORCE_WAKEUP = 1U << 1,
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
};

/* Of the uapi too: a timer in the value of a map, known to the kernel by its name and size. */
struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));

/* And the arguments of a raw tracepoint. */
struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* arch/x86/include/asm/ptrace.h: sixteen registers in a row, the same from 2.6 to 7.x. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10;
	unsigned long r9, r8, ax, cx, dx, si, di, orig_ax;
	unsigned long ip, cs;
};

/* include/linux/pid.h. One number for each pid namespace that sees it, the initial one first. */
struct pid_namespace;

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	/* As many as level + 1; declared with one, or as a flexible array, depending on the kernel.
	 */
	struct upid numbers[1];
};

/* include/linux/sched.h. What stands behind most of these pointers is in event_types.h. */
struct sched_entity {
	u64 sum_exec_runtime;
};

/* include/linux/uidgid_types.h: numbers of the initial user namespace. */
typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	u32 val;
} kgid_t;

struct thread_info {
	u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	unsigned int flags;
	struct sched_entity se;
	struct mm_struct *mm;
	int exit_code;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	u64 utime;
	u64 stime;
	u64 start_boottime;
	const struct cred *cred;
	char comm[16];
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	kuid_t loginuid;
	struct css_set *cgroups;
};

/* include/linux/bpf.h */
struct bpf_prog_aux {
	u32 id;
	u32 attach_btf_id;
	char name[16];
};

struct bpf_prog {
	enum bpf_prog_type type;
	enum bpf_attach_type expected_attach_type;
	u32 len;
	struct bpf_prog_aux *aux;
};

struct bpf_map {
	enum bpf_map_type map_type;
	u32 id;
	char name[16];
};

struct bpf_link {
	u32 id;
	enum bpf_link_type type;
};

/* include/linux/module.h. The name has 64 - sizeof(unsigned long) bytes. */
struct module {
	char name[56];
};

/* What an iterator program is called with: kernel/bpf/{task,prog,map,link}_iter.c. */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__bpf_prog {
	struct bpf_iter_meta *meta;
	struct bpf_prog *prog;
};

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
};

struct bpf_iter__bpf_link {
	struct bpf_iter_meta *meta;
	struct bpf_link *link;
};

#pragma clang attribute pop

#endif
