// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The inode of /proc leads to a copy of its file operations that the module made. */
#define ATTACK_PREPARES
#include "attack.h"

#include <linux/fs.h>

static struct inode *inode;
static const struct file_operations *original;
static struct file_operations ours;
static struct file *proc;

static int lies(struct file *file, struct dir_context *context)
{
	return original->iterate_shared(file, context);
}

static int prepare(void)
{
	proc = filp_open("/proc", O_RDONLY, 0);
	return IS_ERR(proc) ? PTR_ERR(proc) : 0;
}

static int attack(void)
{
	inode = file_inode(proc);
	original = inode->i_fop;
	ours = *original;
	ours.owner = NULL;
	ours.iterate_shared = lies;
	inode->i_fop = &ours;
	return 0;
}

static void undo(void)
{
	inode->i_fop = original;
	filp_close(proc, NULL);
}

ATTACK("an inode of /proc with other file operations");
