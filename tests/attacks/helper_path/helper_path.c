// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The program that the kernel runs to load modules is another one (modprobe_path). */
#include "attack.h"

#include <linux/kmod.h>

static char original[256];
static char *path;

static int attack(void)
{
	path = (char *)symbol("modprobe_path");
	if (!path)
		return -ENOENT;
	strscpy(original, path, sizeof(original));
	strscpy(path, "/tmp/x", 256);
	return 0;
}

static void undo(void)
{
	strscpy(path, original, 256);
}

ATTACK("the path of the module loader changed in memory");
