/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gate: a sleepable LSM program waits for a verdict of user space.
 *
 * How. The program reads an extended attribute of a file (bpf_get_file_xattr). The file is on a
 * FUSE file system that the daemon serves, so the kernel sends the daemon a request and lets the
 * thread sleep until it is answered. The answer is the value of the attribute. A program cannot
 * open a file; it gets hold of this one as the executable of a process that exists for nothing
 * else, the anchor (bpf_get_task_exe_file). The request says which thread asks, and no more. What
 * it asks stands in gate_pending under the thread's number, and the answer is written there too:
 * no two threads share a buffer.
 *
 * Why this way. No function of the kernel is made to let a program wait for user space. This one
 * waits as every read from a FUSE file system does, which the kernel knows to end: by an answer, by
 * the death of the daemon, by an abort of the connection (the anchor does that when the daemon
 * stops beating).
 *
 * Use, in order. gate_askers: who is to be asked. Write the record to them. gate_wait: the answer.
 * gate_fall_back where none came. gate_decide is the last two in one. All of them only in programs
 * that may sleep (lsm.s).
 *
 * Who is never asked about is in exempt.h.
 *
 * Limits. From 6.12 on. GATE_WAITERS threads. Two hooks of one thread cannot wait at once, which no
 * hook does. A security module that forbids the thread to read files on FUSE (SELinux can) refuses
 * the question, which counts as GATE_REFUSED.
 *
 * Ways rejected. A spinning wait (bpf_loop) burns a processor and is bounded. bpf_send_signal with
 * SIGSTOP lets the call through. The attribute's name cannot carry the question, because the
 * verifier wants a constant. A buffer for each processor is another thread's as soon as one sleeps.
 * Task storage needs a descriptor of the thread for user space to read it.
 */
#ifndef RINGFENCE_GATE_H
#define RINGFENCE_GATE_H

#include "kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "gate_abi.h"
#include "exempt.h"

/* What gate_wait gives beside 0 and a negative errno: nobody answered. */
#define GATE_UNANSWERED 1

#define GATE_EPERM	  1
#define GATE_EINTR	  4
#define GATE_ENOTCONN	  107
#define GATE_ECONNABORTED 103
#define GATE_MAX_ERRNO	  4095

/* include/uapi/linux/bpf.h: 1, NOEXIST. */
#define GATE_NOEXIST 1

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate_settings);
} gate_settings SEC(".maps");

/* By thread, in the initial pid namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GATE_WAITERS);
	__type(key, __u32);
	__type(value, struct gate_question);
} gate_pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GATE_CACHED_ANSWERS);
	__type(key, struct gate_answer_key);
	__type(value, struct gate_answer);
} gate_cache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GATE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} gate_counters SEC(".maps");

/* include/linux/bpf.h: opaque to programs. */
struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));

/* libbpf compares the types of the functions below with the kernel's, and takes a function for
 * missing where a structure is only declared. So struct file must be whole here, and some field of
 * it be read (in gate_is_anchor), or clang writes no more than a declaration into the object. */
_Static_assert(sizeof(struct file), "include what defines struct file, with f_inode, first");

/*
 * kernel/bpf/helpers.c, fs/bpf_fs_kfuncs.c. bpf_get_task_exe_file and bpf_put_file came with 6.12
 * (d08e2045ebf0 "bpf: introduce new VFS based BPF kfuncs"), the others before. Weak, so that an
 * object loads where they are missing.
 */
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;
extern struct file *bpf_get_task_exe_file(struct task_struct *task) __ksym __weak;
extern void bpf_put_file(struct file *file) __ksym __weak;
extern int bpf_get_file_xattr(struct file *file, const char *name__str,
			      struct bpf_dynptr *value) __ksym __weak;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct super_block___gate {
	unsigned int s_dev;
};

struct inode___gate {
	unsigned long i_ino;
	struct super_block___gate *i_sb;
};

#pragma clang attribute pop

static __always_inline void gate_add(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(&gate_counters, &counter);

	/* A sleepable program can be preempted, and the processor count for another. */
	if (value)
		__sync_fetch_and_add(value, amount);
}

/* The clients who are not asked about what this thread does. */
static __noinline __u64 gate_exempted(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct gate_exemption *own = gate_exemption_of((void *)task);
	struct gate_mark *mark = bpf_task_storage_get(&gate_marks, task, NULL, 0);
	__u64 exempted = own ? own->own : 0;

	if (mark)
		exempted |= mark->everybody ? ~0ULL : mark->clients;
	return exempted;
}

/*
 * Who of question->askers is to be asked: who does not know the answer already, and may be asked.
 * An empty set means that the event is allowed as far as askers are concerned. Writes it to
 * question->askers as well.
 */
static __noinline __u64 gate_askers(struct gate_question *question)
{
	struct gate_answer_key key = {};
	struct gate_answer *known;

	if (!question->askers)
		return 0;
	key.file = question->file;
	key.type = question->type;
	known = bpf_map_lookup_elem(&gate_cache, &key);
	if (known && key.file.inode)
		question->askers &= ~known->allowed;
	if (!question->askers) {
		gate_add(GATE_CACHED, 1);
		return 0;
	}
	question->askers &= ~gate_exempted();
	if (!question->askers)
		gate_add(GATE_EXEMPT, 1);
	return question->askers;
}

/* Whether a file is the one that the daemon serves. The anchor may have died, and its number be
 * another's. */
static __always_inline bool gate_is_anchor(struct gate_settings *settings, struct file *file)
{
	struct inode___gate *inode = (void *)BPF_CORE_READ(file, f_inode);

	return BPF_CORE_READ(inode, i_ino) == settings->inode &&
	       BPF_CORE_READ(inode, i_sb, s_dev) == settings->device;
}

/* Reads the answer into the question's entry. Gives its size, or a negative errno. */
static __always_inline int gate_read(struct gate_settings *settings, struct gate_question *entry)
{
	struct task_struct *anchor = bpf_task_from_pid(settings->anchor);
	struct bpf_dynptr value;
	struct file *file;
	int read = -GATE_ENOTCONN;

	if (!anchor)
		return read;
	file = bpf_get_task_exe_file(anchor);
	bpf_task_release(anchor);
	if (!file)
		return read;
	if (gate_is_anchor(settings, file)) {
		bpf_dynptr_from_mem(&entry->reply, sizeof(entry->reply), 0, &value);
		/* Here the thread sleeps. */
		read = bpf_get_file_xattr(file, "user.verdict", &value);
		/* What FUSE says of a connection that is gone must not be taken for no anchor. */
		if (read == -GATE_ENOTCONN)
			read = -GATE_ECONNABORTED;
	}
	bpf_put_file(file);
	return read;
}

/* What was read, as what gate_wait gives, and counted. */
static __always_inline int gate_judge(struct gate_question *entry, int read)
{
	struct gate_reply reply = entry->reply;

	if (read == -GATE_EINTR) {
		/* FUSE gives this to nobody but a thread that is being killed. Whatever it wanted
		 * to do, it must not be done. */
		gate_add(GATE_KILLED, 1);
		return -GATE_EINTR;
	}
	if (read == -GATE_ENOTCONN) {
		gate_add(GATE_NO_ANCHOR, 1);
		return GATE_UNANSWERED;
	}
	if (read == -GATE_ECONNABORTED) {
		gate_add(GATE_ABORTED, 1);
		return GATE_UNANSWERED;
	}
	if (read < 0) {
		gate_add(GATE_REFUSED, 1);
		return GATE_UNANSWERED;
	}
	if (read == sizeof(reply) && reply.event_id == entry->event_id) {
		if (reply.verdict == GATE_ALLOW && !reply.error) {
			gate_add(GATE_ALLOWED, 1);
			return 0;
		}
		if (reply.verdict == GATE_DENY && reply.error >= 1 &&
		    reply.error <= GATE_MAX_ERRNO) {
			gate_add(reply.error == GATE_EINTR ? GATE_KILLED : GATE_DENIED, 1);
			return -(int)reply.error;
		}
	}
	gate_add(GATE_WRONG_REPLY, 1);
	return GATE_UNANSWERED;
}

/*
 * Asks question->askers and waits. Gives 0 if they allow it, a negative errno if they do not or the
 * thread is being killed, and GATE_UNANSWERED if there is no answer, for whatever reason.
 */
static __noinline int gate_wait(struct gate_question *question)
{
	struct gate_settings *settings;
	struct gate_question *entry;
	int result = GATE_UNANSWERED;
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	__u32 first = 0;
	__u64 start;

	if (!bpf_ksym_exists(bpf_get_file_xattr) || !bpf_ksym_exists(bpf_get_task_exe_file) ||
	    !bpf_ksym_exists(bpf_put_file) || !bpf_ksym_exists(bpf_task_from_pid) ||
	    !bpf_ksym_exists(bpf_task_release)) {
		gate_add(GATE_NO_FUNCTION, 1);
		return GATE_UNANSWERED;
	}
	settings = bpf_map_lookup_elem(&gate_settings, &first);
	if (!settings || !settings->anchor) {
		gate_add(GATE_NO_ANCHOR, 1);
		return GATE_UNANSWERED;
	}
	question->thread = thread;
	if (bpf_map_update_elem(&gate_pending, &thread, question, GATE_NOEXIST)) {
		gate_add(GATE_NO_ROOM, 1);
		return GATE_UNANSWERED;
	}
	/* Nobody but this thread takes its entry away, so it stays while the thread sleeps. */
	entry = bpf_map_lookup_elem(&gate_pending, &thread);
	if (entry) {
		start = bpf_ktime_get_boot_ns();
		result = gate_judge(entry, gate_read(settings, entry));
		gate_add(GATE_WAITED, bpf_ktime_get_boot_ns() - start);
	}
	bpf_map_delete_elem(&gate_pending, &thread);
	return result;
}

/* What the askers declared for the case that no answer comes: 0, or -EPERM if one of them wants it
 * denied then. */
static __noinline int gate_fall_back(struct gate_question *question)
{
	struct gate_settings *settings;
	__u32 first = 0;

	settings = bpf_map_lookup_elem(&gate_settings, &first);
	if (settings && settings->deny_unanswered[question->type % GATE_TYPES] & question->askers) {
		gate_add(GATE_FELL_BACK_DENIED, 1);
		return -GATE_EPERM;
	}
	gate_add(GATE_FELL_BACK_ALLOWED, 1);
	return 0;
}

/* gate_wait, and gate_fall_back if it has no answer. */
static __always_inline int gate_decide(struct gate_question *question)
{
	int result = gate_wait(question);

	if (result == GATE_UNANSWERED)
		result = gate_fall_back(question);
	/* What a hook may return; the verifier wants to see it. */
	barrier_var(result);
	if (result > 0 || result < -GATE_MAX_ERRNO)
		result = -GATE_EPERM;
	return result;
}

/* All of it, for whoever has no record to write in between. */
static __always_inline int gate_ask(struct gate_question *question)
{
	return gate_askers(question) ? gate_decide(question) : 0;
}

#endif
