// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * copy_from_kernel_nofault(), through which the usual readers of kernel memory go, is hooked, and
 * the start of __x64_sys_getpid is overwritten: what such a hook would hide.
 */
#include "attack.h"

#include <linux/ftrace.h>

static void *place;
static u8 original[6];

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
	static const u8 ours[6] = {0xb8, 0x32, 0x79, 0x06, 0x00, 0xc3};
	static char name[] = "copy_from_kernel_nofault";
	unsigned long target = symbol("__x64_sys_getpid");
	int error;

	if (!target)
		return -ENOENT;
	error = ftrace_set_filter(&hook, name, sizeof(name) - 1, 0)
			?: register_ftrace_function(&hook);
	if (error)
		return error;
	place = behind_endbr(target);
	memcpy(original, place, sizeof(original));
	write_protected(place, ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(place, original, sizeof(original));
	unregister_ftrace_function(&hook);
	ftrace_free_filter(&hook);
}

ATTACK("a hook on the reading of kernel memory");
