// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Calls: what system calls have done, where LSM programs are refused.
 *
 * What. process_trace, memory_access, image_map, memory_map, memory_protect, memory_fileless,
 * bpf_load and kexec_load on the tracepoint raw_syscalls:sys_exit, and memory_fileless on
 * sched_process_exec too. Only calls that succeeded, and what came of them is looked at in the
 * kernel: the mapping, the program behind a descriptor, the task that is traced now. Of the
 * caller's memory nothing is read.
 *
 * Why this way. Tracing programs are taken by hosts that refuse LSM programs, and then this is what
 * there is. Where the call begins (sys_enter) it is not known what will come of it.
 *
 * What it costs. While one of these is attached every system call of the host passes it: some tens
 * of nanoseconds for each that is attached, besides the kernel's own slower way out
 * (SYSCALL_WORK_SYSCALL_TRACEPOINT). So they are attached only while somebody subscribes.
 *
 * Limits.
 *   - Told of when it is done: nothing can be denied.
 *   - 64-bit calls only (arch/x86/entry/syscalls/syscall_64.tbl), x32 among them; not what a
 *     program does by int 0x80.
 *   - What comes to the same by another way: what exec maps (the program and its loader), io_uring,
 *     reads of /proc and /proc/PID/mem, process_madvise, kcmp, writable mappings that become images
 *     by being written to.
 *   - What memory was before its protection changed: all that is executable now is told of.
 *   - Between the end of the call and the look another thread can have put something else in its
 *     place: unmapped it, or closed the descriptor.
 *   - Whom process_vm_readv and writev are about is found by kernels from 6.14 on, and from 6.2 on
 *     for callers in the initial pid namespace; else the record is incomplete.
 *   - Since 7.0 the kernel can miss to run a program (lib/again.h). It is not known of which calls.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"
#include "lib/program_record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* arch/x86/entry/syscalls/syscall_64.tbl */
enum call {
	CALL_MMAP = 9,
	CALL_MPROTECT = 10,
	CALL_SHMAT = 30,
	CALL_PTRACE = 101,
	CALL_KEXEC = 246,
	CALL_PROCESS_VM_READV = 310,
	CALL_PROCESS_VM_WRITEV = 311,
	CALL_KEXEC_FILE = 320,
	CALL_BPF = 321,
	CALL_PKEY_MPROTECT = 329,
	CALL_PIDFD_GETFD = 438,
	CALL_NONE = -1,
};

/* include/linux/err.h */
#define MAX_ERRNO 4095

/* include/uapi/linux/ptrace.h, kexec.h, shm.h */
#define PTRACE_TRACEME		0
#define PTRACE_ATTACH		16
#define PTRACE_SEIZE		0x4206
#define KEXEC_FILE_UNLOAD	1
#define KEXEC_FILE_NO_INITRAMFS 4
#define SHM_EXEC		0100000

/* arch/x86/include/asm/page_types.h */
#define PAGE_SHIFT 12
#define PAGE_SIZE  (1ULL << PAGE_SHIFT)

/* include/linux/pid_types.h */
#define PIDTYPE_PID  0
#define PIDTYPE_TGID 1

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};

struct hlist_node {
	struct hlist_node *next;
	struct hlist_node **pprev;
};

struct hlist_head {
	struct hlist_node *first;
};

/* include/linux/fdtable.h */
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct___calling {
	struct files_struct *files;
	struct list_head ptraced;
	struct list_head ptrace_entry;
	struct hlist_node pid_links[4];
};

struct pid___of_descriptor {
	struct hlist_head tasks[4];
};

struct file___of_descriptor {
	void *private_data;
	struct inode *f_inode;
};

struct inode___of_descriptor {
	void *i_private;
};

#pragma clang attribute pop

/* Since 6.14 and 6.2. */
extern struct task_struct *bpf_task_from_vpid(__s32 vpid) __ksym __weak;
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

/* Arguments of the tracepoint: the registers with which the call was made, what it gives. */
static __always_inline struct pt_regs *registers_of(__u64 *context)
{
	return (void *)context[0];
}

/* The call that comes to its end, if it has succeeded. */
static __always_inline enum call succeeded(__u64 *context)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *registers = registers_of(context);

	if (context[1] >= -(__u64)MAX_ERRNO || task->thread_info.status & TS_COMPAT)
		return CALL_NONE;
	return registers->orig_ax & ~X32;
}

/* --- what a call was about ------------------------------------------------------------------- */

/* The struct file that a descriptor of the running task stands for, or 0. */
static __always_inline __u64 file_behind(__u32 descriptor)
{
	struct task_struct___calling *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	__u64 file = 0;

	if (descriptor >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), BPF_CORE_READ(table, fd) + descriptor);
	return file;
}

/* The task that the running one has attached to last, a struct task_struct, or 0: __ptrace_link
 * puts it first (kernel/ptrace.c). */
static __always_inline __u64 attached_to(void)
{
	struct task_struct___calling *task = (void *)bpf_get_current_task();
	__u64 list = (__u64)task + bpf_core_field_offset(struct task_struct___calling, ptraced);
	__u64 first = (__u64)BPF_CORE_READ(task, ptraced.next);

	if (!first || first == list)
		return 0;
	return first - bpf_core_field_offset(struct task_struct___calling, ptrace_entry);
}

/* The task that the running one knows by a number, or 0. */
static __always_inline __u64 task_numbered(__s32 number)
{
	struct task_struct *task = NULL;
	__u64 address;

	if (bpf_ksym_exists(bpf_task_from_vpid))
		task = bpf_task_from_vpid(number);
	else if (bpf_ksym_exists(bpf_task_from_pid) &&
		 !BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), thread_pid, level))
		task = bpf_task_from_pid(number);
	if (!task)
		return 0;
	address = (__u64)task;
	bpf_task_release(task);
	return address;
}

/* The task that a pidfd stands for, or 0. Its struct pid is in the inode since 6.9 (cb12fd8e0dab
 * "pidfd: add pidfs"), and in the file before. */
static __always_inline __u64 task_behind(__u32 descriptor)
{
	struct file___of_descriptor *file = (void *)file_behind(descriptor);
	struct inode___of_descriptor *inode;
	struct pid___of_descriptor *pid;
	struct hlist_node *first;
	__u32 type = PIDTYPE_TGID;

	pid = BPF_CORE_READ(file, private_data);
	if (!pid) {
		inode = (void *)BPF_CORE_READ(file, f_inode);
		pid = BPF_CORE_READ(inode, i_private);
	}
	first = BPF_CORE_READ(pid, tasks[PIDTYPE_TGID].first);
	if (!first) {
		type = PIDTYPE_PID;
		first = BPF_CORE_READ(pid, tasks[PIDTYPE_PID].first);
	}
	if (!first)
		return 0;
	return (__u64)first - bpf_core_field_offset(struct task_struct___calling, pid_links) -
	       type * bpf_core_type_size(struct hlist_node);
}

/* What a call has mapped or changed: the kernel may have made one mapping of it and what was beside
 * it. */
struct mapping {
	__u64 file;
	__u64 address;
	__u64 length;
	/* Of the file, in bytes. */
	__u64 offset;
	__u64 protection;
	/* MAP_ */
	__u64 flags;
};

static long look(struct task_struct *task, struct vm_area_struct *vma, struct mapping *mapping)
{
	/* By a copy, as a number: functions that the verifier looks at by themselves take no
	 * pointer. */
	mapping->file = (__u64)BPF_CORE_READ(vma, vm_file);
	if (!mapping->length)
		mapping->length = vma->vm_end - mapping->address;
	if (mapping->file)
		mapping->offset = (vma->vm_pgoff << PAGE_SHIFT) + mapping->address - vma->vm_start;
	mapping->protection = vma->vm_flags & PROT_ALL;
	return 0;
}

/* Finds what a call has mapped executable or made so. */
static __always_inline int mapped_by(__u64 *context, enum call call, struct mapping *mapping)
{
	struct pt_regs *registers = registers_of(context);
	__u64 length = registers->si;

	switch (call) {
	case CALL_MMAP:
		if (!(registers->dx & PROT_EXEC))
			return 0;
		mapping->address = context[1];
		mapping->flags = registers->r10;
		break;
	case CALL_SHMAT:
		if (!(registers->dx & SHM_EXEC))
			return 0;
		mapping->address = context[1];
		length = 0;
		break;
	case CALL_MPROTECT:
	case CALL_PKEY_MPROTECT:
		if (!(registers->dx & PROT_EXEC))
			return 0;
		mapping->address = registers->di;
		break;
	default:
		return 0;
	}
	mapping->length = (length + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	bpf_find_vma(bpf_get_current_task_btf(), mapping->address, look, mapping, 0);
	return mapping->protection & PROT_EXEC;
}

static __always_inline int is_change(enum call call)
{
	return call == CALL_MPROTECT || call == CALL_PKEY_MPROTECT;
}

/* --- process_trace, memory_access ------------------------------------------------------------ */

/* Who reads and writes himself reaches into nobody. */
static __always_inline int is_other(__u64 target)
{
	__u32 own = bpf_get_current_pid_tgid() >> 32, other;

	if (!target)
		return 1;
	other = BPF_CORE_READ((struct task_struct *)target, tgid);
	return other != own;
}

/* Puts the key of a task that was found, and what it runs; a record without is incomplete. */
static __always_inline void put_target(struct buffer *buffer, struct ringfence_process_key *key,
				       __u32 executable, __u64 target)
{
	if (!target) {
		buffer->flags |= RINGFENCE_FLAG_INCOMPLETE;
		return;
	}
	put_key(key, (struct task_struct *)target);
	put_file(buffer, executable, executable_of((struct task_struct *)target));
}

SEC("tp_btf/sys_exit")
int trace_called(__u64 *context)
{
	struct pt_regs *registers = registers_of(context);
	struct ringfence_process_trace *trace;
	__u32 access = RINGFENCE_TRACE_ATTACH;
	struct buffer *buffer;
	__u64 target = 0;

	switch (succeeded(context)) {
	case CALL_PTRACE:
		if (registers->di == PTRACE_TRACEME) {
			access = RINGFENCE_TRACE_ME;
			target = (__u64)BPF_CORE_READ((struct task_struct *)bpf_get_current_task(),
						      real_parent);
		} else if (registers->di == PTRACE_ATTACH || registers->di == PTRACE_SEIZE) {
			target = attached_to();
		} else {
			return 0;
		}
		break;
	case CALL_PROCESS_VM_READV:
	case CALL_PROCESS_VM_WRITEV:
		target = task_numbered(registers->di);
		if (!is_other(target))
			return 0;
		break;
	case CALL_PIDFD_GETFD:
		target = task_behind(registers->di);
		if (!is_other(target))
			return 0;
		break;
	default:
		return 0;
	}
	buffer = begin(RINGFENCE_PROCESS_TRACE, sizeof(*trace));
	if (!buffer)
		return 0;
	trace = body_of(buffer);
	trace->access = access;
	if (target)
		trace->thread = BPF_CORE_READ((struct task_struct *)target, pid);
	put_target(buffer, &trace->target, IN_BODY(ringfence_process_trace, executable), target);
	observe(buffer);
	return 0;
}

SEC("tp_btf/sys_exit")
int memory_access_called(__u64 *context)
{
	struct pt_regs *registers = registers_of(context);
	__u32 by = RINGFENCE_ACCESS_BY_PROCESS_VM, access;
	struct ringfence_memory_access *memory;
	enum call call = succeeded(context);
	struct buffer *buffer;
	__u64 target;

	switch (call) {
	case CALL_PTRACE:
		if (registers->di != PTRACE_ATTACH && registers->di != PTRACE_SEIZE)
			return 0;
		target = attached_to();
		by = RINGFENCE_ACCESS_BY_PTRACE;
		access = RINGFENCE_ACCESS_READ | RINGFENCE_ACCESS_WRITE;
		break;
	case CALL_PROCESS_VM_READV:
	case CALL_PROCESS_VM_WRITEV:
		target = task_numbered(registers->di);
		if (!is_other(target))
			return 0;
		access = call == CALL_PROCESS_VM_READV ? RINGFENCE_ACCESS_READ
						       : RINGFENCE_ACCESS_WRITE;
		break;
	default:
		return 0;
	}
	buffer = begin(RINGFENCE_MEMORY_ACCESS, sizeof(*memory));
	if (!buffer)
		return 0;
	memory = body_of(buffer);
	memory->access = access;
	memory->by = by;
	put_target(buffer, &memory->target, IN_BODY(ringfence_memory_access, executable), target);
	observe(buffer);
	return 0;
}

/* --- image_map, memory_map, memory_protect, memory_fileless ---------------------------------- */

SEC("tp_btf/sys_exit")
int image_called(__u64 *context)
{
	struct ringfence_image_map *map;
	struct mapping mapping = {};
	struct buffer *buffer;

	if (!mapped_by(context, succeeded(context), &mapping) || !mapping.file)
		return 0;
	buffer = begin(RINGFENCE_IMAGE_MAP, sizeof(*map));
	if (!buffer)
		return 0;
	map = body_of(buffer);
	map->protection = mapping.protection;
	map->address = mapping.address;
	map->length = mapping.length;
	map->offset = mapping.offset;
	map->flags = mapping.flags;
	put_file(buffer, IN_BODY(ringfence_image_map, file), mapping.file);
	observe(buffer);
	return 0;
}

SEC("tp_btf/sys_exit")
int memory_map_called(__u64 *context)
{
	enum call call = succeeded(context);
	struct ringfence_memory_map *map;
	struct mapping mapping = {};
	struct buffer *buffer;

	if (is_change(call) || !mapped_by(context, call, &mapping))
		return 0;
	if (mapping.file && !(mapping.protection & PROT_WRITE))
		return 0;
	buffer = begin(RINGFENCE_MEMORY_MAP, sizeof(*map));
	if (!buffer)
		return 0;
	map = body_of(buffer);
	map->protection = mapping.protection;
	map->address = mapping.address;
	map->length = mapping.length;
	map->flags = mapping.flags;
	put_file(buffer, IN_BODY(ringfence_memory_map, file), mapping.file);
	observe(buffer);
	return 0;
}

SEC("tp_btf/sys_exit")
int memory_protect_called(__u64 *context)
{
	struct ringfence_memory_protect *change;
	enum call call = succeeded(context);
	struct mapping mapping = {};
	struct buffer *buffer;

	if (!is_change(call) || !mapped_by(context, call, &mapping))
		return 0;
	buffer = begin(RINGFENCE_MEMORY_PROTECT, sizeof(*change));
	if (!buffer)
		return 0;
	/* What it was before is not known. */
	buffer->flags |= RINGFENCE_FLAG_INCOMPLETE;
	change = body_of(buffer);
	change->after = mapping.protection;
	change->address = mapping.address;
	change->length = mapping.length;
	put_file(buffer, IN_BODY(ringfence_memory_protect, file), mapping.file);
	observe(buffer);
	return 0;
}

/* A file was executed or mapped executable; told of if it has no name. */
static __always_inline void tell_fileless(__u64 file, __u32 how)
{
	struct ringfence_memory_fileless *fileless;
	struct buffer *buffer;

	if (!file || BPF_CORE_READ((struct file *)file, f_inode, i_nlink))
		return;
	buffer = begin(RINGFENCE_MEMORY_FILELESS, sizeof(*fileless));
	if (!buffer)
		return;
	fileless = body_of(buffer);
	fileless->how = how;
	put_file(buffer, IN_BODY(ringfence_memory_fileless, file), file);
	observe(buffer);
}

SEC("tp_btf/sys_exit")
int fileless_called(__u64 *context)
{
	struct mapping mapping = {};

	if (mapped_by(context, succeeded(context), &mapping))
		tell_fileless(mapping.file, RINGFENCE_FILELESS_MAP);
	return 0;
}

/* Arguments: task, its number before, struct linux_binprm. */
SEC("tp_btf/sched_process_exec")
int fileless_executed(__u64 *context)
{
	struct linux_binprm *bprm = (void *)context[2];

	tell_fileless((__u64)BPF_CORE_READ(bprm, file), RINGFENCE_FILELESS_EXEC);
	return 0;
}

/* --- bpf_load, kexec_load -------------------------------------------------------------------- */

SEC("tp_btf/sys_exit")
int bpf_load_called(__u64 *context)
{
	struct buffer *buffer;
	__u64 file;

	if (succeeded(context) != CALL_BPF || registers_of(context)->di != BPF_PROG_LOAD)
		return 0;
	buffer = begin(RINGFENCE_BPF_LOAD, sizeof(struct ringfence_bpf_load));
	if (!buffer)
		return 0;
	file = file_behind(context[1]);
	put_program(buffer,
		    (__u64)BPF_CORE_READ((struct file___of_descriptor *)file, private_data));
	observe(buffer);
	return 0;
}

static __always_inline void tell_kernel(__u64 file)
{
	struct ringfence_kernel_load *load;
	struct buffer *buffer;

	buffer = begin(RINGFENCE_KEXEC_LOAD, sizeof(*load));
	if (!buffer)
		return;
	load = body_of(buffer);
	load->from = file ? RINGFENCE_MODULE_FROM_FILE : RINGFENCE_MODULE_FROM_MEMORY;
	put_file(buffer, IN_BODY(ringfence_kernel_load, file), file);
	observe(buffer);
}

SEC("tp_btf/sys_exit")
int kexec_load_called(__u64 *context)
{
	struct pt_regs *registers = registers_of(context);

	switch (succeeded(context)) {
	case CALL_KEXEC:
		tell_kernel(0);
		break;
	case CALL_KEXEC_FILE:
		if (registers->r8 & KEXEC_FILE_UNLOAD)
			break;
		tell_kernel(file_behind(registers->di));
		if (!(registers->r8 & KEXEC_FILE_NO_INITRAMFS))
			tell_kernel(file_behind(registers->si));
		break;
	default:
		break;
	}
	return 0;
}
