/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What rules ask of a record, taken out of it once for all clients.
 *
 * After this a condition is a comparison with a number at a fixed place, and a key is a hash of it.
 * Paths are not copied: their prefixes are hashed once, those of each client's rules are found by
 * the hash and held against the record itself.
 */
#ifndef RINGFENCE_RULES_FACTS_H
#define RINGFENCE_RULES_FACTS_H

#include "rules_abi.h"

/* Lists of rules that one event can find for one client: all its keys at once. */
#define RULES_LISTS 256
/* The own part of a record begins no later, in bytes. */
#define RULES_BODY_MAX 1024

/* A record in a buffer, of which every byte can be read. */
struct rules_record {
	__u8 bytes[RINGFENCE_RECORD_MAX];
};

/* What the rules of all clients say. */
struct rules_outcome {
	/* errno for the caller, and which rule of which client it is of; 0: nobody denies. */
	__u32 error;
	__u32 client;
	__u32 rule;
	__u32 reserved;
	/* Clients that are told because of a rule, that denied, that allowed. */
	__u64 told;
	__u64 denied;
	__u64 allowed;
	/* For header.rule of the record of each client. */
	__u32 rules[RULES_CLIENTS];
};

struct rules_list {
	__u32 first;
	__u16 deciding;
	__u16 telling;
};

/*
 * Memory to decide in, one for each event that is decided at a time: it belongs into the buffer
 * that the record is in. It need not be cleared.
 */
struct rules_work {
	/* Set by the caller: what the actor descends from (rules_descent()). */
	__u64 lineage;
	/* Set by the caller: not 0 where the event can only be observed. Nothing is denied then,
	 * and who would have denied is told. */
	__u32 observed;
	__u32 type;

	struct rules_outcome outcome;

	/* --- what follows is of rules_decide() alone ---------------------------------------- */

	/* By RULES_KEY_, where present has the bit: what rules are found by. */
	__u64 present;
	__u64 first[32];
	__u64 second[32];
	/* Of the executable and the file. */
	__u64 version[2];
	__u64 digest[2][4];
	__u32 algorithm[2];
	__u32 path_at[2];
	/* 0: the path is not known. */
	__u32 path_length[2];
	/* By RULES_MASK_ */
	__u32 masks[8];
	__u32 name_at;
	__u32 name_length;
	__u64 seed;
	/* Hashes of the prefixes of both paths; hashed says whether they are there yet. */
	__u32 hashed;
	__u32 levels[2];
	__u32 reserved;
	__u64 level[2][RULES_LEVELS];

	/* Clients still to be gone through, and which it is now. */
	__u64 pending;
	__u32 slot;
	/* From the set's header. */
	__u32 index_at;
	__u32 index_mask;
	__u32 index_probes;
	__u32 lists_at;
	__u32 rules_at;
	__u32 counters_at;
	__u32 counters_each;
	__u32 shards;
	__u32 keys;
	__u64 salt;
	/* Collections of this client that the digests of both files are in. */
	__u64 found[2];

	/* Scratch of the loops. */
	__u64 scan;
	__u64 scan_hash;
	__u32 scan_which;
	__u32 scan_at;
	__u32 scan_length;
	__u32 scan_limit;

	__u32 lists_count;
	__u32 list;
	__u32 item;
	/* 0: rules that decide; 1: rules that tell. */
	__u32 pass;
	/* Number of the first rule that decides, and that tells; RULES_NONE. */
	__u32 decided;
	__u32 told;
	/* Of the rule that is verified. */
	__u32 conditions_at;
	__u32 any;
	__u32 failed;
	__u32 reserved2;
	struct rules_list lists[RULES_LISTS];
};

#define RULES_NONE 0xffffffffU

/* --- hashes: crates/rules/src/hash.rs -------------------------------------------------------- */

static __always_inline __u64 rules_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u64 rules_tag(const struct rules_work *work, __u32 kind, __u64 first,
				       __u64 second)
{
	__u64 hash = rules_mix(work->seed, kind | (__u64)work->type << 8);

	hash = rules_mix(rules_mix(hash, first), second);
	return hash ? hash : 1;
}

/* --- reading the record ---------------------------------------------------------------------- */

static __always_inline __u16 rules_u16(const struct rules_record *record, __u32 at)
{
	barrier_var(at);
	return at > sizeof(*record) - sizeof(__u16) ? 0 : *(__u16 *)(record->bytes + at);
}

static __always_inline __u32 rules_u32(const struct rules_record *record, __u32 at)
{
	barrier_var(at);
	return at > sizeof(*record) - sizeof(__u32) ? 0 : *(__u32 *)(record->bytes + at);
}

static __always_inline __u64 rules_u64(const struct rules_record *record, __u32 at)
{
	barrier_var(at);
	return at > sizeof(*record) - sizeof(__u64) ? 0 : *(__u64 *)(record->bytes + at);
}

/* Eight bytes of a string, filled up with zeroes where the buffer ends. */
static __always_inline __u64 rules_word(const struct rules_record *record, __u32 at)
{
	__u32 last = sizeof(*record) - sizeof(__u64), beyond = 0;

	if (at > last) {
		beyond = at - last;
		at = last;
	}
	return beyond > 7 ? 0 : rules_u64(record, at) >> (beyond & 7) * 8;
}

/* The bits of a word below a byte. */
static __always_inline __u64 rules_below(__u32 bytes)
{
	return bytes > 7 ? ~0ULL : (1ULL << (bytes & 7) * 8) - 1;
}

/* --- where things are: crates/rules/src/events.rs -------------------------------------------- */

#define RULES_ABSENT 0xff

/* Offsets in the own part of a type, in bytes; RULES_ABSENT where it has no such thing. */
struct rules_shape {
	/* Of the own part; 0: no rules can be for this type. */
	__u8 size;
	__u8 file;
	__u8 target;
	__u8 own;
	__u8 protection;
	__u8 before;
	__u8 flags;
	__u8 name;
};

#define RULES_AT(part, field) __builtin_offsetof(struct ringfence_##part, field)
#define RULES_OF(part, _file, _target, _own, _protection, _before, _flags, _name)                  \
	{                                                                                          \
		.size = sizeof(struct ringfence_##part), .file = _file, .target = _target,         \
		.own = _own, .protection = _protection, .before = _before, .flags = _flags,        \
		.name = _name,                                                                     \
	}
#define NO RULES_ABSENT

static const struct rules_shape rules_shapes[RINGFENCE_TYPES] = {
	[RINGFENCE_PROCESS_EXEC] = RULES_OF(process_exec, RULES_AT(process_exec, file), NO, NO, NO,
					    NO, RULES_AT(process_exec, flags), NO),
	[RINGFENCE_PROCESS_FORK] =
		RULES_OF(process_fork, NO, RULES_AT(process_fork, child), NO, NO, NO, NO, NO),
	[RINGFENCE_PROCESS_EXIT] = RULES_OF(process_exit, NO, NO, NO, NO, NO, NO, NO),
	[RINGFENCE_PROCESS_SIGNAL] = RULES_OF(process_signal, RULES_AT(process_signal, executable),
					      RULES_AT(process_signal, target),
					      RULES_AT(process_signal, signal), NO, NO, NO, NO),
	[RINGFENCE_PROCESS_TRACE] = RULES_OF(process_trace, RULES_AT(process_trace, executable),
					     RULES_AT(process_trace, target),
					     RULES_AT(process_trace, access), NO, NO, NO, NO),
	[RINGFENCE_PROCESS_CREDENTIALS] = RULES_OF(
		process_credentials, NO, NO, RULES_AT(process_credentials, by), NO, NO, NO, NO),
	[RINGFENCE_THREAD_CREATE] =
		RULES_OF(process_fork, NO, RULES_AT(process_fork, child), NO, NO, NO, NO, NO),
	[RINGFENCE_IMAGE_MAP] =
		RULES_OF(image_map, RULES_AT(image_map, file), NO, NO,
			 RULES_AT(image_map, protection), NO, RULES_AT(image_map, flags), NO),
	[RINGFENCE_MODULE_LOAD] =
		RULES_OF(module_load, RULES_AT(module_load, file), NO, RULES_AT(module_load, from),
			 NO, NO, NO, RULES_AT(module_load, name)),
	[RINGFENCE_MODULE_UNLOAD] =
		RULES_OF(module_unload, NO, NO, NO, NO, NO, NO, RULES_AT(module_unload, name)),
	[RINGFENCE_BPF_LOAD] =
		RULES_OF(bpf_load, NO, NO, RULES_AT(bpf_load, program_type), NO, NO, NO, NO),
	[RINGFENCE_KEXEC_LOAD] =
		RULES_OF(kernel_load, RULES_AT(kernel_load, file), NO, RULES_AT(kernel_load, from),
			 NO, NO, NO, RULES_AT(kernel_load, name)),
	[RINGFENCE_FIRMWARE_LOAD] =
		RULES_OF(kernel_load, RULES_AT(kernel_load, file), NO, RULES_AT(kernel_load, from),
			 NO, NO, NO, RULES_AT(kernel_load, name)),
	[RINGFENCE_MEMORY_MAP] =
		RULES_OF(memory_map, RULES_AT(memory_map, file), NO, NO,
			 RULES_AT(memory_map, protection), NO, RULES_AT(memory_map, flags), NO),
	[RINGFENCE_MEMORY_PROTECT] =
		RULES_OF(memory_protect, RULES_AT(memory_protect, file), NO, NO,
			 RULES_AT(memory_protect, after), RULES_AT(memory_protect, before), NO, NO),
	[RINGFENCE_MEMORY_ACCESS] = RULES_OF(memory_access, RULES_AT(memory_access, executable),
					     RULES_AT(memory_access, target),
					     RULES_AT(memory_access, access), NO, NO, NO, NO),
	[RINGFENCE_MEMORY_FILELESS] = RULES_OF(memory_fileless, RULES_AT(memory_fileless, file), NO,
					       RULES_AT(memory_fileless, how), NO, NO, NO, NO),
	[RINGFENCE_FILE_OPEN] =
		RULES_OF(file_open, RULES_AT(file_open, file), NO, NO, RULES_AT(file_open, access),
			 NO, RULES_AT(file_open, flags), NO),
	[RINGFENCE_FILE_MODIFY] =
		RULES_OF(file_modify, RULES_AT(file_modify, file), NO, RULES_AT(file_modify, how),
			 NO, NO, RULES_AT(file_modify, flags), NO),
};

#undef NO

/* --- taking out ------------------------------------------------------------------------------ */

static __always_inline void rules_set_fact(struct rules_work *work, __u32 kind, __u64 first,
					   __u64 second)
{
	work->first[kind] = first;
	work->second[kind] = second;
	work->present |= 1ULL << kind;
}

/* A string that is known: its length, else 0. */
static __always_inline __u32 rules_string(const struct rules_record *record, __u32 size, __u32 at,
					  __u32 *offset)
{
	__u32 length = rules_u16(record, at + __builtin_offsetof(struct ringfence_string, length));
	__u32 flags = rules_u16(record, at + __builtin_offsetof(struct ringfence_string, flags));

	*offset = rules_u32(record, at);
	if (flags & (RINGFENCE_STRING_TRUNCATED | RINGFENCE_STRING_UNREACHABLE))
		return 0;
	/* Not offset + length, which can wrap round. */
	if (length > size || *offset > size - length)
		return 0;
	return length;
}

/* The file at an offset: `which` is 0 for the executable, 1 for what the event is about. */
static __always_inline void rules_file(const struct rules_record *record, struct rules_work *work,
				       __u32 size, __u32 which, __u32 at)
{
	__u32 offset = 0, word;

	rules_set_fact(work, which ? RULES_KEY_FILE : RULES_KEY_EXECUTABLE,
		       rules_u64(record, at + RULES_AT(file, device)),
		       rules_u64(record, at + RULES_AT(file, inode)));
	work->version[which] = rules_u64(record, at + RULES_AT(file, version));
	work->algorithm[which] = rules_u32(record, at + RULES_AT(file, digest_algorithm));
	for (word = 0; word < 4; word++)
		work->digest[which][word] =
			rules_u64(record, at + RULES_AT(file, digest) + word * sizeof(__u64));
	work->masks[which ? RULES_MASK_FILE_FLAGS : RULES_MASK_EXECUTABLE_FLAGS] =
		rules_u32(record, at + RULES_AT(file, flags));
	work->path_length[which] = rules_string(record, size, at + RULES_AT(file, path), &offset);
	work->path_at[which] = offset;
}

#define RULES_ACTOR(field) (sizeof(struct ringfence_header) + RULES_AT(actor, field))
#define RULES_NUMBER(kind, field)                                                                  \
	rules_set_fact(work, RULES_KEY_##kind, rules_u32(record, RULES_ACTOR(field)), 0)

static __always_inline __u32 rules_bits(const struct rules_record *record, __u32 body, __u8 at)
{
	return at == RULES_ABSENT ? 0 : rules_u32(record, body + at);
}

/* Takes out what rules ask of a record. 0: it is none that rules can be for. */
static __always_inline int rules_take_facts(const struct rules_record *record,
					    struct rules_work *work, __u32 type)
{
	const struct rules_shape *shape = &rules_shapes[type & (RINGFENCE_TYPES - 1)];
	__u32 size = rules_u32(record, __builtin_offsetof(struct ringfence_header, size));
	__u32 body = rules_u16(record, __builtin_offsetof(struct ringfence_header, body));

	if (type >= RINGFENCE_TYPES || !shape->size || size > sizeof(*record) ||
	    body < sizeof(struct ringfence_header) + sizeof(struct ringfence_actor) ||
	    body > RULES_BODY_MAX || body + shape->size > size)
		return 0;
	work->present = 0;
	work->hashed = 0;
	work->path_length[1] = 0;
	work->algorithm[1] = 0;
	work->name_length = 0;
	work->masks[RULES_MASK_FILE_FLAGS] = 0;
	rules_set_fact(work, RULES_KEY_ACTOR,
		       rules_u32(record, RULES_ACTOR(process) + RULES_AT(process_key, pid)),
		       rules_u64(record, RULES_ACTOR(process) + RULES_AT(process_key, start)));
	RULES_NUMBER(UID, uid);
	RULES_NUMBER(EUID, euid);
	RULES_NUMBER(GID, gid);
	RULES_NUMBER(EGID, egid);
	RULES_NUMBER(USER_NAMESPACE, user_namespace);
	RULES_NUMBER(PID_NAMESPACE, pid_namespace);
	RULES_NUMBER(MOUNT_NAMESPACE, mount_namespace);
	RULES_NUMBER(NET_NAMESPACE, net_namespace);
	rules_set_fact(work, RULES_KEY_CGROUP, rules_u64(record, RULES_ACTOR(cgroup)), 0);
	rules_file(record, work, size, 0, RULES_ACTOR(executable));
	if (shape->file != RULES_ABSENT)
		rules_file(record, work, size, 1, body + shape->file);
	if (shape->target != RULES_ABSENT)
		rules_set_fact(
			work, RULES_KEY_TARGET,
			rules_u32(record, body + shape->target + RULES_AT(process_key, pid)),
			rules_u64(record, body + shape->target + RULES_AT(process_key, start)));
	if (shape->own != RULES_ABSENT)
		rules_set_fact(work, RULES_KEY_OWN, rules_u32(record, body + shape->own), 0);
	if (shape->name != RULES_ABSENT) {
		__u32 offset = 0;

		work->name_length = rules_string(record, size, body + shape->name, &offset);
		work->name_at = offset;
	}
	work->masks[RULES_MASK_PROTECTION] = rules_bits(record, body, shape->protection);
	work->masks[RULES_MASK_BEFORE] = rules_bits(record, body, shape->before);
	work->masks[RULES_MASK_FLAGS] = rules_bits(record, body, shape->flags);
	work->masks[RULES_MASK_RECORD] =
		rules_u32(record, __builtin_offsetof(struct ringfence_header, flags));
	return 1;
}

#endif
