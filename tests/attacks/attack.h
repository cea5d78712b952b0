/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What all attack subjects share: they load in a virtual machine of the lab only, do what an
 * attacker does, and take it back after some seconds or when they are unloaded.
 *
 * A subject defines attack() and undo() and ends with ATTACK("what it does").
 */
#ifndef RINGFENCE_ATTACK_H
#define RINGFENCE_ATTACK_H

#include <linux/dmi.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <asm/desc.h>
#include <asm/io.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>

static int attack(void);
static void undo(void);
#ifdef ATTACK_PREPARES
/* What takes a file system: since 7.0 the roots of kernel threads are empty. */
static int prepare(void);
#endif

static unsigned int seconds = 60;
module_param(seconds, uint, 0444);
MODULE_PARM_DESC(seconds, "after how many seconds it is taken back");

/*
 * An attacker who is in the kernel already does not load a module for each thing that he does, and
 * a guard that looks when one is loaded must find him all the same.
 */
static unsigned int delay_ms;
module_param(delay_ms, uint, 0444);
MODULE_PARM_DESC(delay_ms, "how many milliseconds after loading it is carried out");

static bool attacking;
static DEFINE_MUTEX(attack_lock);

/*
 * The name under which QEMU introduces a machine of the lab (-smbios). Hardware is not called so,
 * and nobody calls it so by mistake.
 */
static bool in_the_lab(void)
{
	const char *vendor = dmi_get_system_info(DMI_SYS_VENDOR);
	const char *product = dmi_get_system_info(DMI_PRODUCT_NAME);

	return vendor && product && !strcmp(vendor, "Ringfence") &&
	       !strcmp(product, "ringfence-lab");
}

/*
 * kallsyms_lookup_name() is not exported since 5.7. A kprobe finds its address, as rootkits do.
 */
static unsigned long symbol(const char *name)
{
	static unsigned long (*lookup)(const char *name);
	unsigned long address;

	if (!lookup) {
		struct kprobe probe = {.symbol_name = "kallsyms_lookup_name"};
		u32 before;

		if (register_kprobe(&probe) < 0)
			return 0;
		address = (unsigned long)probe.addr;
		unregister_kprobe(&probe);
		/* With IBT the probe stands behind the ENDBR that an indirect call has to hit. */
		memcpy(&before, (void *)(address - 4), 4);
		if (before == 0xfa1e0ff3)
			address -= 4;
		lookup = (void *)address;
	}
	address = lookup(name);
	if (!address)
		pr_err("attack: this kernel has no %s\n", name);
	return address;
}

/* A function of the kernel that is not exported, as a pointer of the type of `as`. */
#define function(name, as) ((typeof(as) *)symbol(name))

/* Writes where memory is read-only, by taking write protection off this CPU for a moment. */
static void write_protected(void *to, const void *from, size_t length)
{
	unsigned long flags, cr0;

	local_irq_save(flags);
	asm volatile("mov %%cr0, %0" : "=r"(cr0));
	/* native_write_cr0() would pin the bit and put it back. */
	asm volatile("mov %0, %%cr0" : : "r"(cr0 & ~X86_CR0_WP) : "memory");
	memcpy(to, from, length);
	asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
	local_irq_restore(flags);
}

/* Behind an ENDBR, if the function begins with one. */
static inline void *behind_endbr(unsigned long address)
{
	return (void *)(address + (*(u32 *)address == 0xfa1e0ff3 ? 4 : 0));
}

/* Has this CPU forget how addresses are translated, for pages that all spaces share as well: by
 * taking CR4.PGE off for a moment. */
static void flush_translations(void *unused)
{
	unsigned long cr4;

	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	asm volatile("mov %0, %%cr4" : : "r"(cr4 & ~X86_CR4_PGE) : "memory");
	asm volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
}

static void take_back(struct work_struct *work)
{
	mutex_lock(&attack_lock);
	if (attacking) {
		undo();
		attacking = false;
		pr_info("attack: taken back\n");
	}
	mutex_unlock(&attack_lock);
}

static DECLARE_DELAYED_WORK(revert, take_back);

static int carry_out(void)
{
	int error;

	mutex_lock(&attack_lock);
	/* Milliseconds of the day, as the guard tells when it found something. */
	pr_info("attack: begins at %llu\n", ktime_get_real_ns() / NSEC_PER_MSEC % 86400000);
	error = attack();
	attacking = !error;
	mutex_unlock(&attack_lock);
	if (error)
		pr_err("attack: could not be carried out: %d\n", error);
	else
		schedule_delayed_work(&revert, seconds * HZ);
	return error;
}

static void carry_out_later(struct work_struct *work)
{
	carry_out();
}

static DECLARE_DELAYED_WORK(later, carry_out_later);

static int __init attack_init(void)
{
	if (!in_the_lab()) {
		pr_err("attack: this is no machine of the lab\n");
		return -EPERM;
	}
#ifdef ATTACK_PREPARES
	if (prepare())
		return -ENOENT;
#endif
	if (!delay_ms)
		return carry_out();
	schedule_delayed_work(&later, msecs_to_jiffies(delay_ms));
	return 0;
}

static void __exit attack_exit(void)
{
	cancel_delayed_work_sync(&later);
	cancel_delayed_work_sync(&revert);
	take_back(NULL);
}

#define ATTACK(what)                                                                               \
	module_init(attack_init);                                                                  \
	module_exit(attack_exit);                                                                  \
	MODULE_LICENSE("Dual BSD/GPL");                                                            \
	MODULE_DESCRIPTION(what)

#endif
