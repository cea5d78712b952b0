// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * An instruction in the middle of a function that nobody calls in the lab becomes a jump to the
 * module: the first call within the function after its first 32 bytes is retargeted.
 */
#include "attack.h"

static u8 *place;
static u8 original[5];

static noinline void nothing(void)
{
	barrier();
}

static int attack(void)
{
	unsigned long target = symbol("kernel_restart"), at;

	if (!target)
		return -ENOENT;
	for (at = target + 9; at < target + 256; at++) {
		s32 to;

		memcpy(&to, (void *)(at + 1), 4);
		/* A call within the kernel's text. */
		if (*(u8 *)at == 0xe8 && to > -0x2000000 && to < 0x2000000) {
			u8 ours[5] = {0xe9};

			to = (unsigned long)nothing - (at + 5);
			memcpy(ours + 1, &to, 4);
			place = (u8 *)at;
			memcpy(original, place, sizeof(original));
			write_protected(place, ours, sizeof(ours));
			return 0;
		}
	}
	return -ENXIO;
}

static void undo(void)
{
	write_protected(place, original, sizeof(original));
}

ATTACK("an instruction within a function replaced by a jump to foreign code");
