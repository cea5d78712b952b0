// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Files: that they are opened, and that what is in them may have changed.
 *
 * What. file_open on the hook of the same name, before it is done, by whatever way it is opened
 * (see verdicts_file.bpf.c for who is asked). file_modify of regular files: at the hook
 * file_release, when what was open for writing is closed for the last time, however often it was
 * duplicated, passed on or mapped; and where contents go without anything being open for writing,
 * at path_truncate (truncate) and file_truncate (open with O_TRUNC for reading only).
 *
 * Why at the end. A file is written by many calls and by none, through a mapping; each of them
 * would be an event, and a scanner wants to look when it is done. That it was open for writing
 * does not say that it was written: file.version does, which changes as anything is written.
 *
 * Who. What is open is closed for the last time by the task that lets go of it, which need not be
 * the one that has written. If that is the end of a process, the process has no memory and so no
 * executable any more; its key is there. Where the kernel itself is the last to let go, as when a
 * descriptor was on its way through a socket that nobody read, the actor is the kernel.
 *
 * What is none. Pidfds, which are regular files for the kernel since 6.9.
 *
 * Limits. Kernels before 6.9 have no file_release: file_free is passed too late there, when the
 * file has no path any more. path_truncate is passed before it is done, and it can still fail.
 *
 * Ways rejected. file_permission, which is passed by each read and write, and by no mapping.
 * fsnotify's own hooks: functions that are inlined. fanotify: a queue and a copy for each listener.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"
#include "lib/open_record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* include/uapi/linux/stat.h */
#define S_IFMT	0170000
#define S_IFREG 0100000

/* Since 6.9 the kernel opens a pidfd as it opens a file (fs/pidfs.c), writable, and nobody can
 * write it. */
static __always_inline int is_pidfd(struct inode *inode)
{
	return BPF_CORE_READ(inode, i_sb, s_magic) == PID_FS_MAGIC;
}

/* --- opened ---------------------------------------------------------------------------------- */

/* Argument: struct file. */
SEC("lsm/file_open")
int file_open(void *context)
{
	__u64 file = argument(context, 0);
	struct buffer *buffer;

	if (is_pidfd(BPF_CORE_READ((struct file *)file, f_inode)))
		return 0;
	buffer = begin_among(RINGFENCE_FILE_OPEN, sizeof(struct ringfence_file_open),
			     ruled_where_told(RINGFENCE_FILE_OPEN),
			     told_of(RINGFENCE_FILE_OPEN, of_file(file)));
	if (!buffer)
		return 0;
	put_open(buffer, file);
	return conclude(buffer);
}

/* --- modified -------------------------------------------------------------------------------- */

static __always_inline int is_regular(struct inode *inode)
{
	return (BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFREG;
}

/* What is in an inode, found at a place, may have changed; `how` is RINGFENCE_MODIFY_, `flags` are
 * O_ of what was open. */
static __always_inline int modified(struct inode *inode, struct place place, __u32 how, __u32 flags)
{
	struct ringfence_file_modify *modify;
	struct buffer *buffer;

	if (!is_regular(inode) || is_pidfd(inode))
		return 0;
	buffer = begin_among(RINGFENCE_FILE_MODIFY, sizeof(*modify),
			     ruled_where_told(RINGFENCE_FILE_MODIFY),
			     told_of(RINGFENCE_FILE_MODIFY, place));
	if (!buffer)
		return 0;
	modify = body_of(buffer);
	modify->how = how;
	modify->flags = flags;
	put_inode(buffer, IN_BODY(ringfence_file_modify, file), (__u64)inode, place.dentry,
		  place.vfsmount);
	observe(buffer);
	return 0;
}

/* The same of what is behind a struct file. */
static __always_inline int modified_open(__u64 file, __u32 how)
{
	return modified(BPF_CORE_READ((struct file *)file, f_inode), of_file(file), how,
			BPF_CORE_READ((struct file___opened *)file, f_flags));
}

/* Argument: struct file, that nothing refers to any more. */
SEC("lsm/file_release")
int file_closed(void *context)
{
	__u64 file = argument(context, 0);

	if (!(mode_of(file) & FMODE_WRITE))
		return 0;
	return modified_open(file, RINGFENCE_MODIFY_CLOSED);
}

/* Argument: struct path. */
SEC("lsm/path_truncate")
int file_truncated(void *context)
{
	struct place place = of_path(argument(context, 0));
	struct dentry *dentry = (void *)place.dentry;

	return modified(BPF_CORE_READ(dentry, d_inode), place, RINGFENCE_MODIFY_TRUNCATED, 0);
}

/* Argument: struct file. What is open for writing is told of when it is closed. */
SEC("lsm/file_truncate")
int file_open_truncated(void *context)
{
	__u64 file = argument(context, 0);

	if (mode_of(file) & FMODE_WRITE)
		return 0;
	return modified_open(file, RINGFENCE_MODIFY_TRUNCATED);
}
