/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Asking: a record goes to those who decide, and the task waits for what they say.
 *
 * In order: who is asked and does not know the answer yet (to_ask), before anything is made, so
 * that a known answer costs no record; the record into their rings, each with its own deadline; the
 * buffer back, because a task that waits must not keep one from others; the wait. What was denied
 * is told to those who listen, because the place where an allowed event is told of is never passed
 * then.
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
	/* Length of its own part. */
	__u32 body;
};

/*
 * Begins a question to `askers` about an event and the file that it is about (a struct file; 0 if
 * there is none, or if what is said of it must not be kept). Gives who of them is to be asked: 0 if
 * all allow it already, or may not be asked about what this task does.
 */
static __always_inline __u64 to_ask(struct gate_question *question, const struct event *event,
				    __u64 askers, __u64 file)
{
	struct inode *inode;

	question->askers = askers;
	question->type = event->type;
	if (file) {
		inode = BPF_CORE_READ((struct file *)file, f_inode);
		question->file.device = BPF_CORE_READ(inode, i_sb, s_dev);
		question->file.inode = BPF_CORE_READ(inode, i_ino);
		question->file.version = changed(inode);
	}
	return gate_askers(question);
}

/* Begins a record for those of a set, whom nothing keeps from getting it. */
static __always_inline struct buffer *begin_for(const struct event *event, __u64 clients)
{
	struct buffer *buffer;
	int index;

	index = take_buffer();
	buffer = bpf_map_lookup_elem(&buffers, &index);
	if (index < 0 || !buffer) {
		lose_all(clients, event->type, RINGFENCE_LOST_NO_BUFFER, 1);
		return NULL;
	}
	begin_record(buffer, event->type, event->body);
	put_actor(buffer);
	buffer->notify = 0;
	buffer->ask = clients;
	return buffer;
}

/*
 * Asks question->askers what a finished record asks, waits, and gives the buffer back before that.
 * Gives 0 or a negative errno; question->event_id is then of the record.
 */
static __noinline int ask(struct buffer *buffer, struct gate_question *question)
{
	struct ringfence_actor *actor = actor_of(buffer);
	__u32 type = question->type;
	struct asked *asked;
	__u64 missed;

	question->time = header_of(buffer)->time;
	question->pid = actor->process.pid;
	question->start = actor->process.start;
	missed = send(buffer, question->askers, RINGFENCE_CLASS_ASK, 1);
	question->event_id = header_of(buffer)->event_id;
	give_back(buffer);
	asked = bpf_map_lookup_elem(&asked_of, &type);
	if (asked && asked->deny_full & missed)
		return -GATE_EPERM;
	question->askers &= ~missed;
	return question->askers ? gate_decide(question) : 0;
}

/* What comes of a question for which there is no buffer: as of one that finds no place in any ring.
 */
static __always_inline int not_told(struct gate_question *question)
{
	__u32 type = question->type;
	struct asked *asked = bpf_map_lookup_elem(&asked_of, &type);

	return asked && asked->deny_full & question->askers ? -GATE_EPERM : 0;
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
