// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The module is not on the list of modules and not in /sys/module. */
#include "attack.h"

static struct list_head *before;

static int attack(void)
{
	before = THIS_MODULE->list.prev;
	list_del(&THIS_MODULE->list);
	kobject_del(&THIS_MODULE->mkobj.kobj);
	return 0;
}

static void undo(void)
{
	list_add(&THIS_MODULE->list, before);
	if (kobject_add(&THIS_MODULE->mkobj.kobj, THIS_MODULE->mkobj.kobj.parent, "%s",
			THIS_MODULE->name))
		pr_err("attack: /sys/module/%s is not back\n", THIS_MODULE->name);
}

ATTACK("a module that is neither on the list nor in sysfs");
