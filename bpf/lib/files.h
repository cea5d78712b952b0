/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Strings of a record, paths among them, and files.
 *
 * What. put_bytes copies a string into the tail; put_path puts the path of a dentry and a mount
 * there; put_file describes the file behind a struct file.
 *
 * Why an own walk. bpf_d_path is allowed in few hooks, and bpf_path_d_path only in LSM programs
 * since 6.12; one walk for all gives the same path on all kernels. It goes from the dentry to the
 * root of its mount, from the place where that is mounted to the next root, and so on to the root
 * of the whole tree: what the kernel calls d_absolute_path (fs/d_path.c). Two things differ from
 * it. There is no " (deleted)" at the end of the path of a deleted file, for that is a flag. And
 * what was never in a tree has its name behind a slash: /memfd:name.
 *
 * Limits. The walk takes no lock, so while directories above the file are renamed a name of before
 * can stand beside one of after. A path with more than PATH_STEPS names is truncated.
 *
 * Functions here are global, so that the verifier looks at each once for a program and not once
 * for each way to it. That is why addresses of the kernel are passed as numbers.
 */
#ifndef RINGFENCE_FILES_H
#define RINGFENCE_FILES_H

#include "buffers.h"
#include "verity.h"

/* Names and mounts on the way from a file to the root. A path of 4096 bytes has at most 2048. */
#define PATH_STEPS 2200

/* Appends bytes of the kernel to the tail. */
static __always_inline __u32 append(struct buffer *buffer, __u32 reference, __u64 from,
				    __u32 length, __u32 flags)
{
	struct ringfence_string *string = (void *)buffer->record + (reference & FIXED_MASK);
	__u32 used = buffer->used & RECORD_MASK;

	/* The last word on the bound is here, where the verifier sees it. */
	barrier_var(length);
	if (length > RINGFENCE_PATH_MAX)
		length = RINGFENCE_PATH_MAX;
	if (length && bpf_probe_read_kernel(buffer->record + used, length, (void *)from)) {
		buffer->flags |= RINGFENCE_FLAG_INCOMPLETE;
		return 0;
	}
	if (flags & RINGFENCE_STRING_TRUNCATED)
		buffer->flags |= RINGFENCE_FLAG_TRUNCATED;
	string->offset = used;
	string->length = length;
	string->flags = flags;
	buffer->used = used + length;
	return length;
}

/* How much of a string there is place for. */
static __always_inline __u32 fitting(struct buffer *buffer, __u32 length)
{
	__u32 used = buffer->used;
	__u32 room = used < RINGFENCE_RECORD_MAX ? RINGFENCE_RECORD_MAX - used : 0;

	if (room > RINGFENCE_PATH_MAX)
		room = RINGFENCE_PATH_MAX;
	return length < room ? length : room;
}

/*
 * Appends `length` bytes of kernel memory at `from` to the tail, or as many of the first as there
 * is place for, and writes where they are to the string reference that is `reference` bytes into
 * the record. Gives how many were copied.
 */
__noinline int put_bytes(struct buffer *buffer, __u32 reference, __u64 from, __u32 length)
{
	__u32 fits;

	if (!buffer)
		return 0;
	fits = fitting(buffer, length);
	return append(buffer, reference, from, fits,
		      fits < length ? RINGFENCE_STRING_TRUNCATED : 0);
}

/* The same for a string that ends with a zero, which is left out. */
__noinline int put_text(struct buffer *buffer, __u32 reference, __u64 from)
{
	struct ringfence_string *string;
	__u32 used;
	long length;

	if (!buffer)
		return 0;
	used = buffer->used & RECORD_MASK;
	if (!fitting(buffer, 2))
		return 0;
	length = bpf_probe_read_kernel_str(buffer->record + used, RINGFENCE_PATH_MAX, (void *)from);
	if (length <= 0) {
		buffer->flags |= RINGFENCE_FLAG_INCOMPLETE;
		return 0;
	}
	length--;
	string = (void *)buffer->record + (reference & FIXED_MASK);
	string->offset = used;
	string->length = fitting(buffer, length);
	string->flags = 0;
	if (string->length < length || length == RINGFENCE_PATH_MAX - 1) {
		string->flags = RINGFENCE_STRING_TRUNCATED;
		buffer->flags |= RINGFENCE_FLAG_TRUNCATED;
	}
	buffer->used = used + string->length;
	return length;
}

/* The mount that a vfsmount is part of. */
static __always_inline __u64 mount_of(__u64 vfsmount)
{
	return vfsmount - bpf_core_field_offset(struct mount, mnt);
}

/* Puts a name before what there is of the path; 0 if there is no more place. */
static __always_inline int put_name(struct buffer *buffer, struct dentry *dentry)
{
	const unsigned char *name = BPF_CORE_READ(dentry, d_name.name);
	__u32 length = BPF_CORE_READ(dentry, d_name.len) & 0xff;
	__u32 position = buffer->walk.position;

	if (length + 1 > position || position > RINGFENCE_PATH_MAX)
		return 0;
	position -= length;
	barrier_var(position);
	bpf_probe_read_kernel(buffer->path + (position & (RINGFENCE_PATH_MAX - 1)), length, name);
	position -= 1;
	barrier_var(position);
	buffer->path[position & (RINGFENCE_PATH_MAX - 1)] = '/';
	buffer->walk.position = position;
	return 1;
}

struct step_context {
	struct buffer *buffer;
};

/* One step towards the root; 1 at the end. */
static long step_up(__u32 count, struct step_context *context)
{
	struct buffer *buffer = context->buffer;
	struct dentry *dentry = (void *)buffer->walk.dentry, *parent;
	struct mount *mount = (void *)buffer->walk.mount, *above;

	if ((__u64)dentry == buffer->walk.root) {
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount || !above)
			return 1;
		buffer->walk.dentry = (__u64)BPF_CORE_READ(mount, mnt_mountpoint);
		buffer->walk.mount = (__u64)above;
		buffer->walk.root = (__u64)BPF_CORE_READ(above, mnt.mnt_root);
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry || !parent) {
		buffer->walk.detached = 1;
		put_name(buffer, dentry);
		return 1;
	}
	if (!put_name(buffer, dentry)) {
		buffer->walk.flags |= RINGFENCE_STRING_TRUNCATED;
		return 1;
	}
	buffer->walk.dentry = (__u64)parent;
	return 0;
}

/* Appends the path of a dentry on a mount (struct vfsmount) to the tail. */
__noinline int put_path(struct buffer *buffer, __u32 reference, __u64 dentry, __u64 vfsmount)
{
	struct step_context context = {.buffer = buffer};
	struct client_state *all = the_state();
	__u32 start, length, fits;
	struct mount *mount;

	if (!buffer || !all || !dentry || !vfsmount)
		return 0;
	buffer->walk.dentry = dentry;
	buffer->walk.mount = mount_of(vfsmount);
	buffer->walk.root = (__u64)BPF_CORE_READ((struct vfsmount *)vfsmount, mnt_root);
	buffer->walk.position = RINGFENCE_PATH_MAX;
	buffer->walk.flags = 0;
	buffer->walk.detached = 0;
	if (bpf_loop(PATH_STEPS, step_up, &context, 0) >= PATH_STEPS)
		buffer->walk.flags |= RINGFENCE_STRING_TRUNCATED;
	mount = (void *)buffer->walk.mount;
	if (all->initial_mounts && !(buffer->walk.flags & RINGFENCE_STRING_TRUNCATED) &&
	    BPF_CORE_READ(mount, mnt_ns, ns.inum) != all->initial_mounts)
		buffer->walk.flags |= RINGFENCE_STRING_UNREACHABLE;
	start = buffer->walk.position;
	/* The root itself. */
	if (start >= RINGFENCE_PATH_MAX) {
		start = RINGFENCE_PATH_MAX - 1;
		buffer->path[RINGFENCE_PATH_MAX - 1] = '/';
	}
	length = RINGFENCE_PATH_MAX - start;
	fits = fitting(buffer, length);
	if (fits < length) {
		buffer->walk.flags |= RINGFENCE_STRING_TRUNCATED;
		start += length - fits;
	}
	buffer->walk.position = start;
	return append(buffer, reference, (__u64)(buffer->path + (start & (RINGFENCE_PATH_MAX - 1))),
		      fits, buffer->walk.flags);
}

/* The time of the last change of an inode, in nanoseconds: see compat.h. */
static __always_inline __u64 changed(struct inode *inode)
{
	struct inode___until_6_10 *middle = (void *)inode;
	struct inode___since_6_11 *late = (void *)inode;
	struct inode___until_6_5 *early = (void *)inode;
	long long seconds = 0;
	__u64 nanoseconds = 0;

	if (bpf_core_field_exists(late->i_ctime_sec)) {
		seconds = BPF_CORE_READ(late, i_ctime_sec);
		nanoseconds = BPF_CORE_READ(late, i_ctime_nsec) & ~I_CTIME_QUERIED;
	} else if (bpf_core_field_exists(middle->__i_ctime)) {
		seconds = BPF_CORE_READ(middle, __i_ctime.tv_sec);
		nanoseconds = BPF_CORE_READ(middle, __i_ctime.tv_nsec);
	} else if (bpf_core_field_exists(early->i_ctime)) {
		seconds = BPF_CORE_READ(early, i_ctime.tv_sec);
		nanoseconds = BPF_CORE_READ(early, i_ctime.tv_nsec);
	}
	return seconds * 1000000000ULL + nanoseconds;
}

/* Whether the name of a dentry begins as memfd_create makes it (mm/memfd.c). */
static __always_inline int is_memfd(struct dentry *dentry)
{
	char name[6] = {};

	bpf_probe_read_kernel(name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
	return name[0] == 'm' && name[1] == 'e' && name[2] == 'm' && name[3] == 'f' &&
	       name[4] == 'd' && name[5] == ':';
}

/* Describes a file by its inode and the place where it was found, in the struct ringfence_file that
 * is `at` bytes into the record. Gives its RINGFENCE_FILE_ flags. */
__noinline int put_inode(struct buffer *buffer, __u32 at, __u64 address, __u64 place, __u64 seen_by)
{
	struct ringfence_file *out;
	struct inode *inode = (void *)address;
	struct vfsmount *vfsmount = (void *)seen_by;
	struct dentry *dentry = (void *)place;
	struct super_block *sb;
	__u64 magic;
	__u32 mount_flags;

	if (!buffer || !inode)
		return 0;
	at &= FIXED_MASK;
	out = (void *)buffer->record + at;
	sb = BPF_CORE_READ(inode, i_sb);
	out->device = BPF_CORE_READ(sb, s_dev);
	out->inode = BPF_CORE_READ(inode, i_ino);
	out->version = changed(inode);
	out->size = BPF_CORE_READ(inode, i_size);
	out->mode = BPF_CORE_READ(inode, i_mode);
	out->uid = BPF_CORE_READ(inode, i_uid.val);
	out->gid = BPF_CORE_READ(inode, i_gid.val);
	out->links = BPF_CORE_READ(inode, i_nlink);
	magic = BPF_CORE_READ(sb, s_magic);
	mount_flags = BPF_CORE_READ(vfsmount, mnt_flags);
	if (!out->links)
		out->flags |= RINGFENCE_FILE_DELETED;
	if (magic == TMPFS_MAGIC || magic == RAMFS_MAGIC || magic == HUGETLBFS_MAGIC)
		out->flags |= RINGFENCE_FILE_IN_MEMORY;
	if (mount_flags & MNT_NOSUID)
		out->flags |= RINGFENCE_FILE_NOSUID;
	if (mount_flags & MNT_NOEXEC || BPF_CORE_READ(sb, s_iflags) & SB_I_NOEXEC)
		out->flags |= RINGFENCE_FILE_NOEXEC;
	if (!(mount_flags & MNT_NOSUID) &&
	    (out->mode & S_ISUID || (out->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)))
		out->flags |= RINGFENCE_FILE_SETID;
	if (BPF_CORE_READ(inode, i_flags) & S_VERITY)
		put_digest(buffer, out, inode);
	put_path(buffer, at + __builtin_offsetof(struct ringfence_file, path), (__u64)dentry,
		 (__u64)vfsmount);
	if (buffer->walk.detached && out->flags & RINGFENCE_FILE_IN_MEMORY && is_memfd(dentry)) {
		out->flags |= RINGFENCE_FILE_MEMFD;
		out->flags &= ~RINGFENCE_FILE_DELETED;
	}
	return out->flags;
}

/* The same of the file behind a struct file. */
__noinline int put_file(struct buffer *buffer, __u32 at, __u64 address)
{
	struct file *file = (void *)address;

	if (!buffer || !file)
		return 0;
	return put_inode(buffer, at, (__u64)BPF_CORE_READ(file, f_inode),
			 (__u64)BPF_CORE_READ(file, f_path.dentry),
			 (__u64)BPF_CORE_READ(file, f_path.mnt));
}

#endif
