// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A page of the kernel's data is mapped a second time, executable. */
#include "attack.h"

static void *alias;
static struct page *page;

static int attack(void)
{
	page = alloc_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	memset(page_address(page), 0xc3, PAGE_SIZE);
	alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL_EXEC);
	if (!alias) {
		__free_page(page);
		return -ENOMEM;
	}
	return 0;
}

static void undo(void)
{
	vunmap(alias);
	__free_page(page);
}

ATTACK("data mapped executable and writable");
