// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel reader: copies kernel memory into a window that user space has mapped.
 *
 * What. User space writes requests {address, length, position} into one array, runs a program by
 * BPF_PROG_TEST_RUN, and finds the bytes in another array that it maps read-only. No read(), no
 * ring buffer, no copy_to_user: between the kernel's memory and the reader's eyes there is one
 * store.
 *
 * Why this way. A rootkit lies to readers by hooking the functions through which they read:
 * copy_from_kernel_nofault (under bpf_probe_read_kernel and kcore), the ring buffer, seq_file. A
 * program of type syscall that casts an address with bpf_rdonly_cast and dereferences it calls no
 * function at all: the verifier turns the cast into a register move and the JIT emits the load as
 * one mov with an entry in the exception table (BPF_PROBE_MEM; arch/x86/net/bpf_jit_comp.c). There
 * is nothing to hook on the way of the bytes. That is read_inline.
 * read_helper reads the same ranges by bpf_probe_read_kernel. Where the two disagree, somebody
 * stands in one of the ways, and the disagreement itself is the finding.
 *
 * Limits.
 *  - A load that faults does not stop the program; it yields 0. So a request of which every word
 *    reads 0 is asked about once more, by a helper call for its first 8 bytes, only to tell "zero"
 *    from "not mapped". A hook in the helper can therefore make a page of zeroes look unmapped, or
 *    an unmapped page look like zeroes. It cannot change or hide a byte that is not zero.
 *  - Memory changes while it is read. Each aligned 8 bytes are read at once; nothing wider is.
 *  - What stands at an address that the page tables redirect is what the CPU sees as data. An
 *    attacker below the kernel (EPT) can show other bytes to the instruction fetch.
 *  - The call itself goes through the bpf system call, whose code is text like any other: the guard
 *    checks that text first.
 *  - Under lockdown=confidentiality the kernel refuses bpf_probe_read_kernel and with it both
 *    programs. Under lockdown=integrity both work.
 *
 * Ways rejected.
 *  - A module: needs signing keys and headers, and is what this project exists to make unnecessary.
 *  - /proc/kcore, /dev/mem: by read(), through hooked functions, and absent on many kernels.
 *  - bpf_probe_read_kernel alone: see above.
 *  - Bytes out by ring buffer or perf buffer: a copy more, and rootkits hook those functions.
 *  - BPF_PROBE_MEM loads from a typed pointer (kernels before bpf_rdonly_cast): there is no typed
 *    pointer to kernel text to start from.
 *  - Ranges of any length split up here: every page needs its own status anyway, so user space
 *    splits, and this file stays a loop over pages.
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "lib/reader_abi.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define WORDS_OF_PAGE (READER_PAGE / sizeof(__u64))
#define WORDS_AT_ONCE 16

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, READER_REQUESTS);
	__type(key, __u32);
	__type(value, struct reader_request);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[READER_WINDOW]);
} window SEC(".maps");

/*
 * The place in the window for a request that keeps the rules, NULL otherwise. The bounds are for
 * the verifier as much as for the caller: after them it knows that a page fits behind the pointer.
 */
static __always_inline void *place_of(const struct reader_request *request)
{
	__u32 zero = 0;
	__u32 position = request->position;
	__u8 *start = bpf_map_lookup_elem(&window, &zero);

	if (!start || position > READER_WINDOW - READER_PAGE || position % sizeof(__u64))
		return NULL;
	return start + position;
}

/* One word. The struct is only a shape with a word at its start. */
static __always_inline __u64 load_word(__u64 address)
{
	struct pt_regs *words =
		bpf_rdonly_cast((void *)address, bpf_core_type_id_kernel(struct pt_regs));

	return words->r15;
}

/*
 * Sixteen words by one cast: pt_regs starts with sixteen of them, so the JIT emits sixteen loads
 * from one base.
 */
static __always_inline void load_words(__u64 *out, __u64 address)
{
	struct pt_regs *words =
		bpf_rdonly_cast((void *)address, bpf_core_type_id_kernel(struct pt_regs));

	out[0] = words->r15;
	out[1] = words->r14;
	out[2] = words->r13;
	out[3] = words->r12;
	out[4] = words->bp;
	out[5] = words->bx;
	out[6] = words->r11;
	out[7] = words->r10;
	out[8] = words->r9;
	out[9] = words->r8;
	out[10] = words->ax;
	out[11] = words->cx;
	out[12] = words->dx;
	out[13] = words->si;
	out[14] = words->di;
	out[15] = words->orig_ax;
}

/* First pass: the loads. */
static long load_request(__u32 index, __u32 *suspects)
{
	struct reader_request *request = bpf_map_lookup_elem(&requests, &index);
	__u64 *out, address;
	__u32 at = 0, words;

	if (!request)
		return 1;
	out = place_of(request);
	address = request->address;
	words = request->length / sizeof(__u64);
	if (!out || words == 0 || words > WORDS_OF_PAGE) {
		request->status = READER_REFUSED;
		return 0;
	}
#pragma clang loop unroll(disable)
	for (; at + WORDS_AT_ONCE <= words && at < WORDS_OF_PAGE; at += WORDS_AT_ONCE)
		load_words(&out[at], address + at * sizeof(__u64));
#pragma clang loop unroll(disable)
	for (; at < words && at < WORDS_OF_PAGE; at++)
		out[at] = load_word(address + at * sizeof(__u64));
	/* A fault leaves all of a request zero, so its first word clears most of suspicion. */
	request->status = out[0] ? READER_DONE : READER_PENDING;
	*suspects += !out[0];
	return 0;
}

/*
 * Second pass, over the few that are left: tells what reads as zeroes from what could not be read.
 * Whatever is not zero was read; only where nothing is not zero is the helper asked. A pass of its
 * own, because the verifier would walk it anew for every way out of the loops above.
 */
static long settle_request(__u32 index, void *unused)
{
	struct reader_request *request = bpf_map_lookup_elem(&requests, &index);
	__u64 *out, word;
	__u32 at, words;

	if (!request)
		return 1;
	out = place_of(request);
	words = request->length / sizeof(__u64);
	if (!out || request->status != READER_PENDING)
		return 0;
	request->status = READER_DONE;
#pragma clang loop unroll(disable)
	for (at = 0; at < words && at < WORDS_OF_PAGE; at++) {
		if (out[at])
			return 0;
	}
	if (bpf_probe_read_kernel(&word, sizeof(word), (void *)request->address))
		request->status = READER_UNREADABLE;
	return 0;
}

static long helper_request(__u32 index, void *unused)
{
	struct reader_request *request = bpf_map_lookup_elem(&requests, &index);
	__u32 length;
	void *out;

	if (!request)
		return 1;
	out = place_of(request);
	length = request->length;
	/* Keeps clang from folding the comparisons into one of length - 1, which proves nothing. */
	barrier_var(length);
	if (!out || length > READER_PAGE) {
		request->status = READER_REFUSED;
		return 0;
	}
	request->status = bpf_probe_read_kernel(out, length, (void *)request->address)
				  ? READER_UNREADABLE
				  : READER_DONE;
	return 0;
}

SEC("syscall")
int read_inline(struct reader_call *call)
{
	__u32 suspects = 0;
	long done = bpf_loop(call->count, load_request, &suspects, 0);

	if (suspects)
		bpf_loop(call->count, settle_request, NULL, 0);
	return done;
}

SEC("syscall")
int read_helper(struct reader_call *call)
{
	return bpf_loop(call->count, helper_request, NULL, 0);
}
