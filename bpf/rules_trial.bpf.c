// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Decides by rules on a record that the caller wrote into a map: how lib/rules.h is tested and
 * measured (crates/probes/src/rules/trial.rs).
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "../api/ringfence.h"
#include "lib/rules.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The context of a call. */
struct trial_call {
	/* How often it is decided. */
	__u32 times;
	/* What rules_decide() gave the last time. */
	__u32 error;
	/* The process that calls, and its parent. */
	struct ringfence_process_key process;
	struct ringfence_process_key parent;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/sched.h */
struct task_struct___trial {
	int tgid;
	struct task_struct___trial *real_parent;
	struct task_struct___trial *group_leader;
	__u64 start_boottime;
};

#pragma clang attribute pop

struct trial_buffer {
	struct rules_work work;
	struct rules_record record;
};

struct {
	__uint(type, RULES_MAP_ARRAY);
	__uint(map_flags, RULES_MAP_MMAPABLE);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct trial_buffer);
} trial_buffers SEC(".maps");

/* Structures of which programs know sizes and offsets only: so that the BTF of this object has
 * them, against which the Rust side is tested. */
struct {
	struct rules_set set;
	struct rules_type type;
	struct rules_rule rule;
	struct rules_collection collection;
	struct rules_entry entry;
	struct rules_counter counter;
	struct rules_marking marking;
	struct ringfence_header header;
	struct ringfence_actor actor;
	struct ringfence_process_exec process_exec;
	struct ringfence_process_fork process_fork;
	struct ringfence_process_exit process_exit;
	struct ringfence_process_signal process_signal;
	struct ringfence_process_trace process_trace;
	struct ringfence_process_credentials process_credentials;
	struct ringfence_image_map image_map;
	struct ringfence_module_load module_load;
	struct ringfence_module_unload module_unload;
	struct ringfence_bpf_load bpf_load;
	struct ringfence_kernel_load kernel_load;
	struct ringfence_memory_map memory_map;
	struct ringfence_memory_protect memory_protect;
	struct ringfence_memory_access memory_access;
	struct ringfence_memory_fileless memory_fileless;
	struct ringfence_file_open file_open;
	struct ringfence_file_modify file_modify;
} trial_layouts;

struct trial_context {
	__u32 type;
	__u32 buffer;
	__u32 error;
};

static long trial_once(__u32 index, struct trial_context *context)
{
	__u32 buffer = context->buffer;
	struct trial_buffer *trial = bpf_map_lookup_elem(&trial_buffers, &buffer);

	if (!trial)
		return 1;
	context->error = rules_decide(&trial->record, &trial->work, context->type);
	return 0;
}

/* Types and flags of the record are as its header has them; lineage and observed are set. */
SEC("syscall")
int rules_trial(struct trial_call *call)
{
	struct trial_context context = {};
	struct trial_buffer *trial;
	__u32 first = 0;

	trial = bpf_map_lookup_elem(&trial_buffers, &first);
	if (!trial)
		return 1;
	context.type = ((struct ringfence_header *)&trial->record)->type;
	bpf_loop(call->times, trial_once, &context, 0);
	call->error = context.error;
	return 0;
}

/* Puts what the calling task descends from into the buffer, and says which process it is of. */
SEC("syscall")
int rules_descent_trial(struct trial_call *call)
{
	struct task_struct___trial *task;
	struct trial_buffer *trial;
	__u32 first = 0;

	trial = bpf_map_lookup_elem(&trial_buffers, &first);
	if (!trial)
		return 1;
	rules_descent(&trial->work);
	task = (void *)bpf_get_current_task_btf();
	call->process.pid = BPF_CORE_READ(task, tgid);
	call->process.start = BPF_CORE_READ(task, group_leader, start_boottime);
	task = BPF_CORE_READ(task, real_parent);
	call->parent.pid = BPF_CORE_READ(task, tgid);
	call->parent.start = BPF_CORE_READ(task, group_leader, start_boottime);
	return 0;
}
