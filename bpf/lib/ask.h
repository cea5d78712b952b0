/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Asking: a record goes to those who decide, and the task waits for what they say.
 *
 * In order: who is asked and does not know the answer yet (gate_askers); the record into their
 * rings, each with its own deadline; the buffer back, because a task that waits must not keep one
 * from others; the wait. What was denied is told to those who listen, because the place where an
 * allowed event is told of is never passed then.
 *
 * Mutes do not count here: who is asked is asked.
 */
#ifndef RINGFENCE_ASK_H
#define RINGFENCE_ASK_H

#include "send.h"
#include "gate.h"

/* What to ask about, or tell of. */
struct event {
	/* RINGFENCE_PROCESS_EXEC ... */
	__u32 type;
	/* Length of its own part, and where in the record the file is that it is about; 0 if there
	 * is none. */
	__u32 body;
	__u32 file;
};

/* Begins a record for those of a set, whom nothing keeps from getting it. */
static __always_inline struct buffer *begin_for(const struct event *event, __u64 clients)
{
	struct buffer *buffer;
	int index;

	index = take_buffer();
	buffer = bpf_map_lookup_elem(&buffers, &index);
	if (index < 0 || !buffer) {
		lose_all(clients, event->type);
		return NULL;
	}
	begin_record(buffer, event->type, event->body);
	put_actor(buffer);
	buffer->notify = 0;
	buffer->ask = clients;
	return buffer;
}

/* The question that a record asks. */
static __always_inline void put_question(struct gate_question *question, struct buffer *buffer,
					 const struct event *event)
{
	struct ringfence_actor *actor = actor_of(buffer);
	struct ringfence_file *file = (void *)buffer->record + (event->file & FIXED_MASK);

	question->askers = buffer->ask;
	question->type = event->type;
	question->time = header_of(buffer)->time;
	question->pid = actor->process.pid;
	question->start = actor->process.start;
	if (event->file) {
		question->file.device = file->device;
		question->file.inode = file->inode;
		question->file.version = file->version;
	}
}

/*
 * Asks what a finished record asks, waits, and gives the buffer back before that. Gives 0 or a
 * negative errno; `event_id` is then of the record.
 */
static __noinline int ask(struct buffer *buffer, const struct event *event, __u64 *event_id)
{
	struct gate_question question = {};
	__u32 type = event->type;
	struct asked *asked;
	__u32 thread;
	__u64 missed;

	put_question(&question, buffer, event);
	if (!gate_askers(&question)) {
		give_back(buffer);
		return 0;
	}
	missed = send(buffer, question.askers, RINGFENCE_CLASS_ASK, 1);
	question.event_id = header_of(buffer)->event_id;
	give_back(buffer);
	*event_id = question.event_id;
	thread = (__u32)bpf_get_current_pid_tgid();
	bpf_map_update_elem(&asked_events, &thread, event_id, 0);
	asked = bpf_map_lookup_elem(&asked_of, &type);
	if (asked && asked->deny_full & missed)
		return -GATE_EPERM;
	question.askers &= ~missed;
	return question.askers ? gate_decide(&question) : 0;
}

/* What those who should have been asked have declared for the case that nobody answers: there is no
 * buffer to ask with. */
static __always_inline int unasked(const struct event *event, __u64 askers)
{
	struct gate_question question = {};

	question.askers = askers;
	question.type = event->type;
	return gate_fall_back(&question);
}

/*
 * Begins the record of a denial for those who listen; NULL if nobody does. What they mute by the
 * path of an executable does not count here: until 6.18 a program that may sleep cannot look
 * prefixes up (kernel/bpf/verifier.c, check_map_prog_compatibility).
 */
static __always_inline struct buffer *begin_denied(const struct event *event, __u64 event_id,
						   int denied)
{
	__u32 type = event->type;
	struct subscribers *subscribers = bpf_map_lookup_elem(&subscriptions, &type);
	struct client_state *all = the_state();
	struct ringfence_header *header;
	struct buffer *buffer;
	__u64 wanted;

	if (!subscribers || !all || denied == -GATE_EINTR)
		return NULL;
	wanted = subscribers->notify;
	if (wanted & (all->mute_process | all->mute_executable | all->mute_cgroup | all->inverted))
		wanted &= ~(muted_by(wanted) ^ all->inverted);
	if (!wanted)
		return NULL;
	buffer = begin_for(event, 0);
	if (!buffer)
		return NULL;
	buffer->notify = wanted;
	header = header_of(buffer);
	header->event_id = event_id;
	header->outcome = RINGFENCE_OUTCOME_DENIED;
	header->error = -denied;
	return buffer;
}

#endif
