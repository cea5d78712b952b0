/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who is not asked about what a thread does.
 *
 * What. A process can be exempt of the questions to some clients or all: for what it does itself,
 * and for what its descendants do. So the daemon exempts itself and what it starts, and each
 * asker: whoever has to give verdicts may not wait for one, or two askers could wait for each
 * other. The descendants of an asker are exempt of that one client's questions: it may wait for a
 * program that it has started.
 *
 * How. What a process does itself is looked up under its key. What its descendants do is a mark in
 * the storage of each task, which a new task inherits before it runs for the first time
 * (exemptions.bpf.c): so it does not matter how far down a descendant is, nor whether the processes
 * in between are still there.
 *
 * Ways rejected. Walking real_parent when somebody is to be asked: a process whose parent ends is
 * given another, so whoever forks twice would be asked about, and who waits for it would wait for
 * himself; and a limit on how far up is one that somebody reaches.
 */
#ifndef RINGFENCE_EXEMPT_H
#define RINGFENCE_EXEMPT_H

#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "gate_abi.h"

/* include/uapi/linux/bpf.h: BPF_MAP_TYPE_TASK_STORAGE. */
#define GATE_MAP_TASK_STORAGE 29

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GATE_EXEMPT_PROCESSES);
	__type(key, struct gate_process);
	__type(value, struct gate_exemption);
} gate_exempt SEC(".maps");

struct {
	__uint(type, GATE_MAP_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct gate_mark);
} gate_marks SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___gate {
	int tgid;
	struct task_struct___gate *group_leader;
	struct task_struct___gate *real_parent;
	__u64 start_boottime;
};

#pragma clang attribute pop

/* What is known of the process of a task; NULL if it is not exempt. */
static __always_inline struct gate_exemption *gate_exemption_of(struct task_struct___gate *task)
{
	struct task_struct___gate *leader = BPF_CORE_READ(task, group_leader);
	struct gate_process process = {};

	process.pid = BPF_CORE_READ(leader, tgid);
	process.start = BPF_CORE_READ(leader, start_boottime) / GATE_TICK;
	return bpf_map_lookup_elem(&gate_exempt, &process);
}

#endif
