/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps that rules are in. rules.bpf.c makes them; every other object that decides by rules is
 * given the same ones as it is loaded (crates/probes/src/rules/).
 */
#ifndef RINGFENCE_RULES_MAPS_H
#define RINGFENCE_RULES_MAPS_H

#include "rules_abi.h"

/* enum bpf_map_type and flags of maps, include/uapi/linux/bpf.h. */
#define RULES_MAP_ARRAY		2
#define RULES_MAP_ARRAY_OF_MAPS 12
#define RULES_MAP_TASK_STORAGE	29
#define RULES_MAP_NO_PREALLOC	(1U << 0)
#define RULES_MAP_MMAPABLE	(1U << 10)
/* An array of another length can take its place in an outer map: since 5.10 (4a8f87e60f6d "bpf:
 * Allow for map-in-map with dynamic inner array map entries"). */
#define RULES_MAP_INNER (1U << 12)

/* A set, or a collection. */
struct rules_cells {
	__uint(type, RULES_MAP_ARRAY);
	__uint(map_flags, RULES_MAP_MMAPABLE | RULES_MAP_INNER);
	__uint(max_entries, 1);
	/* By sizes, because clang leaves out of the BTF what only the values of an outer map name.
	 */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, RULES_CELL);
};

/* By slot of the client. */
struct {
	__uint(type, RULES_MAP_ARRAY_OF_MAPS);
	__uint(max_entries, RULES_CLIENTS);
	__type(key, __u32);
	__array(values, struct rules_cells);
} rules_sets SEC(".maps");

/* By slot of the client times RULES_COLLECTIONS plus number of the collection. */
struct {
	__uint(type, RULES_MAP_ARRAY_OF_MAPS);
	__uint(max_entries, RULES_CLIENTS *RULES_COLLECTIONS);
	__type(key, __u32);
	__array(values, struct rules_cells);
} rules_collections SEC(".maps");

struct {
	__uint(type, RULES_MAP_ARRAY);
	__uint(map_flags, RULES_MAP_MMAPABLE);
	__uint(max_entries, RINGFENCE_TYPES);
	__type(key, __u32);
	__type(value, struct rules_event);
} rules_events SEC(".maps");

struct {
	__uint(type, RULES_MAP_TASK_STORAGE);
	__uint(map_flags, RULES_MAP_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rules_lineage);
} rules_lineages SEC(".maps");

#endif
