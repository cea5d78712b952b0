// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Credentials: a process becomes somebody else, or may do more or less.
 *
 * What. process_credentials on the LSM hooks task_fix_setuid, task_fix_setgid, capset and
 * bprm_committing_creds: all ways by which ids and capabilities of a task change.
 *
 * Why this way. The hooks are passed with the new credentials in hand and the old ones still in
 * force, so the record has both: the actor as it was, and the part as it will be. A call that
 * changes nothing is not told of.
 *
 * Limits. bprm_committing_creds cannot deny: it is passed after the point of no return, and what
 * decides about an exec is asked before. setns and unshare of a user namespace change what
 * capabilities mean and pass none of these hooks.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The part for some credentials. */
static __always_inline void read_credentials(struct ringfence_process_credentials *part,
					     const struct cred *cred)
{
	part->uid = BPF_CORE_READ(cred, uid.val);
	part->gid = BPF_CORE_READ(cred, gid.val);
	part->euid = BPF_CORE_READ(cred, euid.val);
	part->egid = BPF_CORE_READ(cred, egid.val);
	part->suid = BPF_CORE_READ(cred, suid.val);
	part->sgid = BPF_CORE_READ(cred, sgid.val);
	part->fsuid = BPF_CORE_READ(cred, fsuid.val);
	part->fsgid = BPF_CORE_READ(cred, fsgid.val);
	bpf_probe_read_kernel(&part->effective, sizeof(part->effective), &cred->cap_effective);
	bpf_probe_read_kernel(&part->permitted, sizeof(part->permitted), &cred->cap_permitted);
}

static __always_inline int same(const struct ringfence_process_credentials *one,
				const struct ringfence_process_credentials *other)
{
	return one->uid == other->uid && one->gid == other->gid && one->euid == other->euid &&
	       one->egid == other->egid && one->suid == other->suid && one->sgid == other->sgid &&
	       one->fsuid == other->fsuid && one->fsgid == other->fsgid &&
	       one->effective == other->effective && one->permitted == other->permitted;
}

static __always_inline void changes(__u64 address, __u32 by)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct ringfence_process_credentials before = {}, after = {};
	struct ringfence_process_credentials *part;
	struct buffer *buffer;

	read_credentials(&before, BPF_CORE_READ(task, cred));
	read_credentials(&after, (void *)address);
	if (same(&before, &after))
		return;
	buffer = begin(RINGFENCE_PROCESS_CREDENTIALS, sizeof(*part));
	if (!buffer)
		return;
	part = body_of(buffer);
	*part = after;
	part->by = by;
	observe(buffer);
}

/* Arguments: new credentials, old ones, which call. */
SEC("lsm/task_fix_setuid")
int change_uid(void *context)
{
	changes(argument(context, 0), RINGFENCE_CREDENTIALS_SETUID);
	return 0;
}

/* As above. */
SEC("lsm/task_fix_setgid")
int change_gid(void *context)
{
	changes(argument(context, 0), RINGFENCE_CREDENTIALS_SETGID);
	return 0;
}

/* Arguments: new credentials, old ones, the sets that were asked for. The new ones are made of
 * these by the capability module, which is asked first. */
SEC("lsm/capset")
int change_capabilities(void *context)
{
	changes(argument(context, 0), RINGFENCE_CREDENTIALS_CAPSET);
	return 0;
}

/* Argument: struct linux_binprm. */
SEC("lsm/bprm_committing_creds")
int change_by_exec(void *context)
{
	struct linux_binprm *bprm = (void *)argument(context, 0);

	changes((__u64)BPF_CORE_READ(bprm, cred), RINGFENCE_CREDENTIALS_EXEC);
	return 0;
}
