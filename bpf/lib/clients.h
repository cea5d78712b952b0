/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Clients: who wants what, who does not want to hear of it, and their rings.
 *
 * What. begin() asks who subscribes to a type and leaves at once if nobody does; what clients mute
 * is looked up once for all of them; then a record is made in a buffer, which finish() (send.h)
 * writes to the ring of each client that is left.
 *
 * Why this way. One program per hook serves all clients, because a hook takes 38 programs at most
 * and their order is nobody's; a set of clients is one word, so that one look-up answers for
 * all 64. The record goes by bpf_ringbuf_output, which copies it once for each client; it is built
 * once.
 */
#ifndef RINGFENCE_CLIENTS_H
#define RINGFENCE_CLIENTS_H

#include "record.h"
#include "rules.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RINGFENCE_TYPES);
	__type(key, __u32);
	__type(value, struct subscribers);
} subscriptions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RINGFENCE_TYPES);
	__type(key, __u32);
	__type(value, struct asked);
} asked_of SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLIENTS);
	__type(key, __u32);
	__type(value, struct client_counters);
} counters SEC(".maps");

struct client_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 128 * 1024);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, CLIENTS);
	__type(key, __u32);
	__array(values, struct client_ring);
} rings SEC(".maps");

/* Values are sets of clients. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ringfence_process_key);
	__type(value, __u64);
} muted_processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct executable_key);
	__type(value, __u64);
} muted_executables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} muted_cgroups SEC(".maps");

/* A longer prefix has the clients of the shorter ones too, since only the longest is found. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, __u64);
} muted_paths SEC(".maps");

/*
 * The number of the question that a thread was asked about last, for the record that tells how it
 * came out: both are of one event.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} asked_events SEC(".maps");

/* A loss record in the making, for each client. */
struct loss_record {
	struct ringfence_header header;
	struct ringfence_actor actor;
	struct ringfence_loss loss;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLIENTS);
	__type(key, __u32);
	__type(value, struct loss_record);
} losses SEC(".maps");

struct wake_timer {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wake_timer);
} wake_timers SEC(".maps");

/* The number of the lowest bit of a word times a de Bruijn sequence, by its top six bits. */
static const __u8 bit_numbers[64] = {
	0,  1,	2,  53, 3,  7,	54, 27, 4,  38, 41, 8,	34, 55, 48, 28, 62, 5,	39, 46, 44, 42,
	22, 9,	24, 35, 59, 56, 49, 18, 29, 11, 63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21,
	23, 58, 17, 10, 51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12,
};

static __always_inline __u32 lowest(__u64 set)
{
	return bit_numbers[((set & -set) * 0x022fdd63cc95386dULL) >> 58];
}

/* Counts records that a client does not get; `why` is RINGFENCE_LOST_. */
static __always_inline void count_lost(struct client_counters *counter, __u32 type, __u32 why,
				       __u32 count)
{
	__u32 *lost = counter->lost_by[(why - 1) & (LOST_KINDS - 1)];

	__sync_fetch_and_add(&lost[type & (LOST_TYPES - 1)], count);
	__sync_fetch_and_add(&counter->lost, count);
}

/* Clients that are asked about events of a type. */
static __always_inline __u64 askers_of(__u32 type)
{
	struct subscribers *subscribers = bpf_map_lookup_elem(&subscriptions, &type);

	return subscribers ? subscribers->ask : 0;
}

/* --- muting ---------------------------------------------------------------------------------- */

/* Clients of `wanted` that mute what the running task does, by all but the path of its executable.
 */
__noinline __u64 muted_by(__u64 wanted)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct ringfence_process_key process = {};
	struct executable_key executable = {};
	struct client_state *all = the_state();
	__u64 muted = 0, cgroup, *found;
	struct inode *inode;

	if (!all)
		return 0;
	if (all->mute_process & wanted) {
		process.pid = task->tgid;
		process.start = task->group_leader->start_boottime;
		found = bpf_map_lookup_elem(&muted_processes, &process);
		if (found)
			muted |= *found;
	}
	if (all->mute_cgroup & wanted) {
		cgroup = task->cgroups->dfl_cgrp->kn->id;
		found = bpf_map_lookup_elem(&muted_cgroups, &cgroup);
		if (found)
			muted |= *found;
	}
	if (all->mute_executable & wanted) {
		inode = BPF_CORE_READ(task, mm, exe_file, f_inode);
		executable.device = BPF_CORE_READ(inode, i_sb, s_dev);
		executable.inode = BPF_CORE_READ(inode, i_ino);
		found = bpf_map_lookup_elem(&muted_executables, &executable);
		if (found)
			muted |= *found;
	}
	return muted;
}

/*
 * Clients that mute by the path of the actor's executable, which is in the record of the buffer
 * with this index: until 6.2 the verifier takes for a key only what it knows to be of a map.
 */
__noinline __u64 muted_by_path(__u32 index)
{
	struct buffer *buffer = bpf_map_lookup_elem(&buffers, &index);
	struct ringfence_string *path;
	__u32 length, offset;
	__u64 *found;

	if (!buffer)
		return 0;
	path = &actor_of(buffer)->executable.path;
	offset = path->offset & RECORD_MASK;
	length = path->length;
	if (!length || path->flags & RINGFENCE_STRING_TRUNCATED)
		return 0;
	if (length > PREFIX_MAX)
		length = PREFIX_MAX;
	bpf_probe_read_kernel(buffer->prefix.path, length, buffer->record + offset);
	buffer->prefix.length = length * 8;
	found = bpf_map_lookup_elem(&muted_paths, &buffer->prefix);
	return found ? *found : 0;
}

/* --- beginning ------------------------------------------------------------------------------- */

struct lose_context {
	__u64 left;
	__u32 type;
	__u32 why;
	__u32 count;
	__u32 reserved;
};

static long lose_one(__u32 count, struct lose_context *context)
{
	struct client_counters *counter;
	__u32 slot;

	if (!context->left)
		return 1;
	slot = lowest(context->left);
	context->left &= context->left - 1;
	counter = bpf_map_lookup_elem(&counters, &slot);
	if (counter)
		count_lost(counter, context->type, context->why, context->count);
	return 0;
}

/* Counts records that each client of a set does not get. */
__noinline int lose_all(__u64 clients, __u32 type, __u32 why, __u32 count)
{
	struct lose_context context = {.left = clients, .type = type, .why = why, .count = count};

	bpf_loop(CLIENTS, lose_one, &context, 0);
	return 0;
}

/*
 * Begins a record of an event that the running task causes, with `body` bytes of its own, if
 * anybody of `among` subscribes to it, or anybody has rules for it (`ruled`): gives the buffer with
 * header and actor, or NULL. Mutes are of subscriptions, and so is `among`: rules are decided
 * whoever mutes. Who gets a buffer calls observe(), conclude() or check() (send.h).
 */
static __always_inline struct buffer *begin_among(__u32 type, __u32 body, __u64 ruled, __u64 among)
{
	struct subscribers *subscribers = bpf_map_lookup_elem(&subscriptions, &type);
	struct client_state *all;
	struct buffer *buffer;
	__u64 wanted, muted = 0;
	int index;

	if (!subscribers)
		return NULL;
	wanted = (subscribers->notify | subscribers->ask) & among;
	if (!(wanted | ruled))
		return NULL;
	all = the_state();
	if (!all)
		return NULL;
	if (wanted & (all->mute_process | all->mute_executable | all->mute_cgroup | all->mute_path |
		      all->inverted)) {
		muted = muted_by(wanted);
		/* For those who mute by path as well it is decided when there is one. */
		wanted &= ~(muted ^ all->inverted) | all->mute_path;
		if (!(wanted | ruled))
			return NULL;
	}
	index = take_buffer();
	buffer = bpf_map_lookup_elem(&buffers, &index);
	if (index < 0 || !buffer) {
		lose_all(wanted | ruled, type, RINGFENCE_LOST_NO_BUFFER, 1);
		return NULL;
	}
	begin_record(buffer, type, body);
	put_actor(buffer);
	/*
	 * Programs that may sleep cannot use an LPM trie (check_map_prog_compatibility,
	 * kernel/bpf/verifier.c). They define RINGFENCE_SLEEPABLE, and who mutes by path hears of
	 * what they tell although it did not want to.
	 */
#ifndef RINGFENCE_SLEEPABLE
	if (wanted & all->mute_path) {
		muted |= muted_by_path(index);
		wanted &= ~(muted ^ all->inverted);
		if (!(wanted | ruled)) {
			give_back(buffer);
			return NULL;
		}
	}
#endif
	buffer->notify = wanted & subscribers->notify;
	buffer->ask = wanted & subscribers->ask;
	buffer->ruled = ruled;
	return buffer;
}

/* The same for all who subscribe. */
static __always_inline struct buffer *begin_ruled(__u32 type, __u32 body, __u64 ruled)
{
	return begin_among(type, body, ruled, ~0ULL);
}

/* Clients by whose rules the program that tells of a type decides. */
static __always_inline __u64 ruled_where_told(__u32 type)
{
	__u64 ruled = rules_wanted(type);
	struct client_state *all;

	if (!ruled)
		return 0;
	all = the_state();
	return all && !(all->checked & 1ULL << type) ? ruled : 0;
}

static __always_inline struct buffer *begin(__u32 type, __u32 body)
{
	return begin_ruled(type, body, ruled_where_told(type));
}

#endif
