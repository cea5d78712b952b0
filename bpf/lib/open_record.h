/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is said of a file that is opened, to those who are told and those who are asked.
 */
#ifndef RINGFENCE_OPEN_RECORD_H
#define RINGFENCE_OPEN_RECORD_H

#include "watched.h"

/* include/linux/fs.h */
#define FMODE_READ  0x1
#define FMODE_WRITE 0x2
#define FMODE_EXEC  0x20

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file___opened {
	unsigned int f_flags;
	unsigned int f_mode;
};

#pragma clang attribute pop

/* FMODE_ of a struct file. */
static __always_inline __u32 mode_of(__u64 file)
{
	return BPF_CORE_READ((struct file___opened *)file, f_mode);
}

__noinline int put_open(struct buffer *buffer, __u64 file)
{
	struct ringfence_file_open *open;
	__u32 flags;

	if (!buffer)
		return 0;
	open = body_of(buffer);
	flags = BPF_CORE_READ((struct file___opened *)file, f_flags);
	/* What the kernel has for itself there is left out. */
	open->flags = flags & ~FMODE_EXEC;
	/* PROT_READ and PROT_WRITE are the same bits. */
	open->access = mode_of(file) & (FMODE_READ | FMODE_WRITE);
	/* __FMODE_EXEC, by which the kernel opens what it executes (fs/exec.c, do_open_execat). */
	if (flags & FMODE_EXEC)
		open->access |= PROT_EXEC;
	put_file(buffer, IN_BODY(ringfence_file_open, file), file);
	return 0;
}

#endif
