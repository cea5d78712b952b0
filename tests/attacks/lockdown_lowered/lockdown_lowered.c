// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The level of lockdown is set back in memory; the interface only ever lets it rise. */
#include "attack.h"

static int *level;
static int original;

static int attack(void)
{
	int none = 0;

	level = (int *)symbol("kernel_locked_down");
	if (!level)
		return -ENOENT;
	original = *level;
	/* Where nothing is locked, a level that was never asked for is the same attack. */
	none = original ? 0 : 16;
	write_protected(level, &none, sizeof(none));
	return 0;
}

static void undo(void)
{
	write_protected(level, &original, sizeof(original));
}

ATTACK("the lockdown level changed in memory");
