/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How a compiled set of rules and a collection of digests lie in their maps. crates/rules writes
 * them, rules.h reads them; a test proves both equal by the BTF of the built object
 * (crates/probes/src/rules/layout.rs).
 *
 * A set is one array map of cells of 64 bytes: one map, so that one update of the outer map swaps
 * all of it. In order:
 *   cell 0              struct rules_set
 *   cells 1 to 64       struct rules_type, by type of event
 *   index_at            struct rules_entry, four in a cell: a hash table, probed cell by cell
 *   lists_at            numbers of rules (__u32), sixteen in a cell
 *   rules_at            struct rules_rule, by its number, which is its place in the client's order
 *   then                struct rules_condition and the bytes of strings
 *   counters_at         struct rules_counter, four in a cell, for each shard
 *
 * A collection is one array map of such cells: cell 0 is struct rules_collection, each further one
 * holds two digests.
 */
#ifndef RINGFENCE_RULES_ABI_H
#define RINGFENCE_RULES_ABI_H

#define RULES_VERSION 1
/* Bytes of a cell. */
#define RULES_CELL 64
/* Clients are slots, 0 to 63. */
#define RULES_CLIENTS 64
/* Of each client. */
#define RULES_COLLECTIONS 16
/* Processes whose descendants are told apart, of all clients together. */
#define RULES_ROOTS 64

/* Cells of the index, from the one that a tag falls on, that can hold its entry. */
#define RULES_PROBES 8
/* Cells of a collection, from the one that a digest falls on, that can hold it. */
#define RULES_COLLECTION_PROBES 32
/* Rules that one event can have to look at, for one client. */
#define RULES_CANDIDATES 4096
/* Cells of conditions of one rule. */
#define RULES_CONDITIONS 64
/* Longest path prefix, in bytes, and in components. */
#define RULES_PREFIX 1024
#define RULES_LEVELS 64
/* Longest name, in bytes: what fits into a condition. */
#define RULES_NAME 56

struct rules_set {
	/* RULES_VERSION */
	__u32 version;
	__u32 cells;
	__u32 rules;
	/* Cells where the parts begin. */
	__u32 index_at;
	__u32 lists_at;
	__u32 rules_at;
	__u32 counters_at;
	/* Sets of counters, a power of two: a processor uses the one of its number. */
	__u32 shards;
	/* Number of the index' cells, a power of two, less one. */
	__u32 index_mask;
	/* How many cells have to be looked at; at most RULES_PROBES. */
	__u32 index_probes;
	/* Which tags share a cell. */
	__u64 index_salt;
	__u64 reserved[2];
};

struct rules_type {
	/* Bits by RULES_KEY_: by what rules for this type are found. */
	__u32 keys;
	/* Bits by number of the collection: which are asked for the digest of the executable, and
	 * of the file. */
	__u16 actor_collections;
	__u16 file_collections;
	/* Bits by number of the root that rules are found by. */
	__u64 lineage;
	/* The rules that are found by nothing: their list, as in struct rules_entry. */
	__u32 first;
	__u16 deciding;
	__u16 telling;
	/* Not zero: some rule for this type tells. */
	__u32 tells;
	__u32 reserved;
	__u64 reserved2[4];
};

/* A list of rules. */
struct rules_entry {
	/* Hash of the key; 0: nothing here, nor behind. */
	__u64 tag;
	/* Its first number, counted from lists_at. */
	__u32 first;
	/* How many rules that allow or deny, in order; then as many that tell. */
	__u16 deciding;
	__u16 telling;
};

struct rules_rule {
	/* Bits by type of event. */
	__u64 events;
	/* The client's own number. */
	__u32 id;
	/* Cell of its first condition. */
	__u32 conditions_at;
	__u16 conditions;
	/* errno of a denial. */
	__u16 error;
	/* RULES_ACTION_ */
	__u8 action;
	/* 1: counts and tells only. */
	__u8 dry_run;
	__u16 reserved;
	__u64 reserved2[5];
};

#define RULES_ACTION_ALLOW  1
#define RULES_ACTION_DENY   2
#define RULES_ACTION_NOTIFY 3

struct rules_condition {
	/* RULES_KEY_ or RULES_MASK, RULES_PATH_UNKNOWN */
	__u8 kind;
	/* RULES_CONDITION_ */
	__u8 flags;
	/* Numbers in values; length of a path or a name in bytes; RULES_MASK_ of a mask. */
	__u16 count;
	/* Cell of a path's first bytes. */
	__u32 string_at;
	/* Numbers; pid and start; device, inode and version; the bits of a mask; a name. */
	__u64 values[7];
};

/* The next condition is an alternative to this one. */
#define RULES_CONDITION_OR 0x1
/* Of a mask: all bits must be set, not just one. */
#define RULES_CONDITION_ALL 0x2
/* Of a file: its version counts too. */
#define RULES_CONDITION_VERSION 0x4

/* What a rule can be found by; each is a condition too. */
#define RULES_KEY_ALWAYS	  0
#define RULES_KEY_ACTOR		  1
#define RULES_KEY_EXECUTABLE	  2
#define RULES_KEY_FILE		  3
#define RULES_KEY_TARGET	  4
#define RULES_KEY_UID		  5
#define RULES_KEY_EUID		  6
#define RULES_KEY_GID		  7
#define RULES_KEY_EGID		  8
#define RULES_KEY_CGROUP	  9
#define RULES_KEY_USER_NAMESPACE  10
#define RULES_KEY_PID_NAMESPACE	  11
#define RULES_KEY_MOUNT_NAMESPACE 12
#define RULES_KEY_NET_NAMESPACE	  13
#define RULES_KEY_OWN		  14
#define RULES_KEY_NAME		  15
/* Those above have one value in each event. Those below have several. */
#define RULES_KEYS_SINGLE	    16
#define RULES_KEY_LINEAGE	    16
#define RULES_KEY_EXECUTABLE_PATH   17
#define RULES_KEY_FILE_PATH	    18
#define RULES_KEY_EXECUTABLE_DIGEST 19
#define RULES_KEY_FILE_DIGEST	    20
/* Conditions that nothing is found by. */
#define RULES_MASK		      21
#define RULES_EXECUTABLE_PATH_UNKNOWN 22
#define RULES_FILE_PATH_UNKNOWN	      23

/* What a mask is held against. */
#define RULES_MASK_PROTECTION	    0
#define RULES_MASK_BEFORE	    1
#define RULES_MASK_FLAGS	    2
#define RULES_MASK_RECORD	    3
#define RULES_MASK_EXECUTABLE_FLAGS 4
#define RULES_MASK_FILE_FLAGS	    5
#define RULES_MASKS		    6

struct rules_counter {
	__u64 matches;
	__u64 denies;
};

struct rules_collection {
	__u32 version;
	/* RINGFENCE_DIGEST_ */
	__u32 algorithm;
	/* Cells with digests, from cell 1 on, and how many of them have to be looked at. */
	__u32 buckets;
	__u32 probes;
	__u64 salt;
	/* Digests. */
	__u64 count;
	__u64 reserved[4];
};

/* By type of event, in the map rules_events. */
struct rules_event {
	/* Clients that have rules for it; may have more. */
	__u64 clients;
	/* Of the hashes, the same for all types and sets until the next boot. */
	__u64 seed;
};

/* In the storage of a task, in the map rules_lineages. */
struct rules_lineage {
	/* Bits by number of the root that it descends from. */
	__u64 ancestors;
	/* Bits by number of the root that its process is. */
	__u64 roots;
};

/* Which root all tasks are to be marked with, in the map rules_marking. */
struct rules_marking {
	__u32 pid;
	/* Its number. */
	__u32 root;
	__u64 start;
	/* 1: its bit is to be taken away instead. */
	__u32 clear;
	__u32 reserved;
};

#endif
