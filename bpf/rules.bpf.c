// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The maps of rules, and the mark that says what a task descends from.
 *
 * What. A process whose descendants are told apart is a root and has a number below 64. Each task
 * has in its storage the roots that it descends from and those that its own process is; a new task
 * inherits them before it runs for the first time.
 *
 * Why this way. real_parent is no ancestry: a process whose parent ends is given another, so
 * whoever forks twice would be out of each rule. task_newtask and not sched_process_fork: it is in
 * copy_process (kernel/fork.c), so it sees the workers of io_uring and vhost too, which act for
 * their process and are not made by kernel_clone. Each thread has its own mark, because a task
 * storage is found by the task that runs and by nothing else in a program that can sleep.
 *
 * A root that is new is marked by going through all tasks, with what real_parent says now
 * (rules_mark); twice, because what is made meanwhile has the mark that its parent had.
 *
 * User space that ends leaves the marks, in a map that the next one goes on with.
 *
 * Limits. 64 roots. What had lost its parent before its root was marked is not found any more.
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/rules_maps.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* BPF_LOCAL_STORAGE_GET_F_CREATE, include/uapi/linux/bpf.h. */
#define CREATE 1
/* How far up a new root is looked for. */
#define GENERATIONS 64

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* What kernel_types.h does not have of it: include/linux/sched.h. */
struct task_struct___lineage {
	int tgid;
	struct task_struct___lineage *real_parent;
	struct task_struct___lineage *group_leader;
	__u64 start_boottime;
};

#pragma clang attribute pop

struct {
	__uint(type, RULES_MAP_ARRAY);
	__uint(map_flags, RULES_MAP_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rules_marking);
} rules_marking SEC(".maps");

/*
 * Who a root is, by its number; zeroes for nobody. Kept with rules_lineages when user space ends,
 * for who makes sense of the marks next.
 */
struct {
	__uint(type, RULES_MAP_ARRAY);
	__uint(max_entries, RULES_ROOTS);
	__type(key, __u32);
	__type(value, struct ringfence_process_key);
} rules_roots SEC(".maps");

/* Cleared bits say nothing, so a mark is only made where there is something to inherit. */
static __always_inline int inherit(struct task_struct *child)
{
	struct task_struct *parent = bpf_get_current_task_btf();
	struct rules_lineage *mark, *made;
	__u64 ancestors, roots;

	mark = bpf_task_storage_get(&rules_lineages, parent, NULL, 0);
	if (!mark)
		return 0;
	ancestors = mark->ancestors;
	roots = mark->roots;
	if (child->tgid != parent->tgid) {
		ancestors |= roots;
		roots = 0;
	}
	if (!(ancestors | roots))
		return 0;
	made = bpf_task_storage_get(&rules_lineages, child, NULL, CREATE);
	if (!made)
		return 0;
	__sync_fetch_and_or(&made->ancestors, ancestors);
	__sync_fetch_and_or(&made->roots, roots);
	return 0;
}

/* Three, because the kernel can miss to run one (lib/again.h); that it is done twice does no harm.
 */
SEC("tp_btf/task_newtask")
int BPF_PROG(rules_inherit, struct task_struct *child, unsigned long flags)
{
	return inherit(child);
}

SEC("tp_btf/task_newtask")
int BPF_PROG(rules_inherit_again, struct task_struct *child, unsigned long flags)
{
	return CAN_BE_PREEMPTED ? inherit(child) : 0;
}

SEC("tp_btf/task_newtask")
int BPF_PROG(rules_inherit_last, struct task_struct *child, unsigned long flags)
{
	return CAN_BE_PREEMPTED ? inherit(child) : 0;
}

/* Whether a task is a thread of the process that is marked. */
static __always_inline int is_root(struct task_struct___lineage *task,
				   const struct rules_marking *marking)
{
	return (__u32)BPF_CORE_READ(task, tgid) == marking->pid &&
	       BPF_CORE_READ(task, group_leader, start_boottime) == marking->start;
}

struct climb {
	struct task_struct___lineage *task;
	__u32 found;
	__u32 reserved;
};

static long climb_one(__u32 generation, struct climb *climb)
{
	struct task_struct___lineage *task = climb->task, *parent;
	struct rules_marking *marking;
	__u32 zero = 0;

	parent = BPF_CORE_READ(task, real_parent);
	marking = bpf_map_lookup_elem(&rules_marking, &zero);
	if (!marking || !parent)
		return 1;
	climb->task = parent;
	climb->found = is_root(parent, marking);
	return climb->found || BPF_CORE_READ(parent, tgid) == 0;
}

SEC("iter/task")
int rules_mark(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct task_struct___lineage *seen = (void *)task;
	struct rules_marking *marking;
	struct rules_lineage *mark;
	struct climb climb = {};
	__u32 zero = 0;
	__u64 bit;
	int root;

	marking = bpf_map_lookup_elem(&rules_marking, &zero);
	if (!task || !marking)
		return 0;
	bit = 1ULL << (marking->root & (RULES_ROOTS - 1));
	if (marking->clear) {
		mark = bpf_task_storage_get(&rules_lineages, task, NULL, 0);
		if (mark) {
			__sync_fetch_and_and(&mark->ancestors, ~bit);
			__sync_fetch_and_and(&mark->roots, ~bit);
		}
		return 0;
	}
	root = is_root(seen, marking);
	if (!root) {
		climb.task = BPF_CORE_READ(seen, group_leader);
		bpf_loop(GENERATIONS, climb_one, &climb, 0);
		if (!climb.found)
			return 0;
	}
	mark = bpf_task_storage_get(&rules_lineages, task, NULL, CREATE);
	if (!mark)
		return 0;
	if (root)
		__sync_fetch_and_or(&mark->roots, bit);
	else
		__sync_fetch_and_or(&mark->ancestors, bit);
	return 0;
}
