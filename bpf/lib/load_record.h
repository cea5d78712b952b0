/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a record says of a module, another kernel or firmware before it is read.
 *
 * The name of a module stands in it, and nobody has read it yet. What there is is the name of its
 * file, which by the kernel's build is that of the module: up to the first point, with '_' for '-'
 * (scripts/Makefile.lib, name-fix-token). Files can be named otherwise.
 */
#ifndef RINGFENCE_LOAD_RECORD_H
#define RINGFENCE_LOAD_RECORD_H

#include "record.h"

/* MODULE_NAME_LEN is 64 - sizeof(unsigned long) (include/linux/moduleparam.h); ends with a zero. */
#define MODULE_NAME_MAX 55

/* struct ringfence_module_load and ringfence_kernel_load begin alike. */
_Static_assert(sizeof(struct ringfence_module_load) == sizeof(struct ringfence_kernel_load),
	       "alike");

/* The name of the module in a file. */
__noinline int put_module_name(struct buffer *buffer, __u64 file)
{
	struct ringfence_module_load *load;
	__u32 used, length;

	if (!buffer || !file)
		return 0;
	used = buffer->used & RECORD_MASK;
	if (put_text(buffer, IN_BODY(ringfence_module_load, name),
		     (__u64)BPF_CORE_READ((struct file *)file, f_path.dentry, d_name.name)) <= 0)
		return 0;
	load = body_of(buffer);
	for (length = 0; length < MODULE_NAME_MAX && length < load->name.length; length++) {
		__u8 *letter = &buffer->record[(used + length) & RECORD_MASK];

		if (*letter == '.')
			break;
		if (*letter == '-')
			*letter = '_';
	}
	load->name.length = length;
	buffer->used = used + length;
	return 0;
}

/* `file`: address of a struct file, or 0 if it comes from memory. */
__noinline int put_load(struct buffer *buffer, __u64 file)
{
	struct ringfence_kernel_load *load;

	if (!buffer)
		return 0;
	load = body_of(buffer);
	load->from = file ? RINGFENCE_MODULE_FROM_FILE : RINGFENCE_MODULE_FROM_MEMORY;
	put_file(buffer, IN_BODY(ringfence_kernel_load, file), file);
	if (buffer->type == RINGFENCE_MODULE_LOAD)
		put_module_name(buffer, file);
	return 0;
}

#endif
