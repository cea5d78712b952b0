// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A page of the kernel's data is mapped a second time, executable and writable. vmap() takes
 * execution away from what it maps, so the entry of the page table is written by hand. */
#include "attack.h"

#include <asm/pgtable.h>

static void *alias;
static struct page *page;

static int attack(void)
{
	pte_t *(*lookup)(unsigned long address, unsigned int *level) =
		function("lookup_address", *lookup);
	unsigned int level;
	pte_t *entry;
	u64 value;

	if (!lookup)
		return -ENOENT;
	page = alloc_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	memset(page_address(page), 0xc3, PAGE_SIZE);
	alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	entry = alias ? lookup((unsigned long)alias, &level) : NULL;
	if (!entry || level != PG_LEVEL_4K) {
		vunmap(alias);
		__free_page(page);
		return -ENOMEM;
	}
	value = pte_val(*entry) & ~_PAGE_NX;
	write_protected(entry, &value, sizeof(value));
	on_each_cpu(flush_translations, NULL, 1);
	return 0;
}

static void undo(void)
{
	vunmap(alias);
	__free_page(page);
}

ATTACK("data mapped executable and writable");
