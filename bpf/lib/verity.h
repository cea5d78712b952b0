/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * fs-verity's digest of a file.
 *
 * What. put_digest writes it into the description of a file. It is what FS_IOC_MEASURE_VERITY
 * gives, and is there as soon as the file was opened once since its inode is in memory.
 *
 * Where it is. Until 6.18 the inode leads to it (compat.h). Since 7.0 it is in a table of all files
 * that have one, fsverity_info_hash (fs/verity/open.c), by the address of the inode. User space
 * knows the table's address from /proc/kallsyms; here it is looked up as rhashtable_lookup does
 * (include/linux/rhashtable.h, 7.3).
 *
 * Why an own search. bpf_get_fsverity_digest (6.8 and later) is for LSM programs, and for a file
 * that the verifier trusts. What tells of an exec is a tracepoint; what the actor runs, what a
 * target runs and what a mapping is of are found by addresses. Records would have a digest in one
 * place and none in the other, and rules by the actor's digest would match nothing.
 *
 * Limits. No lock is taken. A chain that changes while it is looked through is begun again, and a
 * table that is being replaced is followed by the next one, as the kernel does it. What is found is
 * of this inode: whoever asks holds the file, so the inode keeps its entry, and that of an earlier
 * one at the same address is in no chain any more. A table in several levels, which the kernel
 * makes where it finds no memory for one, is not looked through. Whatever is not found makes the
 * record incomplete.
 */
#ifndef RINGFENCE_VERITY_H
#define RINGFENCE_VERITY_H

#include "buffers.h"

/* Entries and chains that are looked at. A chain has some 16 entries at most (RHT_ELASTICITY), and
 * there are two tables while one replaces the other. */
#define VERITY_STEPS 256

/* How far a search has come. */
struct verity_search {
	/* Of whom. */
	__u64 inode;
	/* struct bucket_table */
	__u64 table;
	/* struct rhash_head that is next; 0 before the first one. */
	__u64 entry;
	/* What stands at the end of this chain and of no other. */
	__u64 end;
	/* struct fsverity_info */
	__u64 found;
};

static __always_inline __u32 rotated(__u32 word, __u32 by)
{
	return word << by | word >> (32 - by);
}

/* jhash2 of an address (include/linux/jhash.h, 7.3). */
static __always_inline __u32 hash_of(__u64 address, __u32 seed)
{
	__u32 c = 0xdeadbeef + sizeof(address) + seed;
	__u32 a = c + (__u32)address;
	__u32 b = c + (__u32)(address >> 32);

	c = (c ^ b) - rotated(b, 14);
	a = (a ^ c) - rotated(c, 11);
	b = (b ^ a) - rotated(a, 25);
	c = (c ^ b) - rotated(b, 16);
	a = (a ^ c) - rotated(c, 4);
	b = (b ^ a) - rotated(a, 14);
	return (c ^ b) - rotated(b, 24);
}

/* Goes to the beginning of the chain that the inode belongs into; 0 if there is none. */
static __always_inline int begin_chain(struct verity_search *search)
{
	struct bucket_table *table = (void *)search->table;
	__u32 size = BPF_CORE_READ(table, size);
	__u64 bucket, first = 0;

	if (!size || BPF_CORE_READ(table, nest))
		return 0;
	bucket = hash_of(search->inode, BPF_CORE_READ(table, hash_rnd)) & (size - 1);
	bucket = search->table + bpf_core_field_offset(struct bucket_table, buckets) +
		 bucket * sizeof(first);
	bpf_probe_read_kernel(&first, sizeof(first), (void *)bucket);
	/* The lowest bit of the first entry is a lock. */
	first &= ~1ULL;
	search->end = bucket | 1;
	search->entry = first ? first : search->end;
	return 1;
}

/* One entry; 1 at the end. */
static long search_on(__u32 count, struct verity_search *search)
{
	struct bucket_table *table = (void *)search->table;
	struct rhash_head *entry = (void *)search->entry;
	struct fsverity_info___since_7_0 *info;

	if (!entry || (__u64)entry & 1) {
		/* If it is the end of another chain, an entry was moved there meanwhile. */
		if ((__u64)entry == search->end)
			search->table = (__u64)BPF_CORE_READ(table, future_tbl);
		return !search->table || !begin_chain(search);
	}
	info = (void *)entry - bpf_core_field_offset(struct fsverity_info___since_7_0, rhash_head);
	if ((__u64)BPF_CORE_READ(info, inode) == search->inode) {
		search->found = (__u64)info;
		return 1;
	}
	search->entry = (__u64)BPF_CORE_READ(entry, next);
	return 0;
}

/* What the kernel's table has for an inode, a struct fsverity_info; 0 if it is not found. */
__noinline __u64 verity_in_table(__u64 inode)
{
	struct verity_search search = {.inode = inode};
	struct fsverity_info___since_7_0 *info = NULL;
	struct client_state *all = the_state();
	struct rhashtable *known;

	if (!bpf_core_field_exists(info->rhash_head) || !all || !all->verity_table)
		return 0;
	known = (void *)all->verity_table;
	search.table = (__u64)BPF_CORE_READ(known, tbl);
	/* No chain ends so. */
	search.end = 1;
	bpf_loop(VERITY_STEPS, search_on, &search, 0);
	return search.found;
}

/* What the kernel knows of an inode that is protected, a struct fsverity_info. */
static __always_inline struct fsverity_info *verity_of(struct inode *inode)
{
	struct fsverity_operations___6_18 *operations = NULL;
	struct inode___until_6_17 *early = (void *)inode;
	struct fsverity_info *info = NULL;

	if (bpf_core_field_exists(early->i_verity_info))
		return BPF_CORE_READ(early, i_verity_info);
	if (!bpf_core_field_exists(operations->inode_info_offs))
		return (void *)verity_in_table((__u64)inode);
	operations = (void *)BPF_CORE_READ(inode, i_sb, s_vop);
	bpf_probe_read_kernel(&info, sizeof(info),
			      (void *)inode + BPF_CORE_READ(operations, inode_info_offs));
	return info;
}

/* Copies the digest out of what the kernel knows; 0 if it cannot be read. */
static __always_inline int copy_digest(struct ringfence_file *file, struct fsverity_info *info)
{
	__u32 bytes, algorithm;

	if (!info || !bpf_core_type_exists(struct fsverity_info))
		return 0;
	bytes = BPF_CORE_READ(info, tree_params.hash_alg, digest_size);
	if (bytes == 32)
		algorithm = RINGFENCE_DIGEST_SHA256;
	else if (bytes == 64)
		algorithm = RINGFENCE_DIGEST_SHA512_TRUNCATED;
	else
		return 0;
	if (bpf_probe_read_kernel(file->digest, sizeof(file->digest),
				  (void *)info +
					  bpf_core_field_offset(struct fsverity_info, file_digest)))
		return 0;
	file->digest_algorithm = algorithm;
	return 1;
}

/* Describes how an inode is protected. */
static __always_inline void put_digest(struct buffer *buffer, struct ringfence_file *file,
				       struct inode *inode)
{
	file->flags |= RINGFENCE_FILE_VERITY;
	if (!copy_digest(file, verity_of(inode)))
		buffer->flags |= RINGFENCE_FLAG_INCOMPLETE;
}

#endif
