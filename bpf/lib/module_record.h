/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What module_events.bpf.c tells of a module, in the byte order of the machine. The Rust side is
 * proven equal to this by a test over the BTF of the built object (crates/probes/src/layout.rs).
 */
#ifndef RINGFENCE_MODULE_RECORD_H
#define RINGFENCE_MODULE_RECORD_H

/* MODULE_NAME_LEN is 64 - sizeof(unsigned long) (include/linux/moduleparam.h); ends with a zero. */
#define MODULE_NAME 56
#define MODULE_TASK 16

struct module_record {
	/* CLOCK_MONOTONIC, in nanoseconds. */
	__u64 time;
	/* Kernel address of its struct module. */
	__u64 address;
	/* Process (thread group) and thread in the initial pid namespace, and the thread's name. */
	__u32 tgid;
	__u32 tid;
	/* 1: it was loaded, and its own code runs next; 0: it is unloaded. */
	__u32 loaded;
	/* Zero. */
	__u32 reserved;
	__u8 comm[MODULE_TASK];
	__u8 name[MODULE_NAME];
};

#endif
