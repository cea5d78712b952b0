// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The directory listing of /proc leads to a function of the module, as by rootkits that hide tasks.
 */
#define ATTACK_PREPARES
#include "attack.h"

#include <linux/fs.h>

static int (**place)(struct file *file, struct dir_context *context);
static int (*original)(struct file *file, struct dir_context *context);

static int lies(struct file *file, struct dir_context *context)
{
	return original(file, context);
}

static int prepare(void)
{
	struct file *proc = filp_open("/proc", O_RDONLY, 0);

	if (IS_ERR(proc))
		return PTR_ERR(proc);
	place = (void *)&proc->f_op->iterate_shared;
	filp_close(proc, NULL);
	return 0;
}

static int attack(void)
{
	int (*ours)(struct file * file, struct dir_context * context) = lies;

	original = *place;
	write_protected(place, &ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(place, &original, sizeof(original));
}

ATTACK("file operations of /proc changed");
