// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Marks the descendants of processes that are exempt of questions; lib/exempt.h says what for.
 *
 * What. A new task inherits the mark of the one that makes it, and what that one's process says of
 * its descendants. When a process becomes exempt user space goes through all tasks: those that
 * descend from it now are marked, by what real_parent says. When a client goes it does so too, and
 * takes the client out of all marks, so that the next one in its slot is asked; until there is one,
 * nobody inherits it either, who may have looked at his parent's mark before.
 *
 * Why task_newtask and not sched_process_fork: it is in copy_process (kernel/fork.c), so it sees
 * the workers of io_uring and vhost too, which act for their process and are not made by
 * kernel_clone.
 *
 * Limits. What had lost its parent before its ancestor became exempt, or is more than GENERATIONS
 * below it then, is not found any more: each thread is looked at, and user space waits for it. A
 * mark for which there is no memory is counted, and not made.
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "lib/exempt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* BPF_LOCAL_STORAGE_GET_F_CREATE, include/uapi/linux/bpf.h. */
#define CREATE 1
/* How far up the ancestors of a task that is there already are looked for. */
#define GENERATIONS 64

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate_marking);
} gate_marking SEC(".maps");

static __always_inline struct gate_marking *the_marking(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&gate_marking, &zero);
}

/* Adds to the mark of a task, which is made where there is something to add only. */
static __always_inline void put(struct task_struct *task, struct gate_marking *marking,
				__u64 clients, __u64 everybody)
{
	struct gate_mark *mark;

	clients &= ~marking->gone;
	if (!clients && !everybody)
		return;
	mark = bpf_task_storage_get(&gate_marks, task, NULL, CREATE);
	if (!mark) {
		__sync_fetch_and_add(&marking->failed, 1);
		return;
	}
	__sync_fetch_and_or(&mark->clients, clients);
	if (everybody)
		mark->everybody = 1;
	/* Who has gone meanwhile may have been taken out of it before it was there. */
	clients = marking->gone;
	if (clients)
		__sync_fetch_and_and(&mark->clients, ~clients);
}

static __always_inline int inherit(struct task_struct *child)
{
	struct task_struct *parent = bpf_get_current_task_btf();
	struct gate_marking *marking = the_marking();
	__u64 clients = 0, everybody = 0;
	struct gate_exemption *exempt;
	struct gate_mark *mark;

	if (!marking)
		return 0;
	mark = bpf_task_storage_get(&gate_marks, parent, NULL, 0);
	if (mark) {
		clients = mark->clients;
		everybody = mark->everybody;
	}
	/* A thread is its process, which is not its own descendant. */
	if (child->tgid != parent->tgid) {
		exempt = gate_exemption_of((void *)parent);
		if (exempt) {
			clients |= exempt->descendants;
			everybody |= exempt->everybody;
		}
	}
	put(child, marking, clients, everybody);
	return 0;
}

/* Three, because the kernel can miss to run one (lib/again.h); that it is done twice does no harm.
 */
SEC("tp_btf/task_newtask")
int BPF_PROG(gate_inherit, struct task_struct *child, unsigned long flags)
{
	return inherit(child);
}

SEC("tp_btf/task_newtask")
int BPF_PROG(gate_inherit_again, struct task_struct *child, unsigned long flags)
{
	return CAN_BE_PREEMPTED ? inherit(child) : 0;
}

SEC("tp_btf/task_newtask")
int BPF_PROG(gate_inherit_last, struct task_struct *child, unsigned long flags)
{
	return CAN_BE_PREEMPTED ? inherit(child) : 0;
}

struct climb {
	struct task_struct___gate *task;
	/* gate_process.start of the ancestor that is looked for. */
	__u64 start;
	__u32 pid;
	__u32 found;
};

static long climb_one(__u32 generation, struct climb *climb)
{
	struct task_struct___gate *task = climb->task, *parent, *leader;
	__u32 pid;

	parent = BPF_CORE_READ(task, real_parent);
	if (!parent)
		return 1;
	leader = BPF_CORE_READ(parent, group_leader);
	pid = BPF_CORE_READ(leader, tgid);
	climb->task = leader;
	if (pid == climb->pid && BPF_CORE_READ(leader, start_boottime) / GATE_TICK == climb->start)
		climb->found = 1;
	/* The first process, and before it nobody. */
	return climb->found || pid <= 1;
}

SEC("iter/task")
int gate_mark_task(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct task_struct___gate *seen = (void *)task;
	struct gate_marking *marking = the_marking();
	struct climb climb = {};
	struct gate_mark *mark;
	__u64 gone;

	if (!task || !marking)
		return 0;
	gone = marking->gone;
	if (gone) {
		mark = bpf_task_storage_get(&gate_marks, task, NULL, 0);
		if (mark)
			__sync_fetch_and_and(&mark->clients, ~gone);
	}
	climb.pid = marking->process.pid;
	climb.start = marking->process.start;
	if (!climb.pid)
		return 0;
	climb.task = BPF_CORE_READ(seen, group_leader);
	bpf_loop(GENERATIONS, climb_one, &climb, 0);
	if (climb.found)
		put(task, marking, marking->mark.clients, marking->mark.everybody);
	return 0;
}
