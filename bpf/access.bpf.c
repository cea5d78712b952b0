// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Access: one process reaches into another.
 *
 * What. process_trace and memory_access on the LSM hooks ptrace_access_check and ptrace_traceme.
 *
 * Why this way. ptrace, process_vm_readv and writev, /proc/PID/mem and its neighbours,
 * process_madvise, pidfd_getfd and kcmp all ask ptrace_access_check, once as the other process is
 * opened or attached to.
 *
 * By which way. The hook is told of the kind of access and not of the way: ptrace, process_vm_* and
 * pidfd_getfd ask for the same. What tells them apart is the number of the system call that the
 * task is in; for /proc/PID/mem it is that it is opened (others of /proc ask for as much when they
 * are read). A worker of io_uring is in none; the only thing it can open so is /proc/PID/mem. What
 * a task does for io_uring as it comes back from another call (linked requests) has that call's
 * number.
 *
 * Limits. When /proc/PID/mem is opened or a process is attached to, it is not known whether it will
 * be read or written: the record says both. What is done with it later is not told of. /proc of
 * one's own process asks nobody.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* include/linux/ptrace.h */
#define PTRACE_MODE_ATTACH  0x02
#define PTRACE_MODE_FSCREDS 0x08
/* include/linux/sched.h */
#define PF_IO_WORKER 0x00000010

/* System calls that are told apart. */
enum call {
	CALL_OTHER,
	CALL_OPEN,
	CALL_PTRACE,
	CALL_READV,
	CALL_WRITEV,
	CALL_MADVISE,
};

/* arch/x86/entry/syscalls/syscall_64.tbl; the second of two is of x32 */
static __always_inline enum call call_64(__u64 number)
{
	switch (number) {
	case 2:	  /* open */
	case 85:  /* creat */
	case 257: /* openat */
	case 304: /* open_by_handle_at */
	case 426: /* io_uring_enter */
	case 437: /* openat2 */
		return CALL_OPEN;
	case 101:
	case 521:
		return CALL_PTRACE;
	case 310:
	case 539:
		return CALL_READV;
	case 311:
	case 540:
		return CALL_WRITEV;
	case 440:
		return CALL_MADVISE;
	}
	return CALL_OTHER;
}

/* arch/x86/entry/syscalls/syscall_32.tbl */
static __always_inline enum call call_32(__u64 number)
{
	switch (number) {
	case 5:	  /* open */
	case 8:	  /* creat */
	case 295: /* openat */
	case 342: /* open_by_handle_at */
	case 426: /* io_uring_enter */
	case 437: /* openat2 */
		return CALL_OPEN;
	case 26:
		return CALL_PTRACE;
	case 347:
		return CALL_READV;
	case 348:
		return CALL_WRITEV;
	case 440:
		return CALL_MADVISE;
	}
	return CALL_OTHER;
}

/* The system call that the running task is in. */
static __always_inline enum call current_call(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *registers;
	__u64 number;

	if (task->flags & PF_IO_WORKER)
		return CALL_OPEN;
	registers = (void *)bpf_task_pt_regs(task);
	number = BPF_CORE_READ(registers, orig_ax);
	if (task->thread_info.status & TS_COMPAT)
		return call_32(number);
	return call_64(number & ~X32);
}

/* --- process_trace --------------------------------------------------------------------------- */

static __always_inline int trace(struct task_struct *target, __u32 access)
{
	struct ringfence_process_trace *trace;
	struct buffer *buffer;

	buffer = begin(RINGFENCE_PROCESS_TRACE, sizeof(*trace));
	if (!buffer)
		return 0;
	trace = body_of(buffer);
	put_key(&trace->target, target);
	trace->thread = BPF_CORE_READ(target, pid);
	trace->access = access;
	put_file(buffer, IN_BODY(ringfence_process_trace, executable), executable_of(target));
	return conclude(buffer);
}

/* Arguments: the task that is to be seen, PTRACE_MODE_. */
SEC("lsm/ptrace_access_check")
int trace_other(void *context)
{
	__u32 mode = argument(context, 1);

	return trace((void *)argument(context, 0),
		     mode & PTRACE_MODE_ATTACH ? RINGFENCE_TRACE_ATTACH : RINGFENCE_TRACE_READ);
}

/* Argument: the task that is to see the one that runs, which is the target. */
SEC("lsm/ptrace_traceme")
int trace_me(void *context)
{
	return trace((void *)argument(context, 0), RINGFENCE_TRACE_ME);
}

/* --- memory_access --------------------------------------------------------------------------- */

SEC("lsm/ptrace_access_check")
int memory_access(void *context)
{
	struct task_struct *target = (void *)argument(context, 0);
	__u32 mode = argument(context, 1), by = 0,
	      access = RINGFENCE_ACCESS_READ | RINGFENCE_ACCESS_WRITE;
	struct ringfence_memory_access *memory;
	enum call call = current_call();
	struct buffer *buffer;

	if (!(mode & PTRACE_MODE_ATTACH)) {
		if (call != CALL_MADVISE)
			return 0;
		by = RINGFENCE_ACCESS_BY_PROCESS_MADVISE;
		access = RINGFENCE_ACCESS_WRITE;
	} else if (mode & PTRACE_MODE_FSCREDS) {
		if (call == CALL_OPEN)
			by = RINGFENCE_ACCESS_BY_PROC_MEM;
	} else if (call == CALL_PTRACE) {
		by = RINGFENCE_ACCESS_BY_PTRACE;
	} else if (call == CALL_READV || call == CALL_WRITEV) {
		by = RINGFENCE_ACCESS_BY_PROCESS_VM;
		access = call == CALL_READV ? RINGFENCE_ACCESS_READ : RINGFENCE_ACCESS_WRITE;
	}
	if (!by)
		return 0;
	buffer = begin(RINGFENCE_MEMORY_ACCESS, sizeof(*memory));
	if (!buffer)
		return 0;
	memory = body_of(buffer);
	put_key(&memory->target, target);
	memory->access = access;
	memory->by = by;
	put_file(buffer, IN_BODY(ringfence_memory_access, executable), executable_of(target));
	return conclude(buffer);
}
