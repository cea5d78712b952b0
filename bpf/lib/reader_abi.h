/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the kernel reader and its caller say to each other. The Rust side is proven equal to this
 * by a test over the BTF of the built object (crates/probes/src/layout.rs).
 */
#ifndef RINGFENCE_READER_ABI_H
#define RINGFENCE_READER_ABI_H

#define READER_PAGE 4096
/* Bytes of the output window. crates/probes/src/bench.rs measures why this many. */
#define READER_WINDOW (1024 * 1024)
/* Requests in one call. Whole pages fill the window with 256; small reads use the rest. */
#define READER_REQUESTS 4096

enum reader_status {
	/* The program has not come to this request. */
	READER_PENDING = 0,
	/* The words are in the window. */
	READER_DONE = 1,
	/* Nothing readable is mapped there; the window holds zeroes. */
	READER_UNREADABLE = 2,
	/* The request breaks a rule below; nothing was read. */
	READER_REFUSED = 3,
};

/* One stretch of one page. */
struct reader_request {
	/* Kernel virtual address, a multiple of 8. */
	__u64 address;
	/* Where its bytes go in the window: a multiple of 8, at most READER_WINDOW - READER_PAGE.
	 */
	__u32 position;
	/* Bytes, a multiple of 8, from 8 to READER_PAGE; address + length stays in one page. */
	__u16 length;
	/* enum reader_status, written by the program. */
	__u16 status;
};

/* The context of a call. The program returns how many requests it went through. */
struct reader_call {
	/* How many entries of the request array are to be read, from the first. */
	__u32 count;
	__u32 reserved;
};

#endif
