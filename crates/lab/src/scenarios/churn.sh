#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Changes a kernel in one legitimate way, again and again: churn KIND
#
# One round is one change and its way back, and a rest after each of the two. It ends between two rounds
# once /run/churn/stop is there, and leaves the kernel as it was. /run/churn/KIND has the number of rounds
# that were done; /run/churn/passes, written by who watches, how often he has looked.
#
# churn KIND can: whether this kernel can be changed in that way.
set -u
tracing=/sys/kernel/tracing
kind=$1
round=0

# /run/churn/failed lets the others end too.
fail() { echo "$kind, round $round: $*" | tee -a /run/churn/failed >&2; exit 1; }

# Writes to a file of the kernel.
put() { echo "$2" >"$1" || fail "cannot write '$2' to $1"; }

# The same, adding to what it holds.
add() { echo "$2" >>"$1" || fail "cannot add '$2' to $1"; }

# Takes an event of kprobes or fprobes away. Meanwhile somebody may turn on all events that there are, with
# this one, and the kernel takes away none that is on (trace_probe_is_enabled, kernel/trace/trace_probe.h).
remove() {
	local waited=0
	until echo "-:$2/$3" 2>/run/churn/$kind.out >>"$1"; do
		waited=$((waited + 1))
		[ $waited -lt 100 ] || fail "cannot remove $2/$3: $(cat /run/churn/$kind.out)"
		sleep 0.2
		put "$tracing/events/$2/$3/enable" 0
	done
}

# The n-th word of a list that is gone through again and again.
nth() {
	local at=$1
	shift
	shift $((at % $#))
	echo "$1"
}

# Rests, while the kernel stays as it was changed, for `factor` times the processor time that the change took:
# whoever watches looks at it meanwhile, and all kinds together leave him some of the processor. `least`
# hundredths of a second at least, not always the same, and in steps, so that the end comes soon. `rest N` is
# never longer than that: while the kernel is changed in a way that makes all else slow, or where there would
# be too few rounds.
factor=40
least=500
several=1
rest() {
	local before=$used left step most=${1:-3000}
	count_time
	left=$((factor * (used - before) + least * (1 + round % 4) / 2))
	[ $left -lt "$most" ] || left=$most
	while [ $left -gt 0 ] && [ ! -e /run/churn/stop ]; do
		step=$((left < 300 ? left : 300))
		left=$((left - step))
		step=$((1000 + step))
		sleep "$((step / 100 - 10)).${step#??}"
	done
	count_time
}

# Waits until it is this round's turn, unless all is to end: one for `pace` passes of who watches. So there are
# as many changes for a pass on a host that has much else to do as on one that has not.
pace=100
await_turn() {
	local passes
	while [ ! -e /run/churn/stop ]; do
		passes=
		read -r passes 2>/dev/null </run/churn/passes
		[ "${passes:-0}" -lt $((round * pace)) ] || return 0
		sleep 1
	done
	return 1
}

# The processor time of this process and of those that it waited for, in hundredths of a second: `utime` and
# what follows it in /proc/PID/stat.
count_time() {
	local stat
	read -r stat </proc/$$/stat
	set -- ${stat#*) }
	used=$((${12} + ${13} + ${14} + ${15}))
}

# --- the function tracer --------------------------------------------------------------------------

# All who want to know of returns share one user of ftrace, and what that leaves out is what all of them leave
# out (intersect_hash, kernel/trace/ftrace.c, 6.11 and later): with an fprobe beside it the tracer would be
# where it is told not to be.
graph_is_free() { mkdir /run/churn/graph 2>/dev/null; }
free_graph() { rmdir /run/churn/graph; }

tracer_can() { grep -qs function_graph $tracing/available_tracers; }
# A tracer on the way that the guard reads by is a finding, so nobody traces there.
tracer_begin() {
	put $tracing/tracing_on 0
	put $tracing/buffer_size_kb 16
	put $tracing/set_ftrace_notrace '*bpf*'
	# Some kernels trace none of these by themselves, and refuse the name.
	for function in 'copy_from_kernel_nofault*' 'fixup_exception' 'ex_handler_*' 'search_e*' \
		'perf_*' 'array_map_*' 'kallsyms_*' 'read_kcore*' 'vread_*'; do
		echo "$function" 2>/dev/null >>$tracing/set_ftrace_notrace
	done
}
tracer_round() {
	# All functions in one round of twenty, those with a name like this in one of five, and else each 97th of
	# the kernel's list, by its number there: an emulated processor takes long for what it has to look up.
	case $((round % 20)) in
	10) ;;
	2 | 6 | 14 | 18) put $tracing/set_ftrace_filter \
		"$(nth "$round" 'vfs_*' 'tcp_*' '*mutex*' 'do_*' 'ktime_*' '__x64_sys_*' 'sched_*')" ;;
	*) put $tracing/set_ftrace_filter "$(seq -s ' ' $((1 + round)) 97 30000)" ;;
	esac
	tracer=$(nth "$round" function function function_graph)
	[ $tracer = function ] || graph_is_free || tracer=function
	put $tracing/current_tracer $tracer
	rest 150
	put $tracing/current_tracer nop
	[ $tracer = function ] || free_graph
	put $tracing/set_ftrace_filter ''
	rest
}
tracer_end() { put $tracing/set_ftrace_notrace ''; }

# --- tracepoints ----------------------------------------------------------------------------------

tracepoints_can() { [ -e $tracing/events/enable ]; }
tracepoints_begin() {
	put $tracing/tracing_on 0
	put $tracing/buffer_size_kb 16
}
tracepoints_round() {
	local events=$tracing/events
	[ $((round % 20)) = 10 ] || events=$events/$(nth "$round" \
		sched kmem block irq timer workqueue signal task cgroup raw_syscalls rcu writeback)
	[ -e "$events/enable" ] || return 0
	put "$events/enable" 1
	rest 150
	put "$events/enable" 0
	rest
}
tracepoints_end() { :; }

# --- kprobes --------------------------------------------------------------------------------------

# Where an instruction begins within a function: the kernel refuses all else.
inside() {
	local offset=6
	while [ $offset -lt 60 ]; do
		if echo "p:churn/try $1+$offset" 2>/dev/null >>$tracing/kprobe_events; then
			add $tracing/kprobe_events '-:churn/try'
			echo "$1+$offset"
			return
		fi
		offset=$((offset + 1))
	done
}
kprobes_can() { [ -e $tracing/kprobe_events ]; }
kprobes_begin() {
	inside_mkdir=$(inside vfs_mkdir)
	inside_rmdir=$(inside vfs_rmdir)
	[ -n "$inside_mkdir" ] || fail "no kprobe goes into vfs_mkdir"
}
kprobes_round() {
	add $tracing/kprobe_events 'p:churn/at_start vfs_mkdir'
	add $tracing/kprobe_events 'r:churn/at_return vfs_rmdir'
	add $tracing/kprobe_events "p:churn/within $inside_mkdir"
	[ -z "$inside_rmdir" ] || add $tracing/kprobe_events "p:churn/within_too $inside_rmdir"
	put $tracing/events/churn/enable 1
	mkdir /tmp/probed
	rest
	# Those within a function become jumps after some ticks, and int3 again with this.
	[ $((round % 3)) != 1 ] || put /proc/sys/debug/kprobes-optimization 0
	[ $((round % 5)) != 2 ] || put /sys/kernel/debug/kprobes/enabled 0
	rmdir /tmp/probed
	rest
	put /sys/kernel/debug/kprobes/enabled 1
	put /proc/sys/debug/kprobes-optimization 1
	put $tracing/events/churn/enable 0
	for event in at_start at_return within within_too; do
		[ ! -e $tracing/events/churn/$event ] || remove $tracing/kprobe_events churn $event
	done
}
kprobes_end() { :; }

# --- fprobes --------------------------------------------------------------------------------------

fprobes_can() { grep -qs '^[[:space:]]*f\[:' $tracing/README; }
fprobes_begin() { :; }
fprobes_round() {
	local probe
	probe=$(nth "$round" 'at_start vfs_rename' 'at_return vfs_unlink%return')
	until graph_is_free; do
		[ ! -e /run/churn/stop ] || return 0
		sleep 0.2
	done
	add $tracing/dynamic_events "f:fchurn/$probe"
	put $tracing/events/fchurn/enable 1
	: >/tmp/fprobed.1
	mv /tmp/fprobed.1 /tmp/fprobed.2
	rest
	rm /tmp/fprobed.2
	put $tracing/events/fchurn/enable 0
	remove $tracing/dynamic_events fchurn "${probe% *}"
	free_graph
	rest
}
fprobes_end() { :; }

# --- programs of BPF ------------------------------------------------------------------------------

bpf_can() { [ -e /lab/watch_churn ]; }
bpf_begin() { several=5; }
bpf_round() {
	# The program takes longest to start, so each time it does several.
	RINGFENCE_ATTACH_ROUNDS=$several /lab/watch_churn --ignored --exact --nocapture \
		programs_attach_and_detach >/run/churn/bpf.out 2>&1 || fail "$(cat /run/churn/bpf.out)"
	rest
}
bpf_end() { :; }

# --- modules --------------------------------------------------------------------------------------

modules_can() { [ -s /lab/churn-modules ]; }
# /lab/churn-modules has their names: none of them needs another.
# There are many rounds of these.
modules_begin() { factor=0 least=40 pace=9; }
modules_round() {
	local name
	name=$(nth "$round" $(cat /lab/churn-modules))
	rmmod "$name" || fail "rmmod $name"
	rest
	insmod "/lab/modules/$(grep -x "$(echo "$name" | sed 's/_/[_-]/g').ko" /lab/modules/order)" ||
		fail "insmod $name"
	rest
}
modules_end() { :; }

# --- CPUs -----------------------------------------------------------------------------------------

cpus_can() { [ -e /sys/devices/system/cpu/cpu1/online ]; }
# What a processor changes before it is heard is lost to the journal, so it does not come and go all the time.
cpus_begin() { least=400; }
cpus_round() {
	put /sys/devices/system/cpu/cpu1/online 0
	[ $((round % 4)) = 0 ] || rest
	put /sys/devices/system/cpu/cpu1/online 1
	rest
}
cpus_end() { :; }

# --- KFENCE ---------------------------------------------------------------------------------------

kfence_can() { [ -e /sys/module/kfence/parameters/sample_interval ]; }
kfence_begin() { least=400; }
kfence_round() {
	put /sys/module/kfence/parameters/sample_interval "$(nth "$round" 1 10 100)"
	rest 200
	put /sys/module/kfence/parameters/sample_interval 0
	rest
}
kfence_end() { :; }

# --- a livepatch ----------------------------------------------------------------------------------

livepatch_can() { [ -e /lab/livepatch_abuse.ko ] && [ -e /sys/kernel/livepatch ]; }
# The kernel changes ten thousand static calls for each, one after the other: that it stays is what most of
# the time is for.
livepatch_begin() { least=1000 pace=350; }
livepatch_round() {
	local patch=/sys/kernel/livepatch/livepatch_abuse waited=0
	insmod /lab/livepatch_abuse.ko seconds=3600 || fail insmod
	# All tasks leave the function before it is on, or off.
	while [ "$(cat $patch/transition)" = 1 ]; do sleep 0.2; done
	rest 1500
	put $patch/enabled 0
	until rmmod livepatch_abuse 2>/run/churn/livepatch.out; do
		waited=$((waited + 1))
		[ $waited -lt 300 ] || fail "$(cat /run/churn/livepatch.out)"
		sleep 0.2
	done
	rest
}
livepatch_end() { :; }

# --- keys of static calls and jump labels that have a switch of their own -------------------------

preempt=/sys/kernel/debug/sched/preempt
switches_can() { [ -e /proc/sys/kernel/sched_schedstats ]; }
# The mode in force is in parentheses.
switches_begin() { [ ! -e $preempt ] || preempt_before=$(sed 's/.*(//; s/).*//' $preempt); }
switches_round() {
	put /proc/sys/kernel/sched_schedstats 1
	put /proc/sys/kernel/task_delayacct 1
	# As many static calls as for a livepatch.
	[ ! -e $preempt ] || [ $((round % 5)) != 1 ] ||
		put $preempt "$(nth $((round / 5)) $(tr -d '()' <$preempt))"
	rest
	put /proc/sys/kernel/sched_schedstats 0
	put /proc/sys/kernel/task_delayacct 0
	rest
}
switches_end() { [ ! -e $preempt ] || put $preempt "$preempt_before"; }

# --------------------------------------------------------------------------------------------------

if [ "${2-}" = can ]; then
	"${kind}_can"
	exit
fi
mkdir -p /run/churn
"${kind}_begin"
count_time
while await_turn; do
	"${kind}_round"
	round=$((round + several))
	echo "$round" >"/run/churn/$kind"
done
"${kind}_end"
