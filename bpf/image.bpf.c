// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Images: what becomes code, of processes and of the kernel.
 *
 * What. image_map on the LSM hooks mmap_file and file_mprotect; module_load, kexec_load and
 * firmware_load on kernel_read_file and kernel_load_data; bpf_load on bpf. Where LSM programs are
 * refused, module_load by the tracepoint of modules; module_unload always so.
 *
 * Why this way. These hooks are passed before it is done, by whatever way one came: a file is
 * mapped by mmap, by exec for the program and its loader, by remap_file_pages and by shmat, and all
 * of them ask mmap_file. The hook bpf and not bpf_prog_load (6.9 and later), because all kernels
 * have it, it is passed for the same loads, and its argument is the kernel's copy of what the
 * caller asks for.
 *
 * Limits. mmap_file is not told where: address, length and offset of image_map are zero for it, and
 * those of a change of protection are of the whole mapping. A module is called by its file before
 * it is read (lib/load_record.h). The tracepoint knows its name and not the file.
 *
 * Ways rejected. bprm hooks for the images of programs: mmap_file has them too.
 * kernel_post_read_file: called when it is read, with the same arguments.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"
#include "lib/load_record.h"
#include "lib/again.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* --- mapped ---------------------------------------------------------------------------------- */

/* Arguments: file or NULL, protection as asked for and as it will be, flags of mmap. */
SEC("lsm/mmap_file")
int image_map(void *context)
{
	__u64 file = argument(context, 0), protection = argument(context, 2);
	struct ringfence_image_map *map;
	struct buffer *buffer;

	if (!file || !(protection & PROT_EXEC))
		return 0;
	buffer = begin(RINGFENCE_IMAGE_MAP, sizeof(*map));
	if (!buffer)
		return 0;
	map = body_of(buffer);
	map->protection = protection;
	map->flags = argument(context, 3);
	put_file(buffer, IN_BODY(ringfence_image_map, file), file);
	return conclude(buffer);
}

/* Arguments: mapping, protection as asked for and as it will be. */
SEC("lsm/file_mprotect")
int image_protect(void *context)
{
	struct vm_area_struct *vma = (void *)argument(context, 0);
	__u64 protection = argument(context, 2), file;
	struct ringfence_image_map *map;
	struct buffer *buffer;

	if (!(protection & PROT_EXEC) || BPF_CORE_READ(vma, vm_flags) & PROT_EXEC)
		return 0;
	file = (__u64)BPF_CORE_READ(vma, vm_file);
	if (!file)
		return 0;
	buffer = begin(RINGFENCE_IMAGE_MAP, sizeof(*map));
	if (!buffer)
		return 0;
	map = body_of(buffer);
	map->protection = protection;
	map->address = BPF_CORE_READ(vma, vm_start);
	map->length = BPF_CORE_READ(vma, vm_end) - map->address;
	map->offset = (__u64)BPF_CORE_READ(vma, vm_pgoff) << 12;
	put_file(buffer, IN_BODY(ringfence_image_map, file), file);
	return conclude(buffer);
}

/* --- loaded into the kernel ------------------------------------------------------------------ */

/* A file, or memory of the caller if there is none, is loaded for what `type` says. */
static __always_inline int kernel_loads(__u32 type, __u64 file)
{
	struct buffer *buffer;

	if (!type)
		return 0;
	buffer = begin(type, sizeof(struct ringfence_kernel_load));
	if (!buffer)
		return 0;
	put_load(buffer, file);
	return conclude(buffer);
}

/* Arguments: file, what it is read for, whether as a whole. */
SEC("lsm/kernel_read_file")
int load_file(void *context)
{
	__u32 id = argument(context, 1), type = 0;

	if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_MODULE))
		type = RINGFENCE_MODULE_LOAD;
	else if (bpf_core_enum_value_exists(enum kernel_read_file_id, READING_MODULE_COMPRESSED) &&
		 id == bpf_core_enum_value(enum kernel_read_file_id, READING_MODULE_COMPRESSED))
		type = RINGFENCE_MODULE_LOAD;
	else if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_FIRMWARE))
		type = RINGFENCE_FIRMWARE_LOAD;
	else if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_IMAGE) ||
		 id == bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_INITRAMFS))
		type = RINGFENCE_KEXEC_LOAD;
	return kernel_loads(type, argument(context, 0));
}

/* Arguments: what it is loaded for, whether its contents come to another hook later. */
SEC("lsm/kernel_load_data")
int load_memory(void *context)
{
	__u32 id = argument(context, 0), type = 0;

	if (id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_MODULE))
		type = RINGFENCE_MODULE_LOAD;
	else if (id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_FIRMWARE))
		type = RINGFENCE_FIRMWARE_LOAD;
	else if (id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_IMAGE) ||
		 id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_INITRAMFS))
		type = RINGFENCE_KEXEC_LOAD;
	return kernel_loads(type, 0);
}

/* Argument: module, in place, and its code has not run. */
static __noinline int tell_loaded(void *context)
{
	__u64 module = argument(context, 0);
	struct buffer *buffer;

	buffer = begin(RINGFENCE_MODULE_LOAD, sizeof(struct ringfence_module_load));
	if (!buffer)
		return 0;
	put_text(buffer, IN_BODY(ringfence_module_load, name),
		 module + bpf_core_field_offset(struct module, name));
	observe(buffer);
	return 0;
}

TOLD_ONCE(module_load, module_loaded, tell_loaded, 0, RINGFENCE_MODULE_LOAD)

/* Argument: module, which is about to be given back. */
static __noinline int tell_unloaded(void *context)
{
	__u64 module = argument(context, 0);
	struct buffer *buffer;

	buffer = begin(RINGFENCE_MODULE_UNLOAD, sizeof(struct ringfence_module_unload));
	if (!buffer)
		return 0;
	put_text(buffer, IN_BODY(ringfence_module_unload, name),
		 module + bpf_core_field_offset(struct module, name));
	observe(buffer);
	return 0;
}

TOLD_ONCE(module_free, module_unloaded, tell_unloaded, 0, RINGFENCE_MODULE_UNLOAD)

/* --- BPF programs ---------------------------------------------------------------------------- */

/* What bpf(2) is called with to load a program: union bpf_attr, whose layout never changes. The
 * kernel has filled up with zeroes what the caller left out. */
struct program_load {
	__u32 program_type;
	__u32 instructions;
	__u64 skipped[5];
	__u8 name[16];
	__u32 interface;
	__u32 attach_type;
	__u32 skipped_too[9];
	__u32 attach_btf_id;
};

_Static_assert(__builtin_offsetof(struct program_load, name) == 48, "prog_name");
_Static_assert(__builtin_offsetof(struct program_load, attach_btf_id) == 108, "attach_btf_id");

/* Arguments: command, the kernel's copy of union bpf_attr, its size. */
SEC("lsm/bpf")
int bpf_load(void *context)
{
	struct program_load asked = {};
	struct ringfence_bpf_load *load;
	struct buffer *buffer;

	if (argument(context, 0) != BPF_PROG_LOAD)
		return 0;
	buffer = begin(RINGFENCE_BPF_LOAD, sizeof(*load));
	if (!buffer)
		return 0;
	bpf_probe_read_kernel(&asked, sizeof(asked), (void *)argument(context, 1));
	load = body_of(buffer);
	load->program_type = asked.program_type;
	load->attach_type = asked.attach_type;
	load->attach_btf_id = asked.attach_btf_id;
	load->instructions = asked.instructions;
	__builtin_memcpy(load->name, asked.name, sizeof(load->name));
	/* The caller may have written it without an end. */
	load->name[sizeof(load->name) - 1] = 0;
	return conclude(buffer);
}
