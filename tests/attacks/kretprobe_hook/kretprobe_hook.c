// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A kretprobe that changes what __x64_sys_getppid returns. */
#include "attack.h"

static int lies(struct kretprobe_instance *instance, struct pt_regs *registers)
{
	registers->ax = 424242;
	return 0;
}

static struct kretprobe probe = {.kp.symbol_name = "__x64_sys_getppid", .handler = lies};

static int attack(void)
{
	return register_kretprobe(&probe);
}

static void undo(void)
{
	unregister_kretprobe(&probe);
}

ATTACK("a kretprobe that changes a result");
