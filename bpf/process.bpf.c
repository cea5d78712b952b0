// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Processes: executed, made, ended, signalled.
 *
 * What. One program on each of the scheduler's tracepoints for exec, fork and exit, and one where
 * signals are generated (include/trace/events/sched.h and signal.h, 6.1 to 7.3). They tell. Rules
 * for exec and signals are decided by two more on the LSM hooks bprm_check_security and task_kill,
 * which are there while somebody has such rules; where LSM programs are refused the tracepoints
 * look at the rules that tell.
 *
 * Why this way. These tracepoints stand where the thing is done: that of exec after the point of no
 * return, with the new credentials, memory and name in place, so the arguments are those that the
 * program will see and not what the caller still writes to. tp_btf programs on them work on hosts
 * that refuse everything else.
 *
 * Limits. sched_process_exit is passed after a process gave its memory up until 6.15, and with it
 * went what it ran: on those kernels the actor of process_exit has no executable, and the record is
 * marked incomplete. A signal that a timer sends in an interrupt has whoever runs as its actor; it
 * is marked as an act of the kernel. Signals of the kernel pass no hook, so nobody denies them, and
 * neither do those of cgroup.kill; task_kill is not told whether a signal is for one thread, so it
 * is known by the code of tkill only. For a script bprm_check_security is passed twice, for it and
 * for its interpreter; rules are decided for both.
 *
 * Ways rejected. Tracepoints of system calls: they see what the caller asks for, not what happens.
 * task_newtask: it does not say who made the task.
 */
#include "lib/kernel_types.h"
#include "lib/event_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "lib/compat.h"
#include "../api/ringfence.h"
#include "lib/send.h"
#include "lib/again.h"
#include "lib/exec.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* --- exec ------------------------------------------------------------------------------------ */

/* Appends the arguments, which the kernel has put into the memory of the new program. */
__noinline int put_arguments(struct buffer *buffer, __u32 reference)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 start = task->mm->arg_start, end = task->mm->arg_end;
	struct ringfence_string *string;
	__u32 used, length, fits;

	if (!buffer || end <= start)
		return 0;
	length = end - start > RINGFENCE_RECORD_MAX ? RINGFENCE_RECORD_MAX : end - start;
	fits = fitting(buffer, length);
	used = buffer->used & RECORD_MASK;
	barrier_var(fits);
	if (fits > RINGFENCE_ARGUMENTS_MAX)
		fits = RINGFENCE_ARGUMENTS_MAX;
	if (!fits)
		return 0;
	if (bpf_probe_read_user(buffer->record + used, fits, (void *)start)) {
		buffer->flags |= RINGFENCE_FLAG_INCOMPLETE;
		return 0;
	}
	string = (void *)buffer->record + (reference & FIXED_MASK);
	string->offset = used;
	string->length = fits;
	if (fits < length) {
		string->flags = RINGFENCE_STRING_TRUNCATED;
		buffer->flags |= RINGFENCE_FLAG_TRUNCATED;
	}
	buffer->used = used + fits;
	return fits;
}

/* The event's own part; `address` is of the struct linux_binprm. */
__noinline int put_exec(struct buffer *buffer, __u64 address)
{
	struct linux_binprm *bprm = (void *)address;
	struct ringfence_process_exec *exec;
	__u64 file;

	if (!buffer)
		return 0;
	exec = body_of(buffer);
	file = (__u64)BPF_CORE_READ(bprm, file);
	if (file && file == executable_of((void *)bpf_get_current_task()))
		exec->file = actor_of(buffer)->executable;
	else
		put_file(buffer, IN_BODY(ringfence_process_exec, file), file);
	if (BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec))
		exec->flags |= RINGFENCE_EXEC_SECURE;
	put_program(buffer, exec, bprm);
	put_arguments(buffer, IN_BODY(ringfence_process_exec, arguments));
	return 0;
}

/* If somebody was asked about this exec: the record has the number of the question. */
static __always_inline void number_as_asked(struct buffer *buffer)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	__u64 *event_id;

	if (!askers_of(RINGFENCE_PROCESS_EXEC))
		return;
	event_id = bpf_map_lookup_elem(&asked_events, &thread);
	if (!event_id)
		return;
	header_of(buffer)->event_id = *event_id;
	bpf_map_delete_elem(&asked_events, &thread);
}

/* Arguments: task, its pid before, struct linux_binprm. */
static __noinline int tell_exec(void *context)
{
	struct buffer *buffer;

	buffer = begin(RINGFENCE_PROCESS_EXEC, sizeof(struct ringfence_process_exec));
	if (!buffer)
		return 0;
	put_exec(buffer, argument(context, 2));
	number_as_asked(buffer);
	observe(buffer);
	return 0;
}

TOLD_ONCE(sched_process_exec, process_exec, tell_exec, 2, RINGFENCE_PROCESS_EXEC)

/* Argument: struct linux_binprm. */
SEC("lsm/bprm_check_security")
int process_exec_checked(void *context)
{
	struct buffer *buffer;
	__u64 ruled;

	ruled = rules_wanted(RINGFENCE_PROCESS_EXEC);
	if (!ruled)
		return 0;
	buffer = begin_ruled(RINGFENCE_PROCESS_EXEC, sizeof(struct ringfence_process_exec), ruled);
	if (!buffer)
		return 0;
	put_asked_exec(buffer, argument(context, 0));
	return check(buffer);
}

/* --- fork ------------------------------------------------------------------------------------ */

__noinline int put_fork(struct buffer *buffer, __u64 address)
{
	struct task_struct *child = (void *)address;
	struct ringfence_process_fork *fork;
	struct pid *pid;

	if (!buffer)
		return 0;
	fork = body_of(buffer);
	put_key(&fork->child, child);
	fork->thread = BPF_CORE_READ(child, pid);
	pid = BPF_CORE_READ(child, thread_pid);
	bpf_probe_read_kernel(&fork->inner_pid, sizeof(fork->inner_pid),
			      (void *)innermost(pid) + bpf_core_field_offset(struct upid, nr));
	return 0;
}

/* Arguments: parent, child, which has not run yet. For threads too: kernel/fork.c, kernel_clone. */
static __noinline int tell_fork(void *context)
{
	struct task_struct *child = (void *)argument(context, 1);
	struct buffer *buffer;
	__u32 type = RINGFENCE_PROCESS_FORK;

	if (BPF_CORE_READ(child, tgid) != BPF_CORE_READ(child, pid))
		type = RINGFENCE_THREAD_CREATE;
	buffer = begin(type, sizeof(struct ringfence_process_fork));
	if (!buffer)
		return 0;
	put_fork(buffer, (__u64)child);
	observe(buffer);
	return 0;
}

TOLD_ONCE(sched_process_fork, process_fork, tell_fork, 1, RINGFENCE_PROCESS_FORK)

/* --- exit ------------------------------------------------------------------------------------ */

/* Processes with several threads that were told of as ended: see is_last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct ringfence_process_key);
	__type(value, __u64);
} ended SEC(".maps");

/*
 * Whether the running task is the last thread of its process, where the kernel does not say it.
 * Each counts signal->live down before it comes here (do_exit), so two that end at once can both
 * see zero: the first one to say so is the last thread. It says so before it is taken off the
 * process, so that whoever is alone then finds it; and who was alone all the time finds nothing and
 * need not say so.
 */
static __always_inline int is_last(struct task_struct *task)
{
	struct ringfence_process_key key = {};
	__u64 yes = 1;

	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	put_key(&key, task);
	if (BPF_CORE_READ(task, signal, nr_threads) <= 1)
		return !bpf_map_lookup_elem(&ended, &key);
	return !bpf_map_update_elem(&ended, &key, &yes, BPF_NOEXIST);
}

__noinline int put_exit(struct buffer *buffer)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 running, user, system, share = 0;
	struct ringfence_process_exit *exit;
	__u32 code;

	if (!buffer)
		return 0;
	exit = body_of(buffer);
	/* As wait(2) has it: wait_task_zombie, kernel/exit.c. */
	if (task->signal->flags & SIGNAL_GROUP_EXIT)
		code = task->signal->group_exit_code;
	else
		code = task->group_leader->exit_code;
	exit->code = (code >> 8) & 0xff;
	exit->signal = code & 0x7f;
	exit->dumped = !!(code & 0x80);
	exit->lifetime = bpf_ktime_get_boot_ns() - task->group_leader->start_boottime;
	/* How long it ran is counted in nanoseconds, at each tick and each switch (update_curr,
	 * kernel/sched/fair.c; a program cannot have it done now, as task_sched_runtime does);
	 * where, by ticks. The ticks divide the time up, as cputime_adjust does
	 * (kernel/sched/cputime.c). */
	running = task->signal->sum_sched_runtime + task->se.sum_exec_runtime;
	user = task->signal->utime + task->utime;
	system = task->signal->stime + task->stime;
	if (!system)
		share = 0;
	else if (!user)
		share = 1024;
	else
		share = system * 1024 / (user + system);
	exit->system_time = running / 1024 * share + running % 1024 * share / 1024;
	exit->user_time = running - exit->system_time;
	return 0;
}

/* Arguments: the task, which is the one that runs; whether it is its process's last, on kernels
 * that say so. */
static __noinline int tell_exit(void *context)
{
	struct buffer *buffer;
	int last;

	if (bpf_core_type_exists(btf_trace_sched_process_exit___since_6_16))
		last = argument(context, 1) & 1;
	else
		last = is_last((void *)bpf_get_current_task());
	if (!last)
		return 0;
	buffer = begin(RINGFENCE_PROCESS_EXIT, sizeof(struct ringfence_process_exit));
	if (!buffer)
		return 0;
	put_exit(buffer);
	observe(buffer);
	return 0;
}

TOLD_ONCE(sched_process_exit, process_exit, tell_exit, 0, RINGFENCE_PROCESS_EXIT)

/* --- signal ---------------------------------------------------------------------------------- */

/* include/uapi/asm-generic/siginfo.h */
#define SI_USER	  0
#define SI_KERNEL 0x80
#define SI_TIMER  -2
#define SI_MESGQ  -3
#define SI_SIGIO  -5
#define SI_TKILL  -6
/* Instead of a siginfo: include/linux/sched/signal.h */
#define SEND_SIG_NOINFO 0
#define SEND_SIG_PRIV	1

/* include/linux/sched.h */
#define PF_EXITING 0x00000004
/* arch/x86/include/asm/page_64_types.h: THREAD_SIZE, with KASAN. */
#define STACK_MOST 32768

/* si_code of a signal, the code of those that have no siginfo for it. */
static __always_inline int code_of(__u64 info)
{
	if (info == SEND_SIG_NOINFO)
		return SI_USER;
	if (info == SEND_SIG_PRIV)
		return SI_KERNEL;
	return BPF_CORE_READ((struct kernel_siginfo *)info, si_code);
}

/* Whether a timer sends a signal. Its siginfo is part of the timer. Who says SI_TIMER in
 * rt_sigqueueinfo or pidfd_send_signal, which anybody may, has his copied to the stack of his own
 * task. */
static __always_inline int is_of_timer(__u64 info)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return code_of(info) == SI_TIMER && info - (__u64)task->stack >= STACK_MOST;
}

__noinline int put_signal(struct buffer *buffer, __u32 number, __u64 info, __u64 address,
			  __u32 group)
{
	struct task_struct *target = (void *)address;
	struct ringfence_process_signal *signal;

	if (!buffer)
		return 0;
	signal = body_of(buffer);
	put_key(&signal->target, target);
	signal->thread = group ? 0 : BPF_CORE_READ(target, pid);
	signal->signal = number;
	signal->code = code_of(info);
	if (signal->code == SI_KERNEL || is_of_timer(info))
		buffer->flags |= RINGFENCE_FLAG_KERNEL_ACTOR;
	put_file(buffer, IN_BODY(ringfence_process_signal, executable), executable_of(target));
	return 0;
}

/* Whether nobody was asked for a permission: positive codes are the kernel's
 * (include/linux/signal.h, si_fromuser), and timers, message queues and files send with no check.
 * So does what has no siginfo (cgroup.kill, SIGPIPE, SIGXFSZ), but for the signal that a child
 * wants at the end of its parent (PR_SET_PDEATHSIG), which is about to end then.
 */
static __always_inline int is_unchecked(__u64 info)
{
	struct task_struct *task = bpf_get_current_task_btf();
	int code = code_of(info);

	if (info == SEND_SIG_NOINFO)
		return !(task->flags & PF_EXITING);
	return code > 0 || is_of_timer(info) || code == SI_MESGQ || code == SI_SIGIO;
}

/* Arguments: the task it is for, siginfo, number, credentials of who sends if not those of the
 * running task. */
SEC("lsm/task_kill")
int process_signal_checked(void *context)
{
	__u64 info = argument(context, 1);
	__u32 number = argument(context, 2);
	struct buffer *buffer;
	__u64 ruled;

	ruled = rules_wanted(RINGFENCE_PROCESS_SIGNAL);
	/* Number 0 sends nothing. */
	if (!ruled || !number)
		return 0;
	buffer = begin_ruled(RINGFENCE_PROCESS_SIGNAL, sizeof(struct ringfence_process_signal),
			     ruled);
	if (!buffer)
		return 0;
	put_signal(buffer, number, info, argument(context, 0), code_of(info) != SI_TKILL);
	return check(buffer);
}

/* Arguments: number, siginfo, the task it is for, whether it is for its whole process, and what
 * became of it. */
SEC("tp_btf/signal_generate")
int process_signal(void *context)
{
	__u64 ruled = rules_wanted(RINGFENCE_PROCESS_SIGNAL);
	struct buffer *buffer;

	if (ruled && !is_unchecked(argument(context, 1)))
		ruled = ruled_where_told(RINGFENCE_PROCESS_SIGNAL);
	buffer = begin_ruled(RINGFENCE_PROCESS_SIGNAL, sizeof(struct ringfence_process_signal),
			     ruled);
	if (!buffer)
		return 0;
	put_signal(buffer, argument(context, 0), argument(context, 1), argument(context, 2),
		   argument(context, 3));
	observe(buffer);
	return 0;
}
