// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is asked of files: whether they may be opened.
 *
 * What. file_open on the hook of the same name, by whatever way: open and its relatives, io_uring,
 * handles, /proc/PID/fd, and the kernel's own opening of what is executed. Of those files only that
 * are watched (lib/watched.h). A descriptor that is passed on is not opened again.
 *
 * What is kept. That a client allows it holds for reading. Opening for writing is asked each time,
 * because the version of a file says nothing of what it may become.
 *
 * What is held by who waits (fs/namei.c and fs/open.c, 6.12).
 *   - O_TRUNC on what is there: write access to the mount, so its file system cannot be frozen.
 *   - On file systems that look up and open in one (atomic_open: FUSE, NFS, CIFS, Ceph, 9p): the
 *     lock of the directory, so who looks up, makes or removes a name there waits as well.
 *   - On overlayfs also when a file is copied up (fs/overlayfs/copy_up.c): the lock of that file.
 *   - A mount, by its reference.
 * The deadline bounds all of it. The daemon needs none of these to answer. A client must not look
 * for names in a watched directory of such a file system while it is asked: it would not be asked
 * about that, but may wait for the one who is, until its own deadline.
 *
 * Limits. O_PATH opens nothing, and passes no hook.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/ask.h"
#include "lib/open_record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static const struct event open_event = {
	.type = RINGFENCE_FILE_OPEN,
	.body = sizeof(struct ringfence_file_open),
};

/* Argument: struct file. */
SEC("lsm.s/file_open")
int file_open_asked(void *context)
{
	__u64 file = argument(context, 0), askers = askers_of(RINGFENCE_FILE_OPEN);
	struct gate_question question = {};
	struct buffer *buffer;
	__u64 kept = file;
	int denied;

	if (!askers)
		return 0;
	askers &= watched_by(of_file(file));
	if (!askers)
		return 0;
	if (mode_of(file) & FMODE_WRITE)
		kept = 0;
	if (!to_ask(&question, &open_event, askers, kept))
		return 0;
	buffer = begin_for(&open_event, question.askers);
	if (!buffer)
		return not_told(&question);
	put_open(buffer, file);
	denied = ask(buffer, &question);
	if (!denied)
		return 0;
	buffer = begin_denied(&open_event, question.event_id, denied);
	if (buffer) {
		buffer->notify &= told_of(RINGFENCE_FILE_OPEN, of_file(file));
		put_open(buffer, file);
		finish(buffer);
	}
	return denied;
}
