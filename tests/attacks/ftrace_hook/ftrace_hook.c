// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A hook on __x64_sys_kill by ftrace, with the address of return changed: most rootkits since 2015.
 */
#include "attack.h"

#include <linux/ftrace.h>

static void notrace watch(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
			  struct ftrace_regs *registers)
{
	barrier();
}

static struct ftrace_ops hook = {
	.func = watch,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_RECURSION | FTRACE_OPS_FL_IPMODIFY,
};

static int attack(void)
{
	static char name[] = "__x64_sys_kill";
	int error = ftrace_set_filter(&hook, name, sizeof(name) - 1, 0);

	return error ?: register_ftrace_function(&hook);
}

static void undo(void)
{
	unregister_ftrace_function(&hook);
	ftrace_free_filter(&hook);
}

ATTACK("a function hooked by ftrace");
