/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types that events are made of: credentials, files, mounts, namespaces, programs that
 * are executed. As in kernel_types.h only what is read is named, and CO-RE puts in the offsets.
 */
#ifndef RINGFENCE_EVENT_TYPES_H
#define RINGFENCE_EVENT_TYPES_H

#include "kernel_types.h"

/* include/linux/sched.h */
#define PF_KTHREAD 0x00200000
/* include/linux/pid_types.h */
#define PIDTYPE_PGID 2
#define PIDTYPE_SID  3
/* include/linux/sched/signal.h */
#define SIGNAL_GROUP_EXIT 0x4
/* include/linux/fs.h */
#define S_VERITY	(1 << 16)
#define SB_I_NOEXEC	0x2
#define I_CTIME_QUERIED (1U << 31)
/* include/linux/mount.h */
#define MNT_NOSUID 0x01
#define MNT_NOEXEC 0x04
/* include/uapi/linux/stat.h */
#define S_ISUID 04000
#define S_ISGID 02000
#define S_IXGRP 00010
/* include/uapi/linux/magic.h, and fs/hugetlbfs and fs/ramfs that have theirs there too. */
#define TMPFS_MAGIC	0x01021994
#define RAMFS_MAGIC	0x858458f6
#define HUGETLBFS_MAGIC 0x958458f6
#define PID_FS_MAGIC	0x50494446

typedef struct {
	int counter;
} atomic_t;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/ns_common.h, since 6.16 ns/ns_common_types.h. */
struct ns_common {
	unsigned int inum;
};

struct user_namespace {
	struct ns_common ns;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct net {
	struct ns_common ns;
};

struct pid_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
};

/* include/linux/cred.h. A set of capabilities has 8 bytes, as u64 val since 6.3 (f122a08b197d) and
 * as two u32 before, which is the same on a little-endian machine. */
typedef struct {
	u64 val;
} kernel_cap_t;

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t suid;
	kgid_t sgid;
	kuid_t euid;
	kgid_t egid;
	kuid_t fsuid;
	kgid_t fsgid;
	kernel_cap_t cap_permitted;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
};

/* include/linux/sched/signal.h */
struct signal_struct {
	atomic_t live;
	int nr_threads;
	int group_exit_code;
	unsigned int flags;
	struct pid *pids[4];
	u64 utime;
	u64 stime;
	unsigned long long sum_sched_runtime;
};

/* include/linux/kernfs.h, cgroup-defs.h. The id of a node is the inode number of its directory. */
struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

/* include/linux/dcache.h */
struct qstr {
	u32 len;
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

/* include/linux/fs.h */
struct fsverity_operations;

struct super_block {
	u32 s_dev;
	unsigned long s_iflags;
	unsigned long s_magic;
	const struct fsverity_operations *s_vop;
};

struct timespec64 {
	long long tv_sec;
	long tv_nsec;
};

struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	unsigned int i_flags;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
	long long i_size;
};

struct vfsmount {
	struct dentry *mnt_root;
	int mnt_flags;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
};

/* fs/mount.h */
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
};

/* fs/verity/fsverity_private.h */
struct fsverity_hash_alg {
	unsigned int digest_size;
};

struct merkle_tree_params {
	const struct fsverity_hash_alg *hash_alg;
};

struct fsverity_info {
	struct merkle_tree_params tree_params;
	u8 file_digest[64];
};

/* include/linux/rhashtable-types.h and rhashtable.h */
struct rhash_head {
	struct rhash_head *next;
};

struct bucket_table {
	unsigned int size;
	unsigned int nest;
	u32 hash_rnd;
	struct bucket_table *future_tbl;
	void *buckets[];
};

struct rhashtable {
	struct bucket_table *tbl;
};

/* include/linux/mm_types.h */
struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};

/* include/linux/binfmts.h. The bits stand in one word in all kernels, which CO-RE finds. */
struct linux_binprm {
	unsigned int secureexec : 1;
	struct file *file;
	struct cred *cred;
	int argc;
	int envc;
	const char *filename;
	const char *interp;
};

/* include/linux/signal_types.h */
struct kernel_siginfo {
	int si_code;
};

/* include/linux/mm_types.h. vm_flags has VM_READ, VM_WRITE and VM_EXEC in its lowest three bits,
 * which are the bits of PROT_; in 6.3 it became one half of a union (bc292ab00f6c "mm: introduce
 * vma->vm_flags wrapper functions"). */
struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
};

#pragma clang attribute pop

/* include/uapi/asm-generic/mman-common.h */
#define PROT_WRITE 0x2
#define PROT_EXEC  0x4
#define PROT_ALL   0x7

/* include/uapi/linux/bpf.h */
#define BPF_PROG_LOAD 5

/* arch/x86/include/asm/thread_info.h: the call that a task is in has its number in the table of
 * 32-bit calls. The code segment does not tell it, because 64-bit programs can use int 0x80 too. */
#define TS_COMPAT 0x0002
/* The x32 ABI has the numbers of the 64-bit one, with this bit. */
#define X32 (1ULL << 30)

/* include/linux/kernel_read_file.h and kernel_load_data: numbers are asked for by name. */
enum kernel_read_file_id {
	READING_FIRMWARE = 1,
	READING_MODULE = 2,
	READING_KEXEC_IMAGE = 3,
	READING_KEXEC_INITRAMFS = 4,
	READING_MODULE_COMPRESSED = 7,
};

enum kernel_load_data_id {
	LOADING_FIRMWARE = 1,
	LOADING_MODULE = 2,
	LOADING_KEXEC_IMAGE = 3,
	LOADING_KEXEC_INITRAMFS = 4,
};

#endif
