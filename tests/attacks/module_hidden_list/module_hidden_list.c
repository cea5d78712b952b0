// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The module is not on the list of modules: lsmod does not show it. */
#include "attack.h"

static struct list_head *before;

static int attack(void)
{
	before = THIS_MODULE->list.prev;
	list_del(&THIS_MODULE->list);
	return 0;
}

static void undo(void)
{
	list_add(&THIS_MODULE->list, before);
}

ATTACK("a module that is not on the list of modules");
