/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The record of an event: its header and the actor, which all have alike.
 *
 * A record is made once, whoever gets it, in a buffer: header, actor and the event's own part in
 * their fixed places, then strings as they come. What differs from client to client is written as
 * it is sent (clients.h).
 */
#ifndef RINGFENCE_RECORD_H
#define RINGFENCE_RECORD_H

#include "files.h"

/* Where the parts are. */
#define ACTOR_AT      sizeof(struct ringfence_header)
#define EXECUTABLE_AT (ACTOR_AT + __builtin_offsetof(struct ringfence_actor, executable))
#define BODY_AT	      (ACTOR_AT + sizeof(struct ringfence_actor))
/* The event's own part has at most as much. */
#define BODY_ROOM 512

_Static_assert(BODY_AT + BODY_ROOM <= FIXED_MASK + 1, "FIXED_MASK is too small");

/* The offset in the record of a field of the event's own part. */
#define IN_BODY(part, field) (BODY_AT + __builtin_offsetof(struct part, field))

static __always_inline struct ringfence_header *header_of(struct buffer *buffer)
{
	return (void *)buffer->record;
}

static __always_inline struct ringfence_actor *actor_of(struct buffer *buffer)
{
	return (void *)buffer->record + ACTOR_AT;
}

static __always_inline void *body_of(struct buffer *buffer)
{
	return (void *)buffer->record + BODY_AT;
}

/* An argument of a tracepoint or hook as a number. Arguments are pointers to the verifier, which
 * functions that it looks at by themselves do not take. */
static __always_inline __u64 argument(void *context, int index)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), context + index * sizeof(value));
	return value;
}

/* The key of the process that a task belongs to. */
static __always_inline void put_key(struct ringfence_process_key *key, struct task_struct *task)
{
	key->pid = BPF_CORE_READ(task, tgid);
	key->start = BPF_CORE_READ(task, group_leader, start_boottime);
}

/* The number of a pid in the initial namespace. */
static __always_inline __u32 number_of(struct pid *pid)
{
	__u32 number = 0;

	if (pid)
		bpf_probe_read_kernel(&number, sizeof(number),
				      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
					      bpf_core_field_offset(struct upid, nr));
	return number;
}

/* The innermost namespace that a pid is in, and the number that it has there. */
static __always_inline struct upid *innermost(struct pid *pid)
{
	return (void *)pid + bpf_core_field_offset(struct pid, numbers) +
	       BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid);
}

/* The executable of the process that a task belongs to, a struct file; 0 if there is none. */
static __always_inline __u64 executable_of(struct task_struct *task)
{
	return (__u64)BPF_CORE_READ(task, mm, exe_file);
}

/* Ids and capabilities. */
static __always_inline void put_credentials(struct ringfence_actor *actor, struct task_struct *task)
{
	const struct cred *cred = task->cred;

	actor->uid = cred->uid.val;
	actor->gid = cred->gid.val;
	actor->euid = cred->euid.val;
	actor->egid = cred->egid.val;
	actor->suid = cred->suid.val;
	actor->sgid = cred->sgid.val;
	actor->fsuid = cred->fsuid.val;
	actor->fsgid = cred->fsgid.val;
	bpf_probe_read_kernel(&actor->effective, sizeof(actor->effective), &cred->cap_effective);
	bpf_probe_read_kernel(&actor->permitted, sizeof(actor->permitted), &cred->cap_permitted);
	actor->user_namespace = cred->user_ns->ns.inum;
}

/* Who does it: the task that runs. */
__noinline int put_actor(struct buffer *buffer)
{
	struct task_struct *task = bpf_get_current_task_btf(), *parent;
	struct pid_namespace *pids = NULL;
	struct ringfence_actor *actor;

	if (!buffer)
		return 0;
	actor = actor_of(buffer);
	actor->process.pid = task->tgid;
	actor->process.start = task->group_leader->start_boottime;
	parent = task->real_parent;
	actor->parent.pid = parent->tgid;
	actor->parent.start = parent->group_leader->start_boottime;
	/* Nobody is the parent of init and of kthreadd: the idle task, which is its own. */
	if (!actor->parent.pid)
		actor->parent.start = 0;
	actor->thread = task->pid;
	put_credentials(actor, task);
	actor->login_uid = 0xffffffff;
	if (bpf_core_field_exists(task->loginuid))
		actor->login_uid = task->loginuid.val;
	actor->session = number_of(task->signal->pids[PIDTYPE_SID]);
	actor->group = number_of(task->signal->pids[PIDTYPE_PGID]);
	bpf_probe_read_kernel(&pids, sizeof(pids),
			      (void *)innermost(BPF_CORE_READ(task, thread_pid)) +
				      bpf_core_field_offset(struct upid, ns));
	actor->pid_namespace = BPF_CORE_READ(pids, ns.inum);
	actor->mount_namespace = task->nsproxy->mnt_ns->ns.inum;
	actor->net_namespace = task->nsproxy->net_ns->ns.inum;
	actor->cgroup = task->cgroups->dfl_cgrp->kn->id;
	BPF_CORE_READ_INTO(&actor->comm, task, comm);
	if (task->flags & PF_KTHREAD)
		buffer->flags |= RINGFENCE_FLAG_KERNEL_ACTOR;
	else if (!executable_of(task))
		buffer->flags |= RINGFENCE_FLAG_INCOMPLETE;
	put_file(buffer, EXECUTABLE_AT, executable_of(task));
	return 0;
}

/* Begins the record in a buffer that was just taken. */
static __always_inline void begin_record(struct buffer *buffer, __u32 type, __u32 body)
{
	struct ringfence_header *header = header_of(buffer);

	/* All fixed parts, and what pads them. */
	__builtin_memset(buffer->record, 0, FIXED_MASK + 1);
	buffer->type = type;
	buffer->flags = RINGFENCE_FLAG_MANDATORY;
	buffer->ruled = 0;
	buffer->used = (BODY_AT + body + 7) & ~7U;
	header->version = RINGFENCE_ABI;
	header->type = type;
	header->body = BODY_AT;
	header->time = bpf_ktime_get_boot_ns();
}

/* Ends it: nothing of what a client gets is of an earlier record. Gives its size. */
static __always_inline __u32 end_record(struct buffer *buffer)
{
	struct ringfence_header *header = header_of(buffer);
	__u32 used = buffer->used & RECORD_MASK;

	__builtin_memset(buffer->record + used, 0, 8);
	used = (used + 7) & ~7U;
	header->size = used;
	header->flags = buffer->flags;
	return used;
}

#endif
