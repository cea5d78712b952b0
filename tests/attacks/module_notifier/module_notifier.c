// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A notifier on modules: how rootkits stop others from being loaded. */
#include "attack.h"

static int watch(struct notifier_block *block, unsigned long action, void *data)
{
	return NOTIFY_OK;
}

static struct notifier_block block = {.notifier_call = watch};

static int attack(void)
{
	return register_module_notifier(&block);
}

static void undo(void)
{
	unregister_module_notifier(&block);
}

ATTACK("a notifier on modules");
