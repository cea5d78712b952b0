/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rules that clients installed, decided in the kernel on the record that is being built.
 *
 * What. rules_decide(record, work, type) goes through the sets of all clients that have rules for
 * the type and says what comes of it (struct rules_outcome); docs/rules.md has the meaning, and
 * crates/rules/src/evaluate.rs says it in a page of Rust that this is tested against.
 *
 * How. A client can have ten thousand rules, so they are not gone through. Each rule is found by
 * one of its conditions, the one that the fewest others of its set share (chosen as the set is
 * compiled: crates/rules/src/index.rs). An event makes one look-up for each kind of key that the
 * set uses: one for an id, one for each prefix of a path, one for each bit of its ancestry. Each
 * gives a short list of rules in the client's order; the other conditions of each are verified, and
 * so is the key itself, so a hash decides who is looked at and never who matches. A rule behind one
 * that has decided already is not looked at. Rules that tell are in lists of their own and go
 * second, when it is known which rule decided: so they are told and counted exactly as if all had
 * been gone through in order. What is asked of the record is taken out of it once for all clients
 * (rules_facts.h), and the prefixes of its paths are hashed once, eight bytes at a time.
 *
 * One map for each set. A set with its index, lists, rules, strings and counters is one array map,
 * and the maps of all clients are in an outer map. Replacing a set is one update of the outer map:
 * an event takes the inner map once and keeps to it, so it sees the old set or the new one. The
 * kernel frees the old one when nobody is in it any more (876673364161 "bpf: Defer the free of
 * inner map when necessary", 6.8 and ported back). Collections are such maps too, and each event
 * looks once into each that a rule asks about.
 *
 * Ancestry is a mark in the storage of each task, inherited as a task is made (rules.bpf.c).
 *
 * Limits. RULES_CANDIDATES rules verified for one event and client, worked out as a set is
 * compiled: a set that could need more is refused, so there is no giving up here. 1024 bytes and 64
 * levels of a path. 64 clients, 16 collections of each, 64 processes whose descendants are told
 * apart.
 *
 * Ways rejected.
 *  - The kernel's hash maps as index: an update for each rule, so two generations would have to be
 *    told apart in each key; a jhash of 24 bytes for each look-up, where here a multiplication and
 * one read do; four times the memory for a million digests.
 *  - LPM tries for paths: not in sleepable programs (kernel/bpf/verifier.c,
 *    check_map_prog_compatibility), one long prefix hides the shorter ones, and keys end at 256.
 *  - One index for all clients: no client could be replaced without the others, and each list would
 *    have to be told apart by client.
 *  - Walking real_parent for ancestry: a process whose parent ends is given another, so whoever
 * forks twice would be out of every rule.
 *  - Conditions compiled to BPF programs: a verifier run for each set, and privileged code
 *    out of what clients write.
 *
 * State is in struct rules_work and not on the stack: there are 512 bytes of that for all functions
 * together, and loops whose state the verifier cannot follow are the ones that it accepts on each
 * version. Callbacks get a struct of pointers, which never changes.
 */
#ifndef RINGFENCE_RULES_H
#define RINGFENCE_RULES_H

#include "rules_match.h"

/* Finds the lists of the set's rules that this event's keys lead to. */
static __always_inline void rules_find(struct rules_walk *walk, struct rules_type *type)
{
	struct rules_work *work = walk->work;
	__u32 keys = type->keys, which;
	__u64 lineage = type->lineage;

	work->lists_count = 0;
	if (type->deciding | type->telling)
		rules_add_list(work, type->first, type->deciding, type->telling);
	rules_look_up_digest(work, 0, type->actor_collections);
	rules_look_up_digest(work, 1, type->file_collections);
	if (keys & 1U << RULES_KEY_NAME)
		rules_hash_name(walk->record, work);
	work->scan = work->present & keys & ((1U << RULES_KEYS_SINGLE) - 1);
	if (work->scan)
		bpf_loop(RULES_KEYS_SINGLE, rules_probe_single, walk, 0);
	work->scan = keys & 1U << RULES_KEY_LINEAGE ? work->lineage & lineage : 0;
	if (work->scan) {
		work->scan_which = RULES_KEY_LINEAGE;
		bpf_loop(RULES_ROOTS, rules_probe_bit, walk, 0);
	}
#pragma clang loop unroll(disable)
	for (which = 0; which < 2; which++) {
		if (keys & 1U << (RULES_KEY_EXECUTABLE_PATH + which)) {
			rules_hash_path(walk->record, work, which);
			work->scan_which = which;
			bpf_loop(RULES_LEVELS, rules_probe_level, walk, 0);
		}
		work->scan = work->found[which];
		if (keys & 1U << (RULES_KEY_EXECUTABLE_DIGEST + which) && work->scan) {
			work->scan_which = RULES_KEY_EXECUTABLE_DIGEST + which;
			bpf_loop(RULES_COLLECTIONS, rules_probe_bit, walk, 0);
		}
	}
}

/* Takes what the rules of the client say into the outcome. */
static __always_inline void rules_conclude(struct rules_walk *walk)
{
	struct rules_work *work = walk->work;
	struct rules_outcome *outcome = &work->outcome;
	__u32 slot = work->slot & (RULES_CLIENTS - 1), decided = work->decided;
	__u64 bit = 1ULL << slot;
	struct rules_rule *rule;

	outcome->rules[slot] = 0;
	if (work->told != RULES_NONE) {
		outcome->told |= bit;
		rule = rules_cell(walk, work->rules_at + work->told);
		if (rule)
			outcome->rules[slot] = rule->id;
	}
	if (decided == RULES_NONE)
		return;
	rule = rules_cell(walk, work->rules_at + decided);
	if (!rule)
		return;
	if (rule->action == RULES_ACTION_DENY && !work->observed) {
		rules_count(walk, decided, 1);
		outcome->denied |= bit;
		outcome->rules[slot] = rule->id;
		if (!outcome->error) {
			outcome->error = rule->error;
			outcome->client = slot;
			outcome->rule = rule->id;
		}
		return;
	}
	rules_count(walk, decided, 0);
	if (rule->action == RULES_ACTION_DENY)
		outcome->told |= bit;
	else
		outcome->allowed |= bit;
	if (work->told == RULES_NONE)
		outcome->rules[slot] = rule->id;
}

/* The rules of all lists that decide (pass 0), or that tell (1). Not a loop over both: their state
 * is in work, where the verifier of 6.1 does not see that it changes. */
static __always_inline void rules_go_through(struct rules_walk *walk, __u32 pass)
{
	struct rules_work *work = walk->work;

	work->pass = pass;
	work->list = 0;
	work->item = 0;
	bpf_loop(RULES_CANDIDATES + RULES_LISTS, rules_candidate, walk, 0);
}

/* The set of the next client that has rules. */
static long rules_client(__u32 index, struct rules_walk *outer)
{
	struct rules_work *work = outer->work;
	struct rules_walk walk = {.record = outer->record, .work = work};
	__u64 pending = work->pending;
	struct rules_type *type;
	struct rules_set *set;
	__u32 slot;

	if (!pending)
		return 1;
	work->pending = pending & (pending - 1);
	slot = rules_lowest(pending);
	work->slot = slot;
	walk.cells = bpf_map_lookup_elem(&rules_sets, &slot);
	if (!walk.cells)
		return 0;
	set = rules_cell(&walk, 0);
	if (!set || set->version != RULES_VERSION)
		return 0;
	work->salt = set->index_salt;
	work->index_at = set->index_at;
	work->index_mask = set->index_mask;
	work->index_probes = set->index_probes;
	work->lists_at = set->lists_at;
	work->rules_at = set->rules_at;
	work->counters_at = set->counters_at;
	work->counters_each = (set->rules + 3) / 4;
	work->shards = set->shards;
	type = rules_cell(&walk, 1 + work->type);
	if (!type || !(type->keys | type->deciding | type->telling))
		return 0;
	rules_find(&walk, type);
	work->decided = RULES_NONE;
	work->told = RULES_NONE;
	if (!work->lists_count)
		return 0;
	rules_go_through(&walk, 0);
	if (type->tells)
		rules_go_through(&walk, 1);
	rules_conclude(&walk);
	return 0;
}

/*
 * Decides an event by the rules of all clients: fills work->outcome, writes outcome and error
 * into the record's header, and gives the errno for the caller, 0 if nobody denies. See
 * rules_for_client() for what differs from client to client. `work` has lineage and observed.
 */
__noinline int rules_decide(struct rules_record *record, struct rules_work *work, __u32 type)
{
	struct rules_walk walk = {.record = record, .work = work};
	struct ringfence_header *header = (void *)record;
	struct rules_event *event;

	if (!record || !work)
		return 0;
	work->outcome.error = 0;
	work->outcome.client = 0;
	work->outcome.rule = 0;
	work->outcome.told = 0;
	work->outcome.denied = 0;
	work->outcome.allowed = 0;
	event = bpf_map_lookup_elem(&rules_events, &type);
	if (!event)
		return 0;
	work->pending = event->clients;
	if (!work->pending)
		return 0;
	work->seed = event->seed;
	work->type = type;
	if (!rules_take_facts(record, work, type))
		return 0;
	bpf_loop(RULES_CLIENTS, rules_client, &walk, 0);
	if (work->outcome.error) {
		header->outcome = RINGFENCE_OUTCOME_DENIED;
		header->error = work->outcome.error;
	} else if (work->outcome.allowed) {
		header->outcome = RINGFENCE_OUTCOME_ALLOWED;
	}
	return work->outcome.error;
}

/* Clients that have rules for a type, or had them a moment ago: nobody, and no record need be
 * built. */
static __always_inline __u64 rules_wanted(__u32 type)
{
	struct rules_event *event = bpf_map_lookup_elem(&rules_events, &type);

	return event ? event->clients : 0;
}

/*
 * What a program on a hook returns for an errno, in the range that the verifier wants to see (-4095
 * to 0). A subtraction, because it knows nothing of a negated number until 6.18.
 */
static __always_inline int rules_result(__u64 error)
{
	__s64 result = 0;

	barrier_var(error);
	error &= 0xfff;
	barrier_var(result);
	result -= error;
	return result;
}

/* What the record of one client says of its rules, put into the header before it is sent there. */
static __always_inline void rules_for_client(struct ringfence_header *header,
					     const struct rules_outcome *outcome, __u32 slot)
{
	__u64 bit = 1ULL << (slot & (RULES_CLIENTS - 1));

	header->rule = (outcome->told | outcome->denied | outcome->allowed) & bit
			       ? outcome->rules[slot & (RULES_CLIENTS - 1)]
			       : 0;
	if (outcome->told & bit)
		header->classes |= RINGFENCE_CLASS_RULE;
}

/* Sets work->lineage: what the running task descends from. */
static __always_inline void rules_descent(struct rules_work *work)
{
	struct rules_lineage *lineage =
		bpf_task_storage_get(&rules_lineages, bpf_get_current_task_btf(), NULL, 0);

	work->lineage = lineage ? lineage->ancestors : 0;
}

#endif
