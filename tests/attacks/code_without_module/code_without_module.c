// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Code in executable memory that belongs to no module: what stays when a dropper unloads itself. */
#include "attack.h"

static void *code;

static int attack(void)
{
	int (*executable)(unsigned long address, int pages) = function("set_memory_x", *executable);
	int (*read_only)(unsigned long address, int pages) = function("set_memory_ro", *read_only);

	if (!executable || !read_only)
		return -ENOENT;
	code = vmalloc(PAGE_SIZE);
	if (!code)
		return -ENOMEM;
	memset(code, 0xcc, PAGE_SIZE);
	memset(code, 0xc3, 16);
	read_only((unsigned long)code, 1);
	return executable((unsigned long)code, 1);
}

static void undo(void)
{
	int (*data)(unsigned long address, int pages) = function("set_memory_nx", *data);
	int (*writable)(unsigned long address, int pages) = function("set_memory_rw", *writable);

	data((unsigned long)code, 1);
	writable((unsigned long)code, 1);
	vfree(code);
}

ATTACK("code that belongs to no module");
