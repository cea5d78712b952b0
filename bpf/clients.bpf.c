// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What belongs to no area of events: the maps that all share, the timer that wakes clients, and
 * the way by which user space puts records of its own into a client's ring.
 *
 * This object is loaded first; the areas are loaded with its maps in the place of theirs.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"
/* For their maps, which areas share. */
#include "lib/gate.h"
#include "lib/watched.h"
#include "lib/again.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * All that is published, so that the BTF of this object has the layout of each: it is what other
 * languages' types are held against. Points nowhere.
 */
struct published {
	struct ringfence_string string;
	struct ringfence_process_key process_key;
	struct ringfence_file file;
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
	struct ringfence_loss loss;
	struct ringfence_deadline_missed deadline_missed;
	struct ringfence_stage_changed stage_changed;
	struct ringfence_shutting_down shutting_down;
	struct ringfence_kernel_finding kernel_finding;
} * published;

/* include/uapi/linux/time.h */
#define CLOCK_MONOTONIC 1

struct wake_context {
	__u64 left;
	/* Clients that could not be told of a loss. */
	__u64 untold;
};

static long wake_one(__u32 count, struct wake_context *context)
{
	struct client_counters *counter;
	__u64 bit;
	__u32 slot;
	void *ring, *nothing;

	if (!context->left)
		return 1;
	slot = lowest(context->left);
	bit = context->left & -context->left;
	context->left &= ~bit;
	counter = bpf_map_lookup_elem(&counters, &slot);
	if (counter && counter->lost != counter->told && !tell_loss(slot))
		context->untold |= bit;
	ring = bpf_map_lookup_elem(&rings, &slot);
	if (!ring)
		return 0;
	/* Fails if the ring is full, and then the client was woken as it filled up. */
	nothing = bpf_ringbuf_reserve(ring, 8, 0);
	if (nothing)
		bpf_ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
	return 0;
}

static int wake_pending(void *map, int *key, struct wake_timer *timer)
{
	struct client_state *all = the_state();
	struct wake_context context = {};

	if (!all)
		return 0;
	/* In this order: who sets its bit after it was taken finds the timer not armed. */
	__sync_lock_test_and_set(&all->armed, 0);
	context.left = __sync_lock_test_and_set(&all->pending, 0);
	bpf_loop(CLIENTS, wake_one, &context, 0);
	if (context.untold) {
		__sync_fetch_and_or(&all->pending, context.untold);
		if (!__sync_lock_test_and_set(&all->armed, 1) &&
		    bpf_timer_start(&timer->timer, LOSS_AFTER, 0))
			all->armed = 0;
	}
	return 0;
}

/* Makes the timer. Run once; gives 0 or a negative error. */
SEC("syscall")
int make_timer(void *context)
{
	struct wake_timer *timer;
	__u32 first = 0;
	long error;

	timer = bpf_map_lookup_elem(&wake_timers, &first);
	if (!timer)
		return -1;
	error = bpf_timer_init(&timer->timer, &wake_timers, CLOCK_MONOTONIC);
	if (error)
		return error;
	return bpf_timer_set_callback(&timer->timer, wake_pending);
}

/* What the program below is called with. */
struct write_context {
	struct write_call call;
	__u8 record[RINGFENCE_RECORD_MAX];
};

/*
 * Writes a record of user space into a ring. Numbers, loss and boot are put in by send(), because
 * only here they are known; all else is as it was given.
 */
SEC("syscall")
int write_record(struct write_context *context)
{
	__u32 slot = context->call.slot, length = context->call.length, wake = context->call.wake;
	struct ringfence_header *header;
	struct buffer *buffer;
	__u64 missed;
	int index;

	if (slot >= CLIENTS || length < sizeof(*header) || length > RINGFENCE_RECORD_MAX)
		return WRITE_REFUSED;
	if (!bpf_map_lookup_elem(&rings, &slot))
		return WRITE_NO_RING;
	index = take_buffer();
	buffer = bpf_map_lookup_elem(&buffers, &index);
	if (index < 0 || !buffer)
		return WRITE_NO_BUFFER;
	/* Its context is kernel memory, which the kernel copied from the caller. */
	bpf_probe_read_kernel(buffer->record, length, context->record);
	header = header_of(buffer);
	header->global_sequence = 0;
	buffer->ruled = 0;
	buffer->type = header->type;
	buffer->used = length;
	buffer->flags = header->flags;
	missed = send(buffer, 1ULL << slot, header->classes, wake);
	give_back(buffer);
	return missed ? WRITE_FULL : WRITE_DONE;
}

/* Whether anything can be missed here: bpf/lib/again.h. */
SEC("syscall")
int can_miss(void *context)
{
	return !!CAN_BE_PREEMPTED;
}

/* Whether a process that ends still has what it ran: bpf/process.bpf.c. */
SEC("syscall")
int exits_have_executables(void *context)
{
	return !!bpf_core_type_exists(btf_trace_sched_process_exit___since_6_16);
}

/* Counts for clients what no program was run for, and has them told of it. */
SEC("syscall")
int lose_missed(struct missed_call *context)
{
	struct client_state *all = the_state();

	lose_all(context->clients, context->type, RINGFENCE_LOST_MISSED, context->count);
	if (all)
		wake_later(all, context->clients);
	return 0;
}
