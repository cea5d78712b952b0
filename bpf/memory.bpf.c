// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory: what is made executable without being an image.
 *
 * What. memory_map on the LSM hook mmap_file: memory without a file that is executable from the
 * start, or any that is writable and executable. memory_protect on file_mprotect: memory that
 * becomes executable, or both. memory_fileless on these and on bprm_check_security: a file that has
 * no name is mapped executable or executed.
 *
 * Why this way. As in image.bpf.c, which has programs of its own on the same hooks: who listens
 * only to images does not pay for this.
 *
 * Limits. As in image.bpf.c: mmap_file is not told where, and a change of protection is told of
 * with the whole mapping. Memory that was executable from the start and is written to by another
 * process is memory_access.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int both(__u64 protection)
{
	return (protection & (PROT_WRITE | PROT_EXEC)) == (PROT_WRITE | PROT_EXEC);
}

/* --- mapped and changed ---------------------------------------------------------------------- */

/* Arguments: file or NULL, protection as asked for and as it will be, flags of mmap. */
SEC("lsm/mmap_file")
int memory_map(void *context)
{
	__u64 file = argument(context, 0), protection = argument(context, 2);
	struct ringfence_memory_map *map;
	struct buffer *buffer;

	if (!(protection & PROT_EXEC) || (file && !both(protection)))
		return 0;
	buffer = begin(RINGFENCE_MEMORY_MAP, sizeof(*map));
	if (!buffer)
		return 0;
	map = body_of(buffer);
	map->protection = protection;
	map->flags = argument(context, 3);
	put_file(buffer, IN_BODY(ringfence_memory_map, file), file);
	return conclude(buffer);
}

/* Arguments: mapping, protection as asked for and as it will be. */
SEC("lsm/file_mprotect")
int memory_protect(void *context)
{
	struct vm_area_struct *vma = (void *)argument(context, 0);
	__u64 after = argument(context, 2), before = BPF_CORE_READ(vma, vm_flags) & PROT_ALL;
	struct ringfence_memory_protect *change;
	struct buffer *buffer;

	if (!(after & PROT_EXEC) || (before & PROT_EXEC && (!both(after) || both(before))))
		return 0;
	buffer = begin(RINGFENCE_MEMORY_PROTECT, sizeof(*change));
	if (!buffer)
		return 0;
	change = body_of(buffer);
	change->before = before;
	change->after = after;
	change->address = BPF_CORE_READ(vma, vm_start);
	change->length = BPF_CORE_READ(vma, vm_end) - change->address;
	put_file(buffer, IN_BODY(ringfence_memory_protect, file),
		 (__u64)BPF_CORE_READ(vma, vm_file));
	return conclude(buffer);
}

/* --- without a name -------------------------------------------------------------------------- */

/* A file is executed or mapped executable; told of if it has no name. */
static __always_inline int fileless(struct file *file, __u32 how)
{
	struct ringfence_memory_fileless *fileless;
	struct buffer *buffer;

	if (!file || BPF_CORE_READ(file, f_inode, i_nlink))
		return 0;
	buffer = begin(RINGFENCE_MEMORY_FILELESS, sizeof(*fileless));
	if (!buffer)
		return 0;
	fileless = body_of(buffer);
	fileless->how = how;
	put_file(buffer, IN_BODY(ringfence_memory_fileless, file), (__u64)file);
	return conclude(buffer);
}

SEC("lsm/mmap_file")
int fileless_map(void *context)
{
	if (!(argument(context, 2) & PROT_EXEC))
		return 0;
	return fileless((void *)argument(context, 0), RINGFENCE_FILELESS_MAP);
}

SEC("lsm/file_mprotect")
int fileless_protect(void *context)
{
	struct vm_area_struct *vma = (void *)argument(context, 0);

	if (!(argument(context, 2) & PROT_EXEC) || BPF_CORE_READ(vma, vm_flags) & PROT_EXEC)
		return 0;
	return fileless(BPF_CORE_READ(vma, vm_file), RINGFENCE_FILELESS_MAP);
}

/* Argument: struct linux_binprm. Passed for a script and again for its interpreter. */
SEC("lsm/bprm_check_security")
int fileless_exec(void *context)
{
	struct linux_binprm *bprm = (void *)argument(context, 0);

	return fileless(BPF_CORE_READ(bprm, file), RINGFENCE_FILELESS_EXEC);
}
