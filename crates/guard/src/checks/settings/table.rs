// SPDX-License-Identifier: Apache-2.0
//! Which settings are watched, where they are read, and what makes each of them weaker.

/// What a change of a setting means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// No change is expected: paths of programs that the kernel starts, switches of mechanisms.
    Fixed,
    /// A program that the kernel starts: no change, and never in a place that others can write to.
    Program,
    /// Larger is stricter; `Y` and `N` count as 1 and 0.
    Larger,
    /// Smaller is stricter.
    Smaller,
    /// From weak to strict.
    Order(&'static [&'static str]),
    /// A mask whose bits are permissions; 1 stands for all of them (`kernel.sysrq`).
    Permissions,
    /// A mask that only ever gains bits, each of which is an event (`kernel.tainted`).
    Taint,
}

pub(super) struct Setting {
    /// Its name in facts and reports.
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    pub(super) rule: Rule,
}

const fn setting(name: &'static str, path: &'static str, rule: Rule) -> Setting {
    Setting { name, path, rule }
}

/// From Documentation/admin-guide/sysctl/{kernel,vm,fs,net}.rst and LSM/Yama.rst (6.1 to 6.18).
pub(super) const SETTINGS: &[Setting] = &[
    setting("lockdown", "/sys/kernel/security/lockdown", Rule::Order(LOCKDOWN)),
    setting("security modules", "/sys/kernel/security/lsm", Rule::Fixed),
    setting("selinux.enforce", "/sys/fs/selinux/enforce", Rule::Larger),
    setting("module.sig_enforce", "/sys/module/module/parameters/sig_enforce", Rule::Larger),
    setting("kernel.modules_disabled", "/proc/sys/kernel/modules_disabled", Rule::Larger),
    setting("kernel.kexec_load_disabled", "/proc/sys/kernel/kexec_load_disabled", Rule::Larger),
    setting("kernel.modprobe", "/proc/sys/kernel/modprobe", Rule::Program),
    setting("kernel.hotplug", "/proc/sys/kernel/hotplug", Rule::Program),
    setting("kernel.poweroff_cmd", "/proc/sys/kernel/poweroff_cmd", Rule::Program),
    setting("kernel.core_pattern", "/proc/sys/kernel/core_pattern", Rule::Program),
    setting("kernel.usermodehelper.bset", "/proc/sys/kernel/usermodehelper/bset", Rule::Fixed),
    setting(
        "kernel.usermodehelper.inheritable",
        "/proc/sys/kernel/usermodehelper/inheritable",
        Rule::Fixed,
    ),
    setting("kernel.kptr_restrict", "/proc/sys/kernel/kptr_restrict", Rule::Larger),
    setting("kernel.dmesg_restrict", "/proc/sys/kernel/dmesg_restrict", Rule::Larger),
    setting(
        "kernel.unprivileged_bpf_disabled",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
        // 1 cannot be taken back, 2 can.
        Rule::Order(&["0", "2", "1"]),
    ),
    setting("kernel.perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid", Rule::Larger),
    setting("kernel.yama.ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope", Rule::Larger),
    setting("net.core.bpf_jit_harden", "/proc/sys/net/core/bpf_jit_harden", Rule::Larger),
    setting("kernel.randomize_va_space", "/proc/sys/kernel/randomize_va_space", Rule::Larger),
    setting("vm.mmap_min_addr", "/proc/sys/vm/mmap_min_addr", Rule::Larger),
    setting("vm.unprivileged_userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd", Rule::Smaller),
    setting("kernel.sysrq", "/proc/sys/kernel/sysrq", Rule::Permissions),
    setting("kernel.io_uring_disabled", "/proc/sys/kernel/io_uring_disabled", Rule::Larger),
    setting("kernel.ftrace_enabled", "/proc/sys/kernel/ftrace_enabled", Rule::Fixed),
    setting("kernel.panic_on_oops", "/proc/sys/kernel/panic_on_oops", Rule::Larger),
    setting("kernel.tainted", "/proc/sys/kernel/tainted", Rule::Taint),
    setting(
        "kernel.unprivileged_userns_clone",
        "/proc/sys/kernel/unprivileged_userns_clone",
        Rule::Smaller,
    ),
    setting("fs.suid_dumpable", "/proc/sys/fs/suid_dumpable", Rule::Smaller),
    setting("fs.protected_symlinks", "/proc/sys/fs/protected_symlinks", Rule::Larger),
    setting("fs.protected_hardlinks", "/proc/sys/fs/protected_hardlinks", Rule::Larger),
    setting("fs.protected_fifos", "/proc/sys/fs/protected_fifos", Rule::Larger),
    setting("fs.protected_regular", "/proc/sys/fs/protected_regular", Rule::Larger),
    setting("dev.tty.ldisc_autoload", "/proc/sys/dev/tty/ldisc_autoload", Rule::Smaller),
];

/// Files that take a lock to be read which may be held for long: `ftrace_lock`, by whoever has a function
/// tracer go on or off (`ftrace_enable_sysctl`, kernel/trace/ftrace.c, 6.1 to 7.3).
pub(super) const WAITING: &[&str] = &["/proc/sys/kernel/ftrace_enabled"];

/// security/lockdown/lockdown.c, `lockdown_levels`.
const LOCKDOWN: &[&str] = &["none", "integrity", "confidentiality"];

/// Names of taint bits (include/linux/panic.h and Documentation/admin-guide/tainted-kernels.rst),
/// in order of bit.
pub(super) const TAINTS: &[&str] = &[
    "proprietary module loaded",
    "module loaded by force",
    "processor out of specification",
    "module unloaded by force",
    "machine check",
    "bad page",
    "taint asked for by user space",
    "kernel died",
    "ACPI table overridden",
    "kernel warned",
    "staging driver loaded",
    "firmware bug worked around",
    "module from outside the kernel tree loaded",
    "unsigned module loaded",
    "soft lockup",
    "kernel live patched",
    "auxiliary taint",
    "built with randomised structures",
    "in-kernel test run",
    "changed through fwctl",
];

/// Places where anyone can put a program (or where it goes with its mount).
pub(super) const OPEN_PLACES: &[&str] =
    &["/tmp/", "/var/tmp/", "/dev/shm/", "/dev/mqueue/", "/home/", "/proc/", "/run/user/"];
