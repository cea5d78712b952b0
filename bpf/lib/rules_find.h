/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which rules of a set an event has to look at: its keys are hashed and looked up in the set's
 * index. Essay and limits are in rules.h.
 */
#ifndef RINGFENCE_RULES_FIND_H
#define RINGFENCE_RULES_FIND_H

#include "rules_maps.h"
#include "rules_facts.h"

/* What callbacks are handed. */
struct rules_walk {
	struct rules_record *record;
	struct rules_work *work;
	/* The set of the client, or a collection. */
	void *cells;
};

static __always_inline void *rules_cell(struct rules_walk *walk, __u32 number)
{
	return bpf_map_lookup_elem(walk->cells, &number);
}

/* The number of the lowest bit of a word times a de Bruijn sequence, by its top six bits. */
static const __u8 rules_bit_numbers[64] = {
	0,  1,	2,  53, 3,  7,	54, 27, 4,  38, 41, 8,	34, 55, 48, 28, 62, 5,	39, 46, 44, 42,
	22, 9,	24, 35, 59, 56, 49, 18, 29, 11, 63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21,
	23, 58, 17, 10, 51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12,
};

static __always_inline __u32 rules_lowest(__u64 set)
{
	return rules_bit_numbers[((set & -set) * 0x022fdd63cc95386dULL) >> 58];
}

static __always_inline void rules_add_list(struct rules_work *work, __u32 first, __u16 deciding,
					   __u16 telling)
{
	__u32 count = work->lists_count;

	barrier_var(count);
	if (count >= RULES_LISTS)
		return;
	work->lists[count].first = first;
	work->lists[count].deciding = deciding;
	work->lists[count].telling = telling;
	work->lists_count = count + 1;
}

/* Looks a tag up in the index of the set and keeps its list. */
static __noinline int rules_probe(struct rules_walk *walk, __u64 tag)
{
	struct rules_work *work = walk->work;
	__u32 start = rules_mix(work->salt, tag), probe, place;
	struct rules_entry *entries;

#pragma clang loop unroll(disable)
	for (probe = 0; probe < RULES_PROBES; probe++) {
		if (probe >= work->index_probes)
			return 0;
		entries = rules_cell(walk, work->index_at + ((start + probe) & work->index_mask));
		if (!entries)
			return 0;
#pragma clang loop unroll(full)
		for (place = 0; place < RULES_CELL / sizeof(*entries); place++) {
			if (entries[place].tag == tag) {
				rules_add_list(work, entries[place].first, entries[place].deciding,
					       entries[place].telling);
				return 1;
			}
		}
		/* Cells are filled in order: behind an empty place there is nothing. */
		if (!entries[place - 1].tag)
			return 0;
	}
	return 0;
}

/* For each kind of key with one value: its bit is in scan. */
static long rules_probe_single(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u64 scan = work->scan;
	__u32 kind;

	if (!scan)
		return 1;
	work->scan = scan & (scan - 1);
	kind = rules_lowest(scan) & 31;
	rules_probe(walk, rules_tag(work, kind, work->first[kind], work->second[kind]));
	return 0;
}

/* For each bit in scan, of ancestry or of collections: the bit is the value. */
static long rules_probe_bit(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u64 scan = work->scan;

	if (!scan)
		return 1;
	work->scan = scan & (scan - 1);
	rules_probe(walk, rules_tag(work, work->scan_which, rules_lowest(scan), 0));
	return 0;
}

/* For each prefix of a path. */
static long rules_probe_level(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u32 which = work->scan_which & 1;

	if (index >= work->levels[which])
		return 1;
	rules_probe(walk, rules_tag(work, RULES_KEY_EXECUTABLE_PATH + which,
				    work->level[which][index & (RULES_LEVELS - 1)], 0));
	return 0;
}

/* Whether a word has a slash in some byte. */
static __always_inline int rules_has_slash(__u64 word)
{
	word ^= 0x2f2f2f2f2f2f2f2fULL;
	return ((word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL) != 0;
}

/* Eight bytes of a path: hashes each prefix that ends in front of one of them. */
static long rules_hash_word(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u32 which = work->scan_which & 1, at = index * sizeof(__u64);
	__u32 left = work->scan_length - at, place, count;
	__u64 word = rules_word(walk->record, work->scan_at + at), hash = work->scan_hash;
	__u64 ends = word;

	if (left < sizeof(__u64)) {
		word &= rules_below(left);
		/* The whole path is a prefix of itself, as if a slash came behind it. */
		ends = word | (__u64)'/' << (left & 7) * 8;
	}
	if (rules_has_slash(ends)) {
#pragma clang loop unroll(full)
		for (place = 0; place < sizeof(__u64); place++) {
			if ((ends >> place * 8 & 0xff) != '/')
				continue;
			count = work->levels[which];
			barrier_var(count);
			if (count >= RULES_LEVELS)
				return 1;
			work->level[which][count] =
				rules_mix(rules_mix(hash, word & rules_below(place)), at + place);
			work->levels[which] = count + 1;
		}
	}
	work->scan_hash = rules_mix(hash, word);
	return 0;
}

/* Hashes the prefixes of a path, 0 for the executable's, 1 for the file's, once for all clients. */
__noinline int rules_hash_path(struct rules_record *record, struct rules_work *work, __u32 which)
{
	struct rules_walk walk = {.record = record, .work = work};
	__u32 length;

	if (!record || !work)
		return 0;
	barrier_var(which);
	which &= 1;
	if (work->hashed & 1U << which)
		return 0;
	work->hashed |= 1U << which;
	work->levels[which] = 0;
	length = work->path_length[which];
	if (!length)
		return 0;
	work->scan_which = which;
	work->scan_at = work->path_at[which];
	work->scan_length = length;
	work->scan_hash = work->seed;
	if (length > RULES_PREFIX)
		length = RULES_PREFIX;
	bpf_loop(length / sizeof(__u64) + 1, rules_hash_word, &walk, 0);
	return 0;
}

static long rules_hash_name_word(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u32 at = index * sizeof(__u64), left = work->name_length - at;

	work->scan_hash = rules_mix(work->scan_hash, rules_word(walk->record, work->name_at + at) &
							     rules_below(left));
	return 0;
}

/* The name as a key; one that no rule can have is none. */
__noinline int rules_hash_name(struct rules_record *record, struct rules_work *work)
{
	struct rules_walk walk = {.record = record, .work = work};
	__u32 length;

	if (!record || !work)
		return 0;
	length = work->name_length;
	if (work->present & 1ULL << RULES_KEY_NAME || !length || length > RULES_NAME)
		return 0;
	work->scan_hash = work->seed;
	bpf_loop(length / sizeof(__u64) + 1, rules_hash_name_word, &walk, 0);
	rules_set_fact(work, RULES_KEY_NAME, rules_mix(work->scan_hash, length), 0);
	return 0;
}

/* --- collections ----------------------------------------------------------------------------- */

/* One cell of a collection: 1 ends the search. */
static long rules_collection_cell(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u32 which = work->scan_which & 1, at = work->scan_at + index;
	__u64 *digest = work->digest[which], *words;

	/* At most as many probes as cells, so it wraps round once. */
	if (at >= work->scan_limit)
		at -= work->scan_limit;
	words = rules_cell(walk, at + 1);
	if (!words)
		return 1;
	if ((words[0] == digest[0] && words[1] == digest[1] && words[2] == digest[2] &&
	     words[3] == digest[3]) ||
	    (words[4] == digest[0] && words[5] == digest[1] && words[6] == digest[2] &&
	     words[7] == digest[3])) {
		work->any = 1;
		return 1;
	}
	/* Cells are filled in order, so what is not in one that has place is nowhere. Digests are
	 * sorted before, so one that is zero itself is the first of its cell. */
	return !(words[4] | words[5] | words[6] | words[7]);
}

/* Each collection that is asked for a digest: its bit is in scan. */
static long rules_check_collection(__u32 index, struct rules_walk *outer)
{
	struct rules_work *work = outer->work;
	__u32 which = work->scan_which & 1, number, slot;
	struct rules_walk walk = {.work = work};
	struct rules_collection *header;
	__u64 scan = work->scan, hash;
	__u32 probes;

	if (!scan)
		return 1;
	work->scan = scan & (scan - 1);
	number = rules_lowest(scan);
	slot = work->slot * RULES_COLLECTIONS + number;
	walk.cells = bpf_map_lookup_elem(&rules_collections, &slot);
	if (!walk.cells)
		return 0;
	header = rules_cell(&walk, 0);
	if (!header || header->algorithm != work->algorithm[which] || !header->buckets)
		return 0;
	hash = rules_mix(rules_mix(header->salt, work->digest[which][0]), work->digest[which][1]);
	work->scan_at = hash % header->buckets;
	work->scan_limit = header->buckets;
	work->any = 0;
	probes = header->probes;
	if (probes > RULES_COLLECTION_PROBES)
		probes = RULES_COLLECTION_PROBES;
	bpf_loop(probes, rules_collection_cell, &walk, 0);
	if (work->any)
		work->found[which] |= 1ULL << (number & 63);
	return 0;
}

/* Which of some collections of this client hold the digest of a file. */
__noinline int rules_look_up_digest(struct rules_work *work, __u32 which, __u64 wanted)
{
	struct rules_walk walk = {.work = work};

	if (!work)
		return 0;
	barrier_var(which);
	which &= 1;
	work->found[which] = 0;
	if (!wanted || !work->algorithm[which])
		return 0;
	work->scan_which = which;
	work->scan = wanted;
	bpf_loop(RULES_COLLECTIONS, rules_check_collection, &walk, 0);
	return 0;
}

#endif
