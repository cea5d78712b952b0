/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Several programs for one tracepoint, of which one tells.
 *
 * What. TOLD_ONCE makes three programs that do the same. The first one tells and notes the passage;
 * the others look whether it is noted, and tell if it is not. On kernels where no passage can be
 * missed the others do nothing.
 *
 * Why. The kernel does not run a tracing program while the same one runs on the same processor
 * (bpf_trace_run, kernel/trace/bpf_trace.c: recursion_misses). Since 7.0 a program on a tracepoint
 * can be preempted, and then whatever passes the tracepoint on that processor is missed: of 600
 * short programs on two busy processors that were 23 execs, 17 forks and 22 exits. A passage is
 * missed by all three only if it meets one task that is preempted in the first, one in the second
 * and one in the third; and the others are through in no time unless there was something to do.
 *
 * Limits. If a note cannot be made an event is told of twice.
 *
 * Ways rejected. bpf_preempt_disable: it has to be taken back before the program ends, and then
 * whoever waits for the processor gets it, inside. perf's tracepoint programs forbid preemption
 * and are not given the arguments.
 */
#ifndef RINGFENCE_AGAIN_H
#define RINGFENCE_AGAIN_H

#include "record.h"

/* What each thread passes just now, by its id: the argument that makes it another than the last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} passages SEC(".maps");

/* How many passages were told of by another program than the first, by the type of the event. What
 * the first one missed (recursion_misses of its bpf_prog_info) and is not here, nobody told of. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RINGFENCE_TYPES);
	__type(key, __u32);
	__type(value, __u64);
} made_up SEC(".maps");

enum again { FIRST, AGAIN, LAST };

/* Whether it is this program that tells. */
static __always_inline int tells(enum again program, __u64 passage, __u32 type)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	__u64 *noted, *count;

	if (!CAN_BE_PREEMPTED)
		return program == FIRST;
	noted = program == FIRST ? NULL : bpf_map_lookup_elem(&passages, &thread);
	if (noted && *noted == passage) {
		if (program == LAST)
			bpf_map_delete_elem(&passages, &thread);
		return 0;
	}
	if (program != LAST)
		bpf_map_update_elem(&passages, &thread, &passage, 0);
	count = program == FIRST ? NULL : bpf_map_lookup_elem(&made_up, &type);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 1;
}

#define TOLD_BY(program, tracepoint, name, tell, identity, type)                                   \
	SEC("tp_btf/" #tracepoint)                                                                 \
	int name(void *context)                                                                    \
	{                                                                                          \
		if (tells(program, argument(context, identity), type))                             \
			tell(context);                                                             \
		return 0;                                                                          \
	}

/* The programs of a tracepoint. `identity` is the index of the argument that passages of a thread
 * differ in; `type` that of the event, or the first one if there are several. */
#define TOLD_ONCE(tracepoint, name, tell, identity, type)                                          \
	TOLD_BY(FIRST, tracepoint, name, tell, identity, type)                                     \
	TOLD_BY(AGAIN, tracepoint, name##_again, tell, identity, type)                             \
	TOLD_BY(LAST, tracepoint, name##_last, tell, identity, type)

#endif
