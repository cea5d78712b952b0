// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A function of the module on the tracepoint of all system calls' entry. */
#include "attack.h"

#include <linux/tracepoint.h>

static struct tracepoint *found;

static void watch(void *data, struct pt_regs *registers, long id)
{
	barrier();
}

static void pick(struct tracepoint *tracepoint, void *unused)
{
	if (!strcmp(tracepoint->name, "sys_enter"))
		found = tracepoint;
}

static int attack(void)
{
	for_each_kernel_tracepoint(pick, NULL);
	return found ? tracepoint_probe_register(found, watch, NULL) : -ENOENT;
}

static void undo(void)
{
	tracepoint_probe_unregister(found, watch, NULL);
	tracepoint_synchronize_unregister();
}

ATTACK("a function on the tracepoint of system calls");
