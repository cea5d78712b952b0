/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The record of a program that is about to be executed: before the point of no return, for those
 * who decide. Its arguments are not there yet.
 */
#ifndef RINGFENCE_EXEC_H
#define RINGFENCE_EXEC_H

#include "record.h"

/* What is known of it before and after. Its file is in the record already. */
static __always_inline void put_program(struct buffer *buffer, struct ringfence_process_exec *exec,
					struct linux_binprm *bprm)
{
	__u64 name, interpreter;

	exec->argument_count = BPF_CORE_READ(bprm, argc);
	exec->environment_count = BPF_CORE_READ(bprm, envc);
	if (exec->file.flags & (RINGFENCE_FILE_MEMFD | RINGFENCE_FILE_DELETED))
		exec->flags |= RINGFENCE_EXEC_FILELESS;
	name = (__u64)BPF_CORE_READ(bprm, filename);
	interpreter = (__u64)BPF_CORE_READ(bprm, interp);
	put_text(buffer, IN_BODY(ringfence_process_exec, name), name);
	if (interpreter != name) {
		exec->flags |= RINGFENCE_EXEC_INTERPRETED;
		exec->script = exec->name;
	}
}

/* What is about to be executed; `address` is of the struct linux_binprm. */
__noinline int put_asked_exec(struct buffer *buffer, __u64 address)
{
	struct linux_binprm *bprm = (void *)address;
	struct ringfence_process_exec *exec;

	if (!buffer)
		return 0;
	exec = body_of(buffer);
	put_file(buffer, IN_BODY(ringfence_process_exec, file), (__u64)BPF_CORE_READ(bprm, file));
	put_program(buffer, exec, bprm);
	return 0;
}

#endif
