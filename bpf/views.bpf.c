// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What BPF iterators show: tasks, and BPF programs, maps and links.
 *
 * What. Each program here is called once for each object that the kernel's own iterator walks over
 * and writes one fixed record; user space reads them from a file descriptor like any file.
 *
 * Why this way. The guard holds several views of the same things against each other: what memory
 * says, what the bpf system call and /proc list, and this. Each goes through other code, so whoever
 * hides something has to lie in all of them alike. Records are binary and fixed because text would
 * have to be parsed, and a process chooses its own name.
 *
 * Numbers of tasks. A pid means something only in a pid namespace. The record has the numbers of
 * the initial namespace, which memory speaks in, and those of the reader's own, which its /proc
 * speaks in. The kernel shows an iterator only the tasks of the namespace of the one who opened it
 * (kernel/bpf/task_iter.c, task_seq_get_next), so a guard in a container sees its container.
 *
 * Limits. bpf_seq_write and the iterators are functions that can be hooked; what they hide then is
 * still in memory, and that is the finding. Programs without bpf_iter for links (before 5.19) are
 * not served.
 *
 * Ways rejected. bpf_for_each and kfunc iterators in a syscall program (6.7 and later only).
 * bpf_seq_printf: text.
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/view_records.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * The number of a pid in the namespace that is `level` deep and is `ns`, or 0. The array of numbers
 * has no length in the types, hence the arithmetic.
 */
static __always_inline __u32 number_in(struct pid *pid, __u32 level, struct pid_namespace *ns)
{
	void *number = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
		       level * bpf_core_type_size(struct upid);
	struct pid_namespace *seen = NULL;
	int nr = 0;

	if (!pid || BPF_CORE_READ(pid, level) < level)
		return 0;
	bpf_probe_read_kernel(&seen, sizeof(seen), number + bpf_core_field_offset(struct upid, ns));
	if (seen != ns)
		return 0;
	bpf_probe_read_kernel(&nr, sizeof(nr), number + bpf_core_field_offset(struct upid, nr));
	return nr;
}

/*
 * Functions of their own, and not inlined, so that the records are in the BTF of the object: it is
 * where their layouts are compared with the Rust side.
 */
static __noinline void write_task(struct seq_file *file, struct task_record *record)
{
	bpf_seq_write(file, record, sizeof(*record));
}

static __noinline void write_bpf(struct seq_file *file, struct bpf_record *record)
{
	bpf_seq_write(file, record, sizeof(*record));
}

SEC("iter/task")
int show_task(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task, *reader = (void *)bpf_get_current_task();
	struct pid_namespace *ns = NULL;
	struct task_record record = {};
	struct pid *own;
	__u32 level;

	/* Called once more at the end, with none. */
	if (!task)
		return 0;
	record.address = (__u64)task;
	record.tgid = task->tgid;
	record.tid = task->pid;
	own = BPF_CORE_READ(reader, thread_pid);
	level = BPF_CORE_READ(own, level);
	bpf_probe_read_kernel(&ns, sizeof(ns),
			      (void *)own + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid) +
				      bpf_core_field_offset(struct upid, ns));
	record.own_tgid = number_in(BPF_CORE_READ(task, group_leader, thread_pid), level, ns);
	record.own_tid = number_in(BPF_CORE_READ(task, thread_pid), level, ns);
	BPF_CORE_READ_INTO(&record.comm, task, comm);
	write_task(context->meta->seq, &record);
	return 0;
}

SEC("iter/bpf_prog")
int show_program(struct bpf_iter__bpf_prog *context)
{
	struct bpf_prog *program = context->prog;
	struct bpf_record record = {};

	if (!program)
		return 0;
	record.id = program->aux->id;
	record.kind = program->type;
	BPF_CORE_READ_INTO(&record.name, program, aux, name);
	write_bpf(context->meta->seq, &record);
	return 0;
}

SEC("iter/bpf_map")
int show_map(struct bpf_iter__bpf_map *context)
{
	struct bpf_map *map = context->map;
	struct bpf_record record = {};

	if (!map)
		return 0;
	record.id = map->id;
	record.kind = map->map_type;
	BPF_CORE_READ_INTO(&record.name, map, name);
	write_bpf(context->meta->seq, &record);
	return 0;
}

SEC("iter/bpf_link")
int show_link(struct bpf_iter__bpf_link *context)
{
	struct bpf_link *link = context->link;
	struct bpf_record record = {};

	if (!link)
		return 0;
	record.id = link->id;
	record.kind = link->type;
	write_bpf(context->meta->seq, &record);
	return 0;
}

/* Where the calling thread's task_struct is: where a walk over the task list can start. */
SEC("syscall")
int show_caller(struct caller_record *record)
{
	record->task = bpf_get_current_task();
	return 0;
}
