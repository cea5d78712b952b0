// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is asked of that which becomes part of the kernel: modules, other kernels, programs of BPF.
 *
 * What. module_load and kexec_load from a file on kernel_read_file, before anything is read of it;
 * bpf_load on bpf_prog_load, before the verifier looks at it. All that the gate needs came later
 * than this hook (6.9, 1b67772e4e3f "bpf,lsm: Refactor bpf_prog_alloc/bpf_prog_free LSM hooks"), so
 * there is no other way for kernels that lack it. It is passed by those only who may load the
 * program, so nobody without privilege can keep clients busy with it.
 *
 * What cannot be asked. A module that is given as memory (init_module) and a kernel that is
 * (kexec_load): they pass kernel_load_data, which is not among the hooks at which a program may
 * sleep (kernel/bpf/bpf_lsm.c, sleepable_lsm_hooks, 6.12 to 7.3), and no other that is. So it is
 * decided at once as if nobody had answered, client by client as the grant says.
 *
 * What is held by who waits.
 *   - finit_module (kernel/module/main.c, 6.12): write access to the file is denied (fs/
 *     kernel_read_file.c), and who loads the same file meanwhile waits for the first one's result.
 *     module_mutex is taken later.
 *   - kexec_file_load (kernel/kexec_file.c, 6.12): kexec_lock, which everybody only tries to take.
 *     So until the verdict other loads fail with EBUSY, and a panic does not boot the crash kernel.
 *     The deadline bounds it.
 *   - bpf_prog_load (kernel/bpf/syscall.c, 6.12): nothing.
 * None of them is passed with a spin lock or in an interrupt, or the list would not have it.
 *
 * Who is never asked. See gate.h. The daemon loads programs while it opens the gate; it is exempt
 * before there is an anchor, and nothing waits where there is none.
 *
 * Limits. The kernel can load a module for somebody (request_module), by a process that is a child
 * of the kernel's: it is asked about as its own doing. If the daemon causes that itself, it waits
 * for the one who waits for it, until its watchdog ends all waits.
 *
 * Ways rejected. The hook bpf: passed for each command of bpf(2), and before the caller's rights
 * are looked at. kernel_post_read_file: the file has been read then, which can take long.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/ask.h"
#include "lib/load_record.h"
#include "lib/program_record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* --- modules and kernels --------------------------------------------------------------------- */

static const struct event module_event = {
	.type = RINGFENCE_MODULE_LOAD,
	.body = sizeof(struct ringfence_module_load),
};

static const struct event kexec_event = {
	.type = RINGFENCE_KEXEC_LOAD,
	.body = sizeof(struct ringfence_kernel_load),
};

/* Tells of what was denied, to those who listen. */
static __always_inline void tell_denied_load(const struct event *event, __u64 event_id, int denied,
					     __u64 file)
{
	struct buffer *buffer = begin_denied(event, event_id, denied);

	if (!buffer)
		return;
	put_load(buffer, file);
	finish(buffer);
}

static __always_inline int ask_load(const struct event *event, __u64 file)
{
	__u64 askers = askers_of(event->type);
	struct gate_question question = {};
	struct buffer *buffer;
	int denied;

	if (!askers || !to_ask(&question, event, askers, file))
		return 0;
	buffer = begin_for(event, question.askers);
	if (!buffer)
		return not_told(&question);
	put_load(buffer, file);
	denied = ask(buffer, &question);
	if (denied)
		tell_denied_load(event, question.event_id, denied, file);
	return denied;
}

/* Arguments: file, what it is read for, whether as a whole. */
SEC("lsm.s/kernel_read_file")
int load_file_asked(void *context)
{
	__u64 file = argument(context, 0);
	__u32 id = argument(context, 1);

	if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_MODULE))
		return ask_load(&module_event, file);
	if (bpf_core_enum_value_exists(enum kernel_read_file_id, READING_MODULE_COMPRESSED) &&
	    id == bpf_core_enum_value(enum kernel_read_file_id, READING_MODULE_COMPRESSED))
		return ask_load(&module_event, file);
	if (id == bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_IMAGE) ||
	    id == bpf_core_enum_value(enum kernel_read_file_id, READING_KEXEC_INITRAMFS))
		return ask_load(&kexec_event, file);
	return 0;
}

/* What cannot be asked about is decided as if nobody had answered. */
static __always_inline int decide_unasked(const struct event *event)
{
	__u64 askers = askers_of(event->type);
	struct gate_question question = {};
	int denied;

	if (!askers || !to_ask(&question, event, askers, 0))
		return 0;
	denied = gate_fall_back(&question);
	if (denied)
		tell_denied_load(event, 0, denied, 0);
	return denied;
}

/* Arguments: what it is loaded for, whether its contents come to another hook later. Not a program
 * that may sleep: see above. */
SEC("lsm/kernel_load_data")
int load_memory_unasked(void *context)
{
	__u32 id = argument(context, 0);

	if (id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_MODULE))
		return decide_unasked(&module_event);
	if (id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_IMAGE) ||
	    id == bpf_core_enum_value(enum kernel_load_data_id, LOADING_KEXEC_INITRAMFS))
		return decide_unasked(&kexec_event);
	return 0;
}

/* --- programs of BPF ------------------------------------------------------------------------- */

static const struct event bpf_event = {
	.type = RINGFENCE_BPF_LOAD,
	.body = sizeof(struct ringfence_bpf_load),
};

/* Arguments: program, the kernel's copy of union bpf_attr, token or NULL. */
SEC("lsm.s/bpf_prog_load")
int bpf_load_asked(void *context)
{
	__u64 askers = askers_of(RINGFENCE_BPF_LOAD);
	struct gate_question question = {};
	struct buffer *buffer;
	int denied;

	if (!askers || !to_ask(&question, &bpf_event, askers, 0))
		return 0;
	buffer = begin_for(&bpf_event, question.askers);
	if (!buffer)
		return not_told(&question);
	put_program(buffer, argument(context, 0));
	denied = ask(buffer, &question);
	if (!denied)
		return 0;
	buffer = begin_denied(&bpf_event, question.event_id, denied);
	if (buffer) {
		put_program(buffer, argument(context, 0));
		finish(buffer);
	}
	return denied;
}
