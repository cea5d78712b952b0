/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a rule that was found matches: each of its conditions, its key among them. Essay and
 * limits are in rules.h.
 */
#ifndef RINGFENCE_RULES_MATCH_H
#define RINGFENCE_RULES_MATCH_H

#include "rules_find.h"

/* Eight bytes of a prefix against the path. */
static long rules_prefix_word(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u32 at = index * sizeof(__u64), left = work->scan_length - at;
	__u64 *words = rules_cell(walk, work->scan_limit + index / 8), word;

	if (!left)
		return 1;
	word = rules_word(walk->record, work->scan_at + at);
	if (!words || words[index & 7] != (word & rules_below(left))) {
		work->failed = 1;
		return 1;
	}
	return 0;
}

static __noinline int rules_has_prefix(struct rules_walk *walk, __u32 which, __u32 length,
				       __u32 string_at)
{
	struct rules_work *work = walk->work;
	__u32 whole, at;

	barrier_var(which);
	which &= 1;
	whole = work->path_length[which];
	at = work->path_at[which];
	if (length > RULES_PREFIX || !whole || length > whole)
		return 0;
	if (length < whole && (rules_word(walk->record, at + length) & 0xff) != '/')
		return 0;
	work->scan_at = at;
	work->scan_length = length;
	work->scan_limit = string_at;
	work->failed = 0;
	bpf_loop(length / sizeof(__u64) + 1, rules_prefix_word, walk, 0);
	return !work->failed;
}

__noinline int rules_has_name(struct rules_record *record, struct rules_work *work,
			      struct rules_condition *condition)
{
	__u32 length, word, at;

	if (!record || !work || !condition)
		return 0;
	length = work->name_length;
	if (length != condition->count || length > RULES_NAME)
		return 0;
#pragma clang loop unroll(full)
	for (word = 0; word < RULES_NAME / sizeof(__u64); word++) {
		at = word * sizeof(__u64);
		if (at < length &&
		    condition->values[word] !=
			    (rules_word(record, work->name_at + at) & rules_below(length - at)))
			return 0;
	}
	return 1;
}

static __always_inline int rules_holds(struct rules_walk *walk, struct rules_condition *condition)
{
	struct rules_work *work = walk->work;
	__u32 kind = condition->kind, place, which;
	__u64 seen;

	switch (kind) {
	case RULES_KEY_ALWAYS:
		return 1;
	case RULES_KEY_EXECUTABLE:
	case RULES_KEY_FILE:
		which = kind == RULES_KEY_FILE;
		/* clang knows that it is 0 or 1 and leaves the mask out; 6.1 does not know. */
		barrier_var(which);
		if (condition->flags & RULES_CONDITION_VERSION &&
		    work->version[which & 1] != condition->values[2])
			return 0;
		/* Fall through. */
	case RULES_KEY_ACTOR:
	case RULES_KEY_TARGET:
		return work->present & 1ULL << kind && work->first[kind] == condition->values[0] &&
		       work->second[kind] == condition->values[1];
	case RULES_KEY_NAME:
		return rules_has_name(walk->record, work, condition);
	case RULES_KEY_LINEAGE:
		return (work->lineage & condition->values[0]) != 0;
	case RULES_KEY_EXECUTABLE_PATH:
	case RULES_KEY_FILE_PATH:
		return rules_has_prefix(walk, kind - RULES_KEY_EXECUTABLE_PATH, condition->count,
					condition->string_at);
	case RULES_KEY_EXECUTABLE_DIGEST:
		return (work->found[0] & condition->values[0]) != 0;
	case RULES_KEY_FILE_DIGEST:
		return (work->found[1] & condition->values[0]) != 0;
	case RULES_MASK:
		seen = work->masks[condition->count & 7] & condition->values[0];
		return condition->flags & RULES_CONDITION_ALL ? seen == condition->values[0]
							      : seen != 0;
	case RULES_EXECUTABLE_PATH_UNKNOWN:
		return !work->path_length[0];
	case RULES_FILE_PATH_UNKNOWN:
		return work->present & 1ULL << RULES_KEY_FILE && !work->path_length[1];
	}
	if (kind >= RULES_KEYS_SINGLE || !(work->present & 1ULL << kind))
		return 0;
	seen = work->first[kind];
#pragma clang loop unroll(full)
	for (place = 0; place < 7; place++) {
		if (place < condition->count && condition->values[place] == seen)
			return 1;
	}
	return 0;
}

/* One condition of a rule; alternatives stand one after the other. 1 ends the search. */
static long rules_check_condition(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	struct rules_condition *condition = rules_cell(walk, work->conditions_at + index);
	int holds;

	if (!condition) {
		work->any = 0;
		return 1;
	}
	/* `any` is 1 as long as no condition failed; with alternatives left it is 2 or 3, the
	 * lower bit saying whether one of them holds. */
	holds = work->any == 3 || rules_holds(walk, condition);
	if (condition->flags & RULES_CONDITION_OR) {
		work->any = holds ? 3 : 2;
		return 0;
	}
	work->any = holds;
	return !holds;
}

static __always_inline int rules_matches(struct rules_walk *walk, struct rules_rule *rule)
{
	struct rules_work *work = walk->work;
	__u32 conditions = rule->conditions;

	if (conditions > RULES_CONDITIONS)
		return 0;
	work->conditions_at = rule->conditions_at;
	work->any = 1;
	bpf_loop(conditions, rules_check_condition, walk, 0);
	return work->any == 1;
}

static __always_inline void rules_count(struct rules_walk *walk, __u32 number, int denies)
{
	struct rules_work *work = walk->work;
	__u32 shard = bpf_get_smp_processor_id() & (work->shards - 1);
	struct rules_counter *counters =
		rules_cell(walk, work->counters_at + shard * work->counters_each + number / 4);

	if (!counters)
		return;
	__sync_fetch_and_add(&counters[number & 3].matches, 1);
	if (denies)
		__sync_fetch_and_add(&counters[number & 3].denies, 1);
}

/* The next rule of the lists that were found. */
static long rules_candidate(__u32 index, struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	__u32 list = work->list, item = work->item, at, number, length;
	struct rules_list *found;
	struct rules_rule *rule;
	__u32 *numbers;

	barrier_var(list);
	if (list >= RULES_LISTS || list >= work->lists_count)
		return 1;
	found = &work->lists[list];
	length = work->pass ? found->telling : found->deciding;
	if (item >= length)
		goto next_list;
	at = found->first + item + (work->pass ? found->deciding : 0);
	numbers = rules_cell(walk, work->lists_at + at / 16);
	if (!numbers)
		goto next_list;
	number = numbers[at & 15];
	/* Lists are in order: all that follow are behind it too. */
	if (number >= work->decided)
		goto next_list;
	work->item = item + 1;
	rule = rules_cell(walk, work->rules_at + number);
	if (!rule || !rules_matches(walk, rule))
		return 0;
	if (!work->pass) {
		work->decided = number;
		goto next_list;
	}
	rules_count(walk, number, 0);
	if (number < work->told)
		work->told = number;
	return 0;
next_list:
	work->list = list + 1;
	work->item = 0;
	return 0;
}

#endif
