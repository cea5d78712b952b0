// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A jump label is turned on in the text alone; its key says that it is off. */
#include "attack.h"

#include <linux/jump_label.h>

static u8 *place;
static u8 original[2];

static int attack(void)
{
	struct jump_entry *entry = (void *)symbol("__start___jump_table");
	struct jump_entry *end = (void *)symbol("__stop___jump_table");

	for (; entry && entry < end; entry++) {
		s64 distance = (s64)jump_entry_target(entry) - (s64)jump_entry_code(entry) - 2;
		u8 *code = (u8 *)jump_entry_code(entry);
		u8 ours[2] = {0xeb, (u8)distance};
		char name[KSYM_SYMBOL_LEN];

		if (jump_entry_is_init(entry) || code[0] != 0x66 || code[1] != 0x90)
			continue;
		if (distance < -128 || distance > 127)
			continue;
		/* One whose other branch does no harm in the lab. */
		sprint_symbol_no_offset(name, (unsigned long)code);
		if (!strstr(name, "kernel_power_off") && !strstr(name, "sysrq") &&
		    !strstr(name, "hibernat") && !strstr(name, "swap"))
			continue;
		place = code;
		memcpy(original, place, 2);
		write_protected(place, ours, 2);
		return 0;
	}
	return -ENXIO;
}

static void undo(void)
{
	write_protected(place, original, 2);
}

ATTACK("a jump label turned without its key");
