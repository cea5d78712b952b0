// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The start of __x64_sys_getpid is overwritten: mov $424242,%eax; ret. */
#include "attack.h"

static void *place;
static u8 original[6];

static int attack(void)
{
	static const u8 ours[6] = {0xb8, 0x32, 0x79, 0x06, 0x00, 0xc3};
	unsigned long target = symbol("__x64_sys_getpid");

	if (!target)
		return -ENOENT;
	place = behind_endbr(target);
	memcpy(original, place, sizeof(original));
	write_protected(place, ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(place, original, sizeof(original));
}

ATTACK("a function overwritten at its start");
