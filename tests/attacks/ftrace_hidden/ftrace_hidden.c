// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* As ftrace_hook, and the hook is taken off the list of ftrace_ops so that nobody lists it. */
#include "attack.h"

#include <linux/ftrace.h>

static void notrace watch(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
			  struct ftrace_regs *registers)
{
	barrier();
}

static struct ftrace_ops hook = {
	.func = watch,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_RECURSION,
};
static struct ftrace_ops **before;

static int attack(void)
{
	static char name[] = "__x64_sys_getpgid";
	struct ftrace_ops **list = (struct ftrace_ops **)symbol("ftrace_ops_list");
	int error;

	if (!list)
		return -ENOENT;
	error = ftrace_set_filter(&hook, name, sizeof(name) - 1, 0)
			?: register_ftrace_function(&hook);
	if (error)
		return error;
	for (before = list; *before && *before != &hook; before = &(*before)->next)
		;
	if (*before)
		*before = hook.next;
	return 0;
}

static void undo(void)
{
	*before = &hook;
	unregister_ftrace_function(&hook);
	ftrace_free_filter(&hook);
}

ATTACK("a hook of ftrace that is not on the list of hooks");
