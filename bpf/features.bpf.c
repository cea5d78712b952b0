// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs that do nothing, to find out what a kernel lets be attached.
 *
 * Whether LSM and fentry programs can be used depends on the kernel's configuration, its command
 * line (lsm=), the architecture and whoever else has a say; the one honest way to know is to load
 * and attach one. `ringfence doctor` does so for each program by itself, and detaches it at once.
 *
 * The places are chosen so that nothing notices: the LSM hook for setting the clock, which is
 * called a few times a day and is allowed what it would be allowed anyway, and a function that the
 * kernel has only for its own BPF tests (net/bpf/test_run.c).
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/settime")
int try_lsm(void *context)
{
	return 0;
}

SEC("fentry/bpf_fentry_test1")
int try_fentry(void *context)
{
	return 0;
}
