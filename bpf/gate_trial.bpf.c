// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Asks about what one process and those below it do, to try the gate in the lab.
 *
 * What. Two hooks of those that can wait, exec and file mapping, ask one made-up client about each
 * passage within the scope: the children and grandchildren of one process. crates/probes/examples/
 * gate_trial.rs answers and looks at what becomes of the tasks. No product loads this.
 *
 * Why a scope. A verdict that is late or missing is what is tried here, and must not meet the
 * process that tries it, nor the lab's own agent.
 */
#include "lib/kernel_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/fs.h */
struct file {
	struct inode *f_inode;
};

/* include/linux/binfmts.h */
struct linux_binprm {
	struct file *file;
};

#pragma clang attribute pop

#include "lib/gate.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* RINGFENCE_PROCESS_EXEC, RINGFENCE_IMAGE_MAP of api/ringfence.h. */
#define PROCESS_EXEC 1
#define IMAGE_MAP    16

/* PROT_EXEC of include/uapi/asm-generic/mman-common.h. */
#define PROT_EXEC 4

/* The process whose descendants are asked about; 0: nobody is. */
__u32 scope = 0;
/* Who is asked about an exec and about a mapping, as sets of slots. */
__u64 exec_askers = 0;
__u64 map_askers = 0;
/* The last number that was given to a question. */
__u64 events = 0;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The time of the last change: in two words from 6.11 on (3aa63a569c64). The gate is newer. */
struct inode___trial {
	unsigned long i_ino;
	struct super_block___gate *i_sb;
	__s64 i_ctime_sec;
	__u32 i_ctime_nsec;
};

#pragma clang attribute pop

/* Deeper than any task of the trial. */
#define GENERATIONS 512

struct descent {
	__u64 task;
	__u64 in_scope;
};

/* One generation up; 1 at the end. */
static long climb(__u32 generation, struct descent *descent)
{
	struct task_struct___gate *task = (void *)descent->task;
	struct task_struct___gate *parent = BPF_CORE_READ(task, real_parent);
	__u32 process = BPF_CORE_READ(parent, tgid);

	descent->task = (__u64)parent;
	descent->in_scope = process == scope;
	return descent->in_scope || process <= 1;
}

static __always_inline bool in_scope(void)
{
	struct descent descent = {.task = (__u64)bpf_get_current_task_btf()};

	if (!scope)
		return false;
	bpf_loop(GENERATIONS, climb, &descent, 0);
	return descent.in_scope;
}

static __noinline int ask(struct file *file, __u32 type, __u64 askers)
{
	struct task_struct___gate *task = (void *)bpf_get_current_task_btf();
	struct gate_question question = {};
	struct inode___trial *inode;

	if (!askers || !in_scope())
		return 0;
	question.event_id = __sync_fetch_and_add(&events, 1) + 1;
	question.askers = askers;
	question.time = bpf_ktime_get_boot_ns();
	question.pid = bpf_get_current_pid_tgid() >> 32;
	question.start = BPF_CORE_READ(task, group_leader, start_boottime);
	question.type = type;
	inode = (void *)BPF_CORE_READ(file, f_inode);
	question.file.inode = BPF_CORE_READ(inode, i_ino);
	question.file.device = BPF_CORE_READ(inode, i_sb, s_dev);
	if (bpf_core_field_exists(inode->i_ctime_sec))
		question.file.version = BPF_CORE_READ(inode, i_ctime_sec) * 1000000000ULL +
					BPF_CORE_READ(inode, i_ctime_nsec);
	return gate_ask(&question);
}

SEC("lsm.s/bprm_check_security")
int BPF_PROG(exec_asked, struct linux_binprm *bprm)
{
	return ask(bprm->file, PROCESS_EXEC, exec_askers);
}

SEC("lsm.s/mmap_file")
int BPF_PROG(map_asked, struct file *file, unsigned long reqprot, unsigned long prot,
	     unsigned long flags)
{
	if (!file || !(prot & PROT_EXEC))
		return 0;
	return ask(file, IMAGE_MAP, map_askers);
}
