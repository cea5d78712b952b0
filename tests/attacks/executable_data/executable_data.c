// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A page of memory from the allocator, in the direct map, is made executable. */
#include "attack.h"

static unsigned long page;

static int attack(void)
{
	int (*executable)(unsigned long address, int pages) = function("set_memory_x", *executable);
	int (*read_only)(unsigned long address, int pages) = function("set_memory_ro", *read_only);

	if (!executable || !read_only)
		return -ENOENT;
	page = __get_free_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	memset((void *)page, 0xc3, PAGE_SIZE);
	/* The kernel warns of memory that becomes executable while it is writable. */
	read_only(page, 1);
	return executable(page, 1);
}

static void undo(void)
{
	int (*data)(unsigned long address, int pages) = function("set_memory_nx", *data);
	int (*writable)(unsigned long address, int pages) = function("set_memory_rw", *writable);

	data(page, 1);
	writable(page, 1);
	free_page(page);
}

ATTACK("a page of data made executable");
