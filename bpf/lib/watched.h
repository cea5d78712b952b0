/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Watched: which clients are asked about the opening of a file, or are told of it and of its
 * modification, by the directories above it.
 *
 * Everything opens files, so nobody is asked about all of them. A grant names directories (or
 * single files); user space resolves them once and enters what they are: device and inode. A file
 * is watched by whom one of the directories above it belongs to, or it itself. Who is only told
 * and names none is told of all files.
 *
 * The walk goes from the file to the root of its file system, not of its mount, so a directory that
 * is mounted elsewhere once more stays watched; and from where the file system is mounted on.
 *
 * A file that was opened by a handle (open_by_handle_at) can have no directory above it. It counts
 * as watched by all.
 *
 * Limits. WATCHED_STEPS names above a file; what is deeper counts as watched by all. No lock is
 * taken: a file that is moved while it is opened may be found at either place. A hard link in
 * another directory is another way to the same file. A file system that is mounted below a watched
 * directory is not watched from another place where it is mounted.
 *
 * Ways rejected. Prefixes of paths: until 6.18 a program that may sleep cannot look them up, and a
 * path says less, since everybody can mount a directory elsewhere in a namespace of his own.
 */
#ifndef RINGFENCE_WATCHED_H
#define RINGFENCE_WATCHED_H

#include "clients.h"

#define WATCHED_FILES 1024
#define WATCHED_STEPS 256

/* include/linux/dcache.h: bit 5, before and after it became an enumeration. */
#define DCACHE_DISCONNECTED 0x20

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct dentry___watched {
	unsigned int d_flags;
};

#pragma clang attribute pop

/* Values are sets of clients. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCHED_FILES);
	__type(key, struct executable_key);
	__type(value, __u64);
} watched SEC(".maps");

struct watched_walk {
	__u64 dentry;
	__u64 mount;
	__u64 clients;
};

/* One step towards the root; 1 at the end. */
static long watched_step(__u32 count, struct watched_walk *walk)
{
	struct dentry *dentry = (void *)walk->dentry, *parent;
	struct mount *mount = (void *)walk->mount, *above;
	struct executable_key key = {};
	struct inode *inode;
	__u64 *found;

	inode = BPF_CORE_READ(dentry, d_inode);
	key.device = BPF_CORE_READ(inode, i_sb, s_dev);
	key.inode = BPF_CORE_READ(inode, i_ino);
	found = bpf_map_lookup_elem(&watched, &key);
	if (found)
		walk->clients |= *found;
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent && parent != dentry) {
		walk->dentry = (__u64)parent;
		return 0;
	}
	if (BPF_CORE_READ((struct dentry___watched *)dentry, d_flags) & DCACHE_DISCONNECTED)
		walk->clients = ~0ULL;
	above = BPF_CORE_READ(mount, mnt_parent);
	if (!above || above == mount)
		return 1;
	walk->dentry = (__u64)BPF_CORE_READ(mount, mnt_mountpoint);
	walk->mount = (__u64)above;
	return 0;
}

/* A place in the tree of files, by addresses: a dentry, and the mount (struct vfsmount) that it is
 * seen through. */
struct place {
	__u64 dentry;
	__u64 vfsmount;
};

/* That of a struct path. */
static __always_inline struct place of_path(__u64 path)
{
	struct place place = {
		.dentry = (__u64)BPF_CORE_READ((struct path *)path, dentry),
		.vfsmount = (__u64)BPF_CORE_READ((struct path *)path, mnt),
	};

	return place;
}

/* That of a struct file. */
static __always_inline struct place of_file(__u64 file)
{
	return of_path(file + bpf_core_field_offset(struct file, f_path));
}

/* Clients who watch what is at a place. */
static __always_inline __u64 watched_by(struct place place)
{
	struct watched_walk walk = {};

	walk.dentry = place.dentry;
	walk.mount = mount_of(place.vfsmount);
	if (bpf_loop(WATCHED_STEPS, watched_step, &walk, 0) >= WATCHED_STEPS)
		return ~0ULL;
	return walk.clients;
}

/* Clients who can be told what becomes of what is at a place, as far as they subscribe: not those
 * who watch something else. The walk is made for those only. */
static __always_inline __u64 told_of(__u32 type, struct place place)
{
	struct subscribers *subscribers = bpf_map_lookup_elem(&subscriptions, &type);
	struct client_state *all = the_state();
	__u64 limited;

	limited = subscribers && all ? subscribers->notify & all->watching : 0;
	return limited ? ~limited | watched_by(place) : ~0ULL;
}

#endif
