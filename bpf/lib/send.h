/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sending: a record into the rings of clients, what is lost, and who is woken when.
 *
 * Loss. What does not fit is counted by type and reason, and the client is told: by header.lost of
 * each later record, and by a loss record, which comes before the next record that fits. If the
 * loss record does not fit, no other is written either.
 *
 * Waking. To wake a client costs an interrupt and a switch, more than its record. So a client that
 * only listens is woken when its ring is a quarter full, and by a timer 10 ms after the first
 * record that it was not woken for. The timer is set by such a record only: while nothing happens,
 * nobody is woken. Waking without a record is done by a reservation that is discarded; readers
 * skip it.
 *
 * Ways rejected. A timer for each client (as many interrupts). A wake-up for each record. A thread
 * of the daemon that wakes (a dead daemon would be a silent one). Numbers for each client's records
 * (see the head of api/ringfence.h).
 */
#ifndef RINGFENCE_SEND_H
#define RINGFENCE_SEND_H

#include "clients.h"

/* --- loss ------------------------------------------------------------------------------------ */

/*
 * A walk through what one client lost. All loops here are bpf_loop, as the verifier goes through
 * what they do once instead of once for each of 64 types, and that in each program that sends.
 */
struct loss_walk {
	void *ring;
	struct client_counters *counter;
	struct loss_record *record;
	__u64 sum;
	__u32 why;
	/* 0 if there was no place. */
	__u32 told;
};

/* Counts what was lost of one type and not told of. */
static long count_loss(__u32 type, struct loss_walk *walk)
{
	__u32 why = walk->why & (LOST_KINDS - 1), lost;

	type &= LOST_TYPES - 1;
	lost = walk->counter->lost_by[why][type] - walk->counter->told_by[why][type];
	walk->record->loss.by_type[type] = lost;
	walk->sum += lost;
	return 0;
}

/* Notes that one type was told of. */
static long note_told(__u32 type, struct loss_walk *walk)
{
	type &= LOST_TYPES - 1;
	walk->counter->told_by[walk->why & (LOST_KINDS - 1)][type] +=
		walk->record->loss.by_type[type];
	return 0;
}

/* Tells a client of what it lost for one reason. */
static long tell_why(__u32 index, struct loss_walk *walk)
{
	struct client_counters *counter = walk->counter;
	struct loss_record *record = walk->record;

	walk->why = index;
	walk->sum = 0;
	bpf_loop(LOST_TYPES, count_loss, walk, 0);
	if (!walk->sum)
		return 0;
	record->loss.records = walk->sum;
	record->loss.why = index + 1;
	record->header.lost = counter->lost;
	if (bpf_ringbuf_output(walk->ring, record, sizeof(*record), BPF_RB_NO_WAKEUP)) {
		walk->told = 0;
		return 1;
	}
	bpf_loop(LOST_TYPES, note_told, walk, 0);
	counter->told += walk->sum;
	__sync_fetch_and_add(&counter->written, 1);
	return 0;
}

/* Tells a client of all that it lost and was not told of. Gives 0 if there was no place, else 1:
 * also if somebody else is telling it just now. */
__noinline int tell_loss(__u32 slot)
{
	struct client_counters *counter = bpf_map_lookup_elem(&counters, &slot);
	struct loss_record *record = bpf_map_lookup_elem(&losses, &slot);
	void *ring = bpf_map_lookup_elem(&rings, &slot);
	struct loss_walk walk = {.counter = counter, .record = record, .ring = ring, .told = 1};
	struct client_state *all = the_state();

	if (!counter || !record || !ring || !all)
		return 1;
	if (__sync_val_compare_and_swap(&counter->telling, 0, 1))
		return 1;
	record->header.size = sizeof(*record);
	record->header.version = RINGFENCE_ABI;
	record->header.type = RINGFENCE_LOSS;
	record->header.body = BODY_AT;
	record->header.classes = RINGFENCE_CLASS_NOTIFY;
	record->header.flags = RINGFENCE_FLAG_MANDATORY;
	record->header.time = bpf_ktime_get_boot_ns();
	record->header.global_sequence = __sync_fetch_and_add(&all->sequence, 1) + 1;
	record->header.event_id = record->header.global_sequence;
	__builtin_memcpy(record->header.boot_id, all->boot_id, sizeof(all->boot_id));
	/* The reasons are numbered from RINGFENCE_LOST_RING_FULL to RINGFENCE_LOST_MISSED. */
	bpf_loop(RINGFENCE_LOST_MISSED, tell_why, &walk, 0);
	__sync_lock_test_and_set(&counter->telling, 0);
	return walk.told;
}

/* --- waking ---------------------------------------------------------------------------------- */

/* Has a client woken by the timer. */
static __always_inline void wake_later(struct client_state *all, __u64 bit)
{
	struct wake_timer *timer;
	__u32 first = 0;

	if (!(all->pending & bit))
		__sync_fetch_and_or(&all->pending, bit);
	if (all->armed || __sync_lock_test_and_set(&all->armed, 1))
		return;
	timer = bpf_map_lookup_elem(&wake_timers, &first);
	if (!timer || bpf_timer_start(&timer->timer, WAKE_AFTER, 0))
		all->armed = 0;
}

/* Whether a client that listens is to be woken by the record that is to be written. */
static __always_inline int fills_up(void *ring, struct client_counters *counter, __u32 size)
{
	__u64 unread = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	__u64 room = bpf_ringbuf_query(ring, BPF_RB_RING_SIZE);

	if (unread + size < room / 4) {
		if (counter->woken)
			counter->woken = 0;
		return 0;
	}
	/* Once, until it has caught up. */
	return !counter->woken && !__sync_lock_test_and_set(&counter->woken, 1);
}

/* --- sending --------------------------------------------------------------------------------- */

struct send_context {
	struct buffer *buffer;
	__u64 left;
	/* Who gets it for the reason `classes`; the others because of a rule. */
	__u64 clients;
	__u32 size;
	__u32 wake;
	__u32 classes;
	__u32 reserved;
	/* Clients that it was lost for. */
	__u64 missed;
};

/* Until when a client has to answer a record that asks. */
static __always_inline __u64 deadline_for(struct ringfence_header *header, __u32 slot)
{
	__u32 type = header->type;
	struct asked *asked;

	if (!(header->classes & RINGFENCE_CLASS_ASK))
		return 0;
	asked = bpf_map_lookup_elem(&asked_of, &type);
	return asked ? header->time + asked->time[slot & (CLIENTS - 1)] : 0;
}

static long send_one(__u32 count, struct send_context *context)
{
	struct buffer *buffer = context->buffer;
	struct ringfence_header *header = header_of(buffer);
	struct client_state *all = the_state();
	struct client_counters *counter;
	__u64 bit, flags;
	__u32 slot;
	void *ring;

	if (!context->left || !all)
		return 1;
	slot = lowest(context->left);
	bit = context->left & -context->left;
	context->left &= ~bit;
	counter = bpf_map_lookup_elem(&counters, &slot);
	ring = bpf_map_lookup_elem(&rings, &slot);
	if (!counter || !ring)
		return 0;
	if (counter->lost != counter->told && !tell_loss(slot)) {
		count_lost(counter, header->type, RINGFENCE_LOST_RING_FULL, 1);
		wake_later(all, bit);
		context->missed |= bit;
		return 0;
	}
	header->classes = context->clients & bit ? context->classes : 0;
	if (buffer->ruled)
		rules_for_client(header, &buffer->rules.outcome, slot);
	flags = BPF_RB_NO_WAKEUP;
	if (context->wake || all->wake_always || fills_up(ring, counter, context->size))
		flags = BPF_RB_FORCE_WAKEUP;
	header->lost = counter->lost;
	header->deadline = deadline_for(header, slot);
	if (bpf_ringbuf_output(ring, buffer->record, context->size & RECORD_MASK, flags)) {
		count_lost(counter, header->type, RINGFENCE_LOST_RING_FULL, 1);
		context->missed |= bit;
		flags = BPF_RB_NO_WAKEUP;
	} else {
		__sync_fetch_and_add(&counter->written, 1);
	}
	if (flags == BPF_RB_NO_WAKEUP)
		wake_later(all, bit);
	return 0;
}

/*
 * Writes a record to each client of a set, for the reason `classes`, and to those whose rules tell;
 * wakes them at once if it is to. All records of one event have the same number, whoever gets them
 * and however often it is sent. Gives the clients that it was lost for.
 */
__noinline __u64 send(struct buffer *buffer, __u64 clients, __u32 classes, __u32 wake)
{
	struct send_context context = {.clients = clients, .wake = wake, .classes = classes};
	struct client_state *all = the_state();
	struct ringfence_header *header;

	if (!buffer || !all)
		return 0;
	context.left = clients;
	if (buffer->ruled)
		context.left |= buffer->rules.outcome.told;
	if (!context.left)
		return 0;
	header = header_of(buffer);
	if (!header->global_sequence) {
		header->global_sequence = __sync_fetch_and_add(&all->sequence, 1) + 1;
		if (!header->event_id)
			header->event_id = header->global_sequence;
		__builtin_memcpy(header->boot_id, all->boot_id, sizeof(all->boot_id));
	}
	context.buffer = buffer;
	context.size = end_record(buffer);
	bpf_loop(CLIENTS, send_one, &context, 0);
	return context.missed;
}

/* Tells those who are told, and gives the buffer back. */
static __always_inline void finish(struct buffer *buffer)
{
	send(buffer, buffer->notify, RINGFENCE_CLASS_NOTIFY, 0);
	give_back(buffer);
}

/* --- deciding -------------------------------------------------------------------------------- */

/* What rules say of a finished record: the errno for the caller, or 0. */
static __always_inline __u64 decide(struct buffer *buffer, __u32 observed)
{
	struct rules_work *work = &buffer->rules;

	if (!buffer->ruled)
		return 0;
	/* Rules ask for its size and flags. */
	end_record(buffer);
	rules_descent(work);
	work->observed = observed;
	return rules_decide((void *)buffer->record, work, buffer->type);
}

/* As finish(), of an event that nobody can deny, because it is done: rules only tell. */
static __always_inline void observe(struct buffer *buffer)
{
	decide(buffer, 1);
	finish(buffer);
}

/* As finish(), of an event that is not done yet: gives what the hook returns. */
static __always_inline int conclude(struct buffer *buffer)
{
	__u64 error = decide(buffer, 0);

	finish(buffer);
	return rules_result(error);
}

/* As conclude(), where another program tells those who subscribe of what is done: they are told
 * here of what is denied. */
static __always_inline int check(struct buffer *buffer)
{
	__u64 error = decide(buffer, 0);

	if (!error)
		buffer->notify = 0;
	finish(buffer);
	return rules_result(error);
}

#endif
