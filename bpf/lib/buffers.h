/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Buffers to make records in.
 *
 * A record does not fit on the stack, and a buffer for each processor is not enough: programs on
 * LSM hooks and tracepoints can be preempted, and an interrupt can bring another event while one is
 * being built. So there are several, each with a word that says whether it is in use and that is
 * taken by compare and exchange; who starts at those of its own processor rarely meets anybody.
 */
#ifndef RINGFENCE_BUFFERS_H
#define RINGFENCE_BUFFERS_H

#include "clients_abi.h"
#include "rules_facts.h"

/* Offsets into a record are masked with this, so that the verifier knows their bounds; behind it
 * is place for the longest string. */
#define RECORD_MASK 0x3fff
#define RECORD_ROOM (RECORD_MASK + 1 + RINGFENCE_PATH_MAX)
/* Where the fixed parts are. */
#define FIXED_MASK 0x3ff
/* A path is put together backwards from here; a name has at most 255 bytes. */
#define PATH_ROOM (RINGFENCE_PATH_MAX + 256)

/* How far a walk from a file up to the root has come. */
struct walk {
	__u64 dentry;
	/* struct mount, and the root of what is mounted there. */
	__u64 mount;
	__u64 root;
	__u32 position;
	__u16 flags;
	/* The last name has nothing above it, and is not a root that is mounted: a file that was
	 * never in a tree, such as those of memfd_create. */
	__u16 detached;
};

struct buffer {
	/* Compared and exchanged: 1 in use. */
	__u32 busy;
	__u32 type;
	/* Bytes of the record so far. */
	__u32 used;
	/* RINGFENCE_FLAG_ */
	__u32 flags;
	/* Who is to get it, by class; and who among those mutes it as far as that is known. */
	__u64 notify;
	__u64 ask;
	__u64 muted;
	/* Clients by whose rules it is decided; nobody: the outcome below is of another record. */
	__u64 ruled;
	struct rules_work rules;
	/* The executable's struct file. */
	__u64 executable;
	struct walk walk;
	struct prefix_key prefix;
	__u8 path[PATH_ROOM];
	__u8 pad[4];
	__u8 record[RECORD_ROOM];
};

/* How many there are is set as it is made, and said in the state. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct buffer);
} buffers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct client_state);
} state SEC(".maps");

static __always_inline struct client_state *the_state(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&state, &first);
}

struct take_context {
	__u32 next;
	__u32 count;
	int taken;
};

static long take_one(__u32 tried, struct take_context *context)
{
	__u32 index = context->next % context->count;
	struct buffer *buffer = bpf_map_lookup_elem(&buffers, &index);

	context->next++;
	if (!buffer || __sync_val_compare_and_swap(&buffer->busy, 0, 1))
		return 0;
	context->taken = index;
	return 1;
}

/* Takes a buffer and gives its index, or -1 if all that were tried are in use. */
__noinline int take_buffer(void)
{
	struct take_context context = {.taken = -1};
	struct client_state *all = the_state();

	if (!all)
		return -1;
	context.next = bpf_get_smp_processor_id() * BUFFERS_EACH;
	context.count = all->buffers;
	bpf_loop(BUFFERS_EACH * 4, take_one, &context, 0);
	return context.taken;
}

static __always_inline void give_back(struct buffer *buffer)
{
	/* An exchange and not a store, because all that was written must be seen before. */
	__sync_lock_test_and_set(&buffer->busy, 0);
}

#endif
