// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A handler for executables of its own format, asked at each exec. */
#include "attack.h"

#include <linux/binfmts.h>

static int refuse(struct linux_binprm *program)
{
	return -ENOEXEC;
}

static struct linux_binfmt format = {.module = THIS_MODULE, .load_binary = refuse};

static int attack(void)
{
	insert_binfmt(&format);
	return 0;
}

static void undo(void)
{
	unregister_binfmt(&format);
}

ATTACK("a handler of executable formats");
