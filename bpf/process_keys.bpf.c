// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The key of one process and of its parent, exactly as the records of events have them.
 *
 * What. User space says which process it means and reads the iterator; the program writes one
 * record for it, or none.
 *
 * Why this way. A key has the time of the start in nanoseconds. /proc tells it in hundredths of a
 * second only, so what was read there cannot be compared with a record, nor muted by.
 *
 * Limits. The kernel shows an iterator only the tasks of the pid namespace of the one who opened it
 * (kernel/bpf/task_iter.c, task_seq_get_next). It is called for each thread there is and leaves at
 * once for all but one.
 *
 * Ways rejected. bpf_task_from_pid in a syscall program (6.2 and later only). An iterator of one
 * process (link_info.task, 6.1 and later, and a link for each question).
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What is written, in the byte order of the machine. */
struct process_keys {
	__u64 start;
	__u64 parent_start;
	__u32 pid;
	__u32 parent_pid;
};

/* Which process is meant, by the number of its thread group in the initial pid namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} wanted_process SEC(".maps");

/* A function of its own, so that the record is in the BTF of the object, where its layout is
 * compared with the Rust side. */
static __noinline void write_keys(struct seq_file *file, struct process_keys *keys)
{
	bpf_seq_write(file, keys, sizeof(*keys));
}

SEC("iter/task")
int show_keys(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task, *parent;
	struct process_keys keys = {};
	__u32 zero = 0, *wanted = bpf_map_lookup_elem(&wanted_process, &zero);

	if (!task || !wanted || (__u32)task->tgid != *wanted || task->pid != task->tgid)
		return 0;
	keys.pid = task->tgid;
	keys.start = task->start_boottime;
	parent = BPF_CORE_READ(task, real_parent, group_leader);
	keys.parent_pid = BPF_CORE_READ(parent, tgid);
	keys.parent_start = keys.parent_pid ? BPF_CORE_READ(parent, start_boottime) : 0;
	write_keys(context->meta->seq, &keys);
	return 0;
}
