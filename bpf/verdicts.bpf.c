// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is asked: hooks at which a task can wait for the verdicts of clients. Here of processes and
 * their images; verdicts_kernel.bpf.c and verdicts_file.bpf.c have the others.
 *
 * What. One sleepable LSM program for each event of class ask. Attached while a client is asked
 * about the event and no longer, so that nobody else pays for a hook that can wait.
 *
 * Why apart from the programs that tell. Those must work where LSM programs are refused and on
 * kernels without the gate; and a program that may sleep must not use what the others may (timers
 * of interrupts, prefixes).
 *
 * What is held by who waits. bprm_check_security: its own cred_guard_mutex, so who attaches to it
 * by ptrace or opens its /proc/PID/mem waits too, killably (fs/exec.c, bprm_execve, and
 * kernel/ptrace.c, 6.12). mmap_file: nothing; the memory is locked after it (mm/util.c,
 * vm_mmap_pgoff, 6.12), and remap_file_pages asks between two locks (mm/mmap.c, 6.12,
 * 58a039e679fe).
 *
 * Limits. bprm_check_security is passed for each program of a chain: for a script, and then for its
 * interpreter. Each is a question of its own. The arguments are not there yet.
 *
 * Ways rejected. bprm_creds_for_exec: it is passed for the first file of the chain only.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/ask.h"
#include "lib/exec.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* --- exec ------------------------------------------------------------------------------------ */

static const struct event exec_event = {
	.type = RINGFENCE_PROCESS_EXEC,
	.body = sizeof(struct ringfence_process_exec),
};

/* Argument: struct linux_binprm. */
SEC("lsm.s/bprm_check_security")
int process_exec_asked(void *context)
{
	struct linux_binprm *bprm = (void *)argument(context, 0);
	__u64 askers = askers_of(RINGFENCE_PROCESS_EXEC);
	struct gate_question question = {};
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct buffer *buffer;
	int denied;

	if (!askers)
		return 0;
	/* Of an exec that was allowed and came to nothing. What was said of a script stays for its
	 * interpreter. */
	if (BPF_CORE_READ(bprm, interp) == BPF_CORE_READ(bprm, filename))
		bpf_map_delete_elem(&asked_events, &thread);
	if (!to_ask(&question, &exec_event, askers, (__u64)BPF_CORE_READ(bprm, file)))
		return 0;
	buffer = begin_for(&exec_event, question.askers);
	if (!buffer)
		return not_told(&question);
	put_asked_exec(buffer, (__u64)bprm);
	denied = ask(buffer, &question);
	if (!denied) {
		/* What tells of it has the same number. */
		bpf_map_update_elem(&asked_events, &thread, &question.event_id, 0);
		return 0;
	}
	buffer = begin_denied(&exec_event, question.event_id, denied);
	if (buffer) {
		put_asked_exec(buffer, (__u64)bprm);
		finish(buffer);
	}
	return denied;
}

/* --- image map ------------------------------------------------------------------------------- */

static const struct event map_event = {
	.type = RINGFENCE_IMAGE_MAP,
	.body = sizeof(struct ringfence_image_map),
};

__noinline int put_asked_map(struct buffer *buffer, __u64 file, __u32 protection, __u32 flags)
{
	struct ringfence_image_map *map;

	if (!buffer)
		return 0;
	map = body_of(buffer);
	map->protection = protection;
	map->flags = flags;
	put_file(buffer, IN_BODY(ringfence_image_map, file), file);
	return 0;
}

/* Arguments: struct file or NULL, the protection that was asked for, that which it will have,
 * flags. */
SEC("lsm.s/mmap_file")
int image_map_asked(void *context)
{
	__u32 protection = argument(context, 2), flags = argument(context, 3);
	__u64 askers = askers_of(RINGFENCE_IMAGE_MAP);
	__u64 file = argument(context, 0);
	struct gate_question question = {};
	struct buffer *buffer;
	int denied;

	if (!askers || !file || !(protection & PROT_EXEC))
		return 0;
	if (!to_ask(&question, &map_event, askers, file))
		return 0;
	buffer = begin_for(&map_event, question.askers);
	if (!buffer)
		return not_told(&question);
	put_asked_map(buffer, file, protection, flags);
	denied = ask(buffer, &question);
	if (!denied)
		return 0;
	buffer = begin_denied(&map_event, question.event_id, denied);
	if (buffer) {
		put_asked_map(buffer, file, protection, flags);
		finish(buffer);
	}
	return denied;
}
