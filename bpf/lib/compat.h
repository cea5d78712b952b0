/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where kernels differ. One entry each, with the version and commit that made the difference; what
 * is asked at run time is always BTF or the symbol table, never the version number, because
 * distributions port features back.
 */
#ifndef RINGFENCE_COMPAT_H
#define RINGFENCE_COMPAT_H

/*
 * bpf_rdonly_cast: since 6.2 (a35b9af4ec2c "bpf: Add a kfunc for generic type cast"); the verifier
 * replaces the call by a move. It takes the id of a struct; `void` for access by bytes came later
 * (6.17, f2362a57aeff "bpf: allow void* cast using bpf_rdonly_cast()"), so the programs here cast
 * to a struct, which every kernel that has the function accepts.
 *
 * Weak, so that an object which uses it still opens where it is missing: user space looks for the
 * function in the kernel's BTF and does not load the programs that need it.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/*
 * Whether a program on a tracepoint can be preempted: since 7.0 ("tracing: Guard __DECLARE_TRACE()
 * use of __DO_TRACE_CALL() with SRCU-fast"). Until then tracepoints forbade it; tracepoint_srcu,
 * which a per-processor variable belongs to, was there until 6.12 for others, before there was a
 * tracepoint_ext (6.14).
 */
struct srcu_data {
	int any;
};
extern const struct srcu_data tracepoint_srcu_srcu_data __ksym __weak;
struct tracepoint_ext___since_6_14 {
	int any;
};

#define CAN_BE_PREEMPTED                                                                           \
	(bpf_core_type_exists(struct tracepoint_ext___since_6_14) && &tracepoint_srcu_srcu_data)

/*
 * Whether the thread that ends is the last one of its process: told by sched_process_exit since
 * 6.16 ("exit: move and extend sched_process_exit() tracepoint").
 */
typedef void (*btf_trace_sched_process_exit___since_6_16)(void *, struct task_struct *, _Bool);

#ifdef RINGFENCE_EVENT_TYPES_H
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/*
 * The time of an inode's last change: i_ctime until 6.5; __i_ctime from 6.6 (13bc24457850 "fs:
 * rename i_ctime field to __i_ctime"); i_ctime_sec and i_ctime_nsec from 6.11 (3aa63a569c64 "fs:
 * switch timespec64 fields in inode to discrete integers"). Since 6.13 (4e40eff0b573 "fs: add
 * infrastructure for multigrain timestamps") the top bit of the nanoseconds is a flag.
 */
struct inode___until_6_5 {
	struct timespec64 i_ctime;
};

struct inode___until_6_10 {
	struct timespec64 __i_ctime;
};

struct inode___since_6_11 {
	long long i_ctime_sec;
	u32 i_ctime_nsec;
};

/*
 * fs-verity's knowledge of a file: a field of the inode until 6.17; in the file system's own part
 * of it in 6.18, at an offset that its operations name; in a hash table since 7.0 ("fsverity: use a
 * hashtable to find the fsverity_info"), for which it has a link and the inode that it is of.
 */
struct inode___until_6_17 {
	struct fsverity_info *i_verity_info;
};

struct fsverity_operations___6_18 {
	long inode_info_offs;
};

struct fsverity_info___since_7_0 {
	struct rhash_head rhash_head;
	const struct inode *inode;
};

#pragma clang attribute pop
#endif

#endif
