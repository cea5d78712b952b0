// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* CR4.SMEP and CR4.SMAP of each CPU are off and stay so. */
#include "attack.h"

static void set(void *on)
{
	unsigned long cr4, bits = X86_CR4_SMEP | X86_CR4_SMAP;

	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	cr4 = on ? cr4 | bits : cr4 & ~bits;
	asm volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
}

static int attack(void)
{
	if (!boot_cpu_has(X86_FEATURE_SMEP) || !boot_cpu_has(X86_FEATURE_SMAP))
		return -ENODEV;
	on_each_cpu(set, NULL, 1);
	return 0;
}

static void undo(void)
{
	on_each_cpu(set, (void *)1, 1);
}

ATTACK("CR4.SMEP and CR4.SMAP off on all CPUs");
