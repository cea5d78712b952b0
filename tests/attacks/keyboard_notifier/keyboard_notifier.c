// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A notifier on the keyboard: a key logger. */
#include "attack.h"

#include <linux/keyboard.h>
#include <linux/notifier.h>

static int watch(struct notifier_block *block, unsigned long action, void *data)
{
	return NOTIFY_OK;
}

static struct notifier_block block = {.notifier_call = watch};

static int attack(void)
{
	return register_keyboard_notifier(&block);
}

static void undo(void)
{
	unregister_keyboard_notifier(&block);
}

ATTACK("a notifier on the keyboard");
