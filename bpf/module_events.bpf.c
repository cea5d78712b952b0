// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Tells of each module as it is loaded and as it goes.
 *
 * What. One record in a ring for each passage of the tracepoints module:module_load and
 * module:module_free (include/trace/events/module.h, 6.1 to 7.3).
 *
 * Why this way. A module is the usual way into a kernel, and what it does there need not be told of
 * by anything: so the guard looks at everything as soon as one is loaded, instead of at its next
 * turn. perf's own records of modules (mmap events of the kernel) come for processes only. The
 * tracepoint of loading is passed when all is in place and just before the module's own code runs
 * (load_module, kernel/module/main.c), so user space looks twice.
 *
 * Limits. A module that is loaded by other means (memory written by hand) passes no tracepoint, and
 * whoever is in the kernel can detach this program: the check `self` tells of that. Since 7.0 the
 * kernel can miss to run it (lib/again.h); then the guard looks at its next turn.
 *
 * Ways rejected. tp_btf, which needs a type of its own in every kernel's BTF; a raw tracepoint has
 * the same argument. A perf event by the tracepoint's number, which needs tracefs and has a ring
 * for each CPU, those that come later included.
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/module_record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} modules SEC(".maps");

/* Records that did not fit. */
__u64 lost = 0;

static __noinline void tell(struct module_record *record)
{
	if (bpf_ringbuf_output(&modules, record, sizeof(*record), 0))
		__sync_fetch_and_add(&lost, 1);
}

static __always_inline int module(struct bpf_raw_tracepoint_args *context, __u32 loaded)
{
	struct module *module = (struct module *)context->args[0];
	struct module_record record = {};
	__u64 ids = bpf_get_current_pid_tgid();

	record.time = bpf_ktime_get_ns();
	record.address = (__u64)module;
	record.tgid = ids >> 32;
	record.tid = (__u32)ids;
	record.loaded = loaded;
	bpf_get_current_comm(record.comm, sizeof(record.comm));
	bpf_probe_read_kernel(record.name, sizeof(record.name),
			      (void *)module + bpf_core_field_offset(struct module, name));
	tell(&record);
	return 0;
}

SEC("raw_tp/module_load")
int module_loaded(struct bpf_raw_tracepoint_args *context)
{
	return module(context, 1);
}

SEC("raw_tp/module_free")
int module_unloaded(struct bpf_raw_tracepoint_args *context)
{
	return module(context, 0);
}
