// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The vector of int3 in the IDT leads to code outside the entry code: a stub that goes on there. */
#include "attack.h"

static gate_desc *gate;
static gate_desc original;
static void *stub;

static int attack(void)
{
	gate_desc *table = (gate_desc *)symbol("idt_table");
	int (*executable)(unsigned long address, int pages) = function("set_memory_x", *executable);
	int (*read_only)(unsigned long address, int pages) = function("set_memory_ro", *read_only);
	u8 code[12] = {0x48, 0xb8, [10] = 0xff, 0xe0};
	unsigned long handler;
	gate_desc ours;

	if (!table || !executable || !read_only)
		return -ENOENT;
	/* Vector 9, the coprocessor's of 1985, is never raised. */
	gate = table + 9;
	original = *gate;
	handler = gate_offset(&original);
	/* mov $handler,%rax; jmp *%rax */
	stub = vmalloc(PAGE_SIZE);
	if (!stub)
		return -ENOMEM;
	memcpy(code + 2, &handler, 8);
	memcpy(stub, code, sizeof(code));
	read_only((unsigned long)stub, 1);
	executable((unsigned long)stub, 1);
	ours = original;
	ours.offset_low = (u16)(unsigned long)stub;
	ours.offset_middle = (u16)((unsigned long)stub >> 16);
	ours.offset_high = (u32)((unsigned long)stub >> 32);
	write_protected(gate, &ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	int (*data)(unsigned long address, int pages) = function("set_memory_nx", *data);
	int (*writable)(unsigned long address, int pages) = function("set_memory_rw", *writable);

	write_protected(gate, &original, sizeof(original));
	data((unsigned long)stub, 1);
	writable((unsigned long)stub, 1);
	vfree(stub);
}

ATTACK("a vector of the IDT replaced");
