// SPDX-License-Identifier: Apache-2.0
//! Numbers of the kernel that rules call by name.

use crate::events::Own;
use crate::model::Bits;

/// Names with their numbers.
pub(crate) type Names = &'static [(&'static str, u32)];

/// What a denied caller can get (include/uapi/asm-generic/errno-base.h and errno.h).
pub(crate) const ERRORS: Names = &[
    ("EPERM", 1),
    ("ENOENT", 2),
    ("ESRCH", 3),
    ("EIO", 5),
    ("ENXIO", 6),
    ("ENOEXEC", 8),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EBUSY", 16),
    ("EINVAL", 22),
    ("ETXTBSY", 26),
    ("EROFS", 30),
    ("ENOSYS", 38),
    ("EOPNOTSUPP", 95),
    ("EKEYREJECTED", 129),
];

/// Signals of x86 and arm64 (include/uapi/asm-generic/signal.h).
const SIGNALS: Names = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGSTKFLT", 16),
    ("SIGCHLD", 17),
    ("SIGCONT", 18),
    ("SIGSTOP", 19),
    ("SIGTSTP", 20),
    ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGURG", 23),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGWINCH", 28),
    ("SIGIO", 29),
    ("SIGPWR", 30),
    ("SIGSYS", 31),
];

/// enum bpf_prog_type (include/uapi/linux/bpf.h).
const PROGRAM_TYPES: Names = &[
    ("socket_filter", 1),
    ("kprobe", 2),
    ("sched_cls", 3),
    ("sched_act", 4),
    ("tracepoint", 5),
    ("xdp", 6),
    ("perf_event", 7),
    ("cgroup_skb", 8),
    ("cgroup_sock", 9),
    ("lwt_in", 10),
    ("lwt_out", 11),
    ("lwt_xmit", 12),
    ("sock_ops", 13),
    ("sk_skb", 14),
    ("cgroup_device", 15),
    ("sk_msg", 16),
    ("raw_tracepoint", 17),
    ("cgroup_sock_addr", 18),
    ("lwt_seg6local", 19),
    ("lirc_mode2", 20),
    ("sk_reuseport", 21),
    ("flow_dissector", 22),
    ("cgroup_sysctl", 23),
    ("raw_tracepoint_writable", 24),
    ("cgroup_sockopt", 25),
    ("tracing", 26),
    ("struct_ops", 27),
    ("ext", 28),
    ("lsm", 29),
    ("sk_lookup", 30),
    ("syscall", 31),
    ("netfilter", 32),
];

/// What the numbers of a type of event are called, of api/ringfence.h.
pub(crate) fn of_own(own: Own) -> Names {
    match own {
        Own::Signal => SIGNALS,
        Own::Trace => &[("read", 1), ("attach", 2), ("me", 3)],
        Own::Access => &[("read", 1), ("write", 2)],
        Own::By => &[("setuid", 1), ("setgid", 2), ("capset", 3), ("exec", 4)],
        Own::From => &[("file", 1), ("memory", 2)],
        Own::ProgramType => PROGRAM_TYPES,
        Own::How => &[("exec", 1), ("map", 2)],
        Own::Modify => &[("closed", 1), ("truncated", 2)],
    }
}

/// What bits are called; those of the event's own flags differ by type and are given as numbers.
pub(crate) fn of_bits(bits: Bits) -> Names {
    match bits {
        // PROT_ (include/uapi/asm-generic/mman-common.h)
        Bits::Protection | Bits::Before => &[("read", 1), ("write", 2), ("exec", 4)],
        Bits::Flags => &[],
        Bits::Record => &[
            ("mandatory", 0x1),
            ("truncated", 0x2),
            ("unverified", 0x4),
            ("kernel_actor", 0x8),
            ("incomplete", 0x10),
        ],
        Bits::Executable | Bits::File => &[
            ("memfd", 0x1),
            ("deleted", 0x2),
            ("verity", 0x4),
            ("in_memory", 0x8),
            ("nosuid", 0x10),
            ("noexec", 0x20),
            ("setid", 0x40),
        ],
    }
}

/// The number of a name.
pub(crate) fn number(names: Names, name: &str) -> Option<u32> {
    names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of a number.
pub(crate) fn name(names: Names, number: u32) -> Option<&'static str> {
    names.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// All names, for people.
pub(crate) fn listed(names: Names) -> String {
    names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
