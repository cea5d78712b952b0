// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Marks the descendants of processes that are exempt of questions; lib/exempt.h says what for.
 *
 * What. A new task inherits the mark of the one that makes it, and what that one's process says of
 * its descendants. When a process becomes exempt, or is no longer, user space goes through all
 * tasks (gate_mark_task): those that descend from it now are marked, by what real_parent says, and
 * a client that has gone is taken out of all marks, so that the next one in its slot is asked.
 *
 * Why task_newtask and not sched_process_fork: it is in copy_process (kernel/fork.c), so it sees
 * the workers of io_uring and vhost too, which act for their process and are not made by
 * kernel_clone.
 *
 * Limits. What had lost its parent before its ancestor became exempt is not found any more.
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
#define GENERATIONS 1024

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate_marking);
} gate_marking SEC(".maps");

/* Takes what a process says of its descendants into a mark. */
static __always_inline void take(struct gate_mark *mark, const struct gate_exemption *ancestor)
{
	if (ancestor->descendants == ~0ULL)
		mark->everybody = 1;
	else
		mark->clients |= ancestor->descendants;
}

/* Adds to the mark of a task, which is made where there is something to add only. */
static __always_inline void put(struct task_struct *task, const struct gate_mark *added)
{
	struct gate_mark *mark;

	if (!added->clients && !added->everybody)
		return;
	mark = bpf_task_storage_get(&gate_marks, task, NULL, CREATE);
	if (!mark)
		return;
	__sync_fetch_and_or(&mark->clients, added->clients);
	if (added->everybody)
		mark->everybody = 1;
}

static __always_inline int inherit(struct task_struct *child)
{
	struct task_struct *parent = bpf_get_current_task_btf();
	struct gate_exemption *exempt;
	struct gate_mark *inherited, mark = {};

	inherited = bpf_task_storage_get(&gate_marks, parent, NULL, 0);
	if (inherited)
		mark = *inherited;
	/* A thread is its process, which is not its own descendant. */
	if (child->tgid != parent->tgid) {
		exempt = gate_exemption_of((void *)parent);
		if (exempt)
			take(&mark, exempt);
	}
	put(child, &mark);
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
	struct gate_mark mark;
};

static long climb_one(__u32 generation, struct climb *climb)
{
	struct task_struct___gate *task = climb->task, *parent;
	struct gate_exemption *exempt;

	parent = BPF_CORE_READ(task, real_parent);
	if (!parent)
		return 1;
	exempt = gate_exemption_of(parent);
	if (exempt)
		take(&climb->mark, exempt);
	climb->task = parent;
	/* The first process, and before it nobody. */
	return BPF_CORE_READ(parent, tgid) <= 1;
}

SEC("iter/task")
int gate_mark_task(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct task_struct___gate *seen = (void *)task;
	struct gate_marking *marking;
	struct climb climb = {};
	struct gate_mark *mark;
	__u32 zero = 0;

	marking = bpf_map_lookup_elem(&gate_marking, &zero);
	if (!task || !marking)
		return 0;
	mark = bpf_task_storage_get(&gate_marks, task, NULL, 0);
	if (mark)
		__sync_fetch_and_and(&mark->clients, ~marking->gone);
	climb.task = BPF_CORE_READ(seen, group_leader);
	bpf_loop(GENERATIONS, climb_one, &climb, 0);
	put(task, &climb.mark);
	return 0;
}
