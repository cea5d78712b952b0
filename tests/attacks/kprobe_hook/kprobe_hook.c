// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A kprobe in the middle of __x64_sys_getpid's code path. */
#include "attack.h"

static int watch(struct kprobe *probe, struct pt_regs *registers)
{
	return 0;
}

static struct kprobe probe = {.symbol_name = "__do_sys_getpid", .pre_handler = watch};

static int attack(void)
{
	int error = register_kprobe(&probe);

	if (!error)
		return 0;
	probe = (struct kprobe){.symbol_name = "__x64_sys_getpid", .pre_handler = watch};
	return register_kprobe(&probe);
}

static void undo(void)
{
	unregister_kprobe(&probe);
}

ATTACK("a kprobe");
