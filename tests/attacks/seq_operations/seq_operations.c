// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What prints /proc/net/tcp is a function of the module, as by rootkits that hide connections. */
#include "attack.h"

#include <linux/seq_file.h>

static int (**place)(struct seq_file *seq, void *value);
static int (*original)(struct seq_file *seq, void *value);

static int lies(struct seq_file *seq, void *value)
{
	return original(seq, value);
}

static int attack(void)
{
	struct seq_operations *operations = (void *)symbol("tcp4_seq_ops");
	int (*ours)(struct seq_file * seq, void *value) = lies;

	if (!operations)
		return -ENOENT;
	place = (void *)&operations->show;
	original = *place;
	write_protected(place, &ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(place, &original, sizeof(original));
}

ATTACK("sequence operations of /proc/net/tcp changed");
