// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The bpf system call and the functions of maps and rings are hooked by ftrace. */
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
	static char *names[] = {"__x64_sys_bpf", "array_map_lookup_elem", "bpf_ringbuf_output",
				"array_map_update_elem"};
	size_t index, hooked = 0;

	/* Not every kernel lets all of them be traced: 7.3 leaves bpf_ringbuf_output out. */
	for (index = 0; index < ARRAY_SIZE(names); index++)
		hooked += !ftrace_set_filter(&hook, names[index], strlen(names[index]), 0);
	/* Without a filter it would be all functions. */
	return hooked ? register_ftrace_function(&hook) : -ENOENT;
}

static void undo(void)
{
	unregister_ftrace_function(&hook);
	ftrace_free_filter(&hook);
}

ATTACK("hooks on the bpf system call and on functions of maps");
