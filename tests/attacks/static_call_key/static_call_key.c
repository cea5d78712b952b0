// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A static call is retargeted by the kernel's own function, to code of the module. */
#include "attack.h"

#include <linux/static_call.h>

static void (*update)(struct static_call_key *key, void *trampoline, void *function);
static struct static_call_key *key;
static void *trampoline, *original;

static int rescheduled(void)
{
	return 0;
}

static int attack(void)
{
	key = (void *)symbol("__SCK__might_resched");
	trampoline = (void *)symbol("__SCT__might_resched");
	update = function("__static_call_update", *update);
	if (!key || !trampoline || !update)
		return -ENOENT;
	original = key->func;
	update(key, trampoline, rescheduled);
	return 0;
}

static void undo(void)
{
	update(key, trampoline, original);
}

ATTACK("a static call retargeted by the kernel's own interface");
