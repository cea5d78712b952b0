/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a record says of a BPF program that the kernel has.
 */
#ifndef RINGFENCE_PROGRAM_RECORD_H
#define RINGFENCE_PROGRAM_RECORD_H

#include "record.h"

/* `address`: of a struct bpf_prog. */
__noinline int put_program(struct buffer *buffer, __u64 address)
{
	struct bpf_prog *program = (void *)address;
	struct ringfence_bpf_load *load;

	if (!buffer)
		return 0;
	load = body_of(buffer);
	load->program_type = BPF_CORE_READ(program, type);
	load->attach_type = BPF_CORE_READ(program, expected_attach_type);
	load->attach_btf_id = BPF_CORE_READ(program, aux, attach_btf_id);
	load->instructions = BPF_CORE_READ(program, len);
	BPF_CORE_READ_INTO(&load->name, program, aux, name);
	return 0;
}

#endif
