// SPDX-License-Identifier: Apache-2.0
//! Settings from the variables that hold them, for where no interface of the system can be asked: a
//! dump, or a guest seen from outside.
//!
//! What an interface shows is not known there, so that nothing can be compared with it; [`NoViews`]
//! answers for all of that.

use kernel_memory::Kernel;

use crate::check::Missing;
use crate::views::{BpfKind, BpfView, NoViews, TaskView, Views};

/// How a variable holds a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// An array of so many characters.
    Text(usize),
    /// `int`.
    Int,
    /// `unsigned long`.
    Mask,
    /// `bool`, shown as a module parameter.
    Bool,
    /// `enum lockdown_reason`, shown as the level that it is.
    Lockdown,
}

/// Files, and the variables behind them: the `ctl_table`s of kernel/sysctl.c, kernel/umh.c,
/// fs/coredump.c, fs/namei.c, kernel/printk/sysctl.c, kernel/bpf/syscall.c, kernel/events/core.c,
/// security/lockdown/lockdown.c, security/yama/yama_lsm.c, net/core/sysctl_net_core.c, kernel/panic.c, kernel/reboot.c,
/// kernel/module/main.c and signing.c (6.1 to 6.18). One that a kernel does not have is not read.
const VARIABLES: &[(&str, &str, Held)] = &[
    ("/sys/kernel/security/lockdown", "kernel_locked_down", Held::Lockdown),
    ("/proc/sys/kernel/modprobe", "modprobe_path", Held::Text(256)),
    ("/proc/sys/kernel/core_pattern", "core_pattern", Held::Text(128)),
    ("/proc/sys/kernel/poweroff_cmd", "poweroff_cmd", Held::Text(256)),
    ("/proc/sys/kernel/kptr_restrict", "kptr_restrict", Held::Int),
    ("/proc/sys/kernel/dmesg_restrict", "dmesg_restrict", Held::Int),
    ("/proc/sys/kernel/modules_disabled", "modules_disabled", Held::Int),
    ("/proc/sys/kernel/unprivileged_bpf_disabled", "sysctl_unprivileged_bpf_disabled", Held::Int),
    ("/proc/sys/kernel/perf_event_paranoid", "sysctl_perf_event_paranoid", Held::Int),
    ("/proc/sys/kernel/yama/ptrace_scope", "ptrace_scope", Held::Int),
    ("/proc/sys/net/core/bpf_jit_harden", "bpf_jit_harden", Held::Int),
    ("/proc/sys/kernel/randomize_va_space", "randomize_va_space", Held::Int),
    ("/proc/sys/kernel/ftrace_enabled", "ftrace_enabled", Held::Int),
    ("/proc/sys/kernel/panic_on_oops", "panic_on_oops", Held::Int),
    ("/proc/sys/kernel/tainted", "tainted_mask", Held::Mask),
    ("/proc/sys/fs/suid_dumpable", "suid_dumpable", Held::Int),
    ("/proc/sys/fs/protected_symlinks", "sysctl_protected_symlinks", Held::Int),
    ("/proc/sys/fs/protected_hardlinks", "sysctl_protected_hardlinks", Held::Int),
    ("/proc/sys/fs/protected_fifos", "sysctl_protected_fifos", Held::Int),
    ("/proc/sys/fs/protected_regular", "sysctl_protected_regular", Held::Int),
    ("/sys/module/module/parameters/sig_enforce", "sig_enforce", Held::Bool),
];

/// Settings as memory has them, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct MemoryViews<'a> {
    kernel: Kernel<'a>,
}

impl<'a> MemoryViews<'a> {
    /// Those of a kernel.
    pub fn new(kernel: Kernel<'a>) -> Self {
        Self { kernel }
    }
}

fn variable(path: &str) -> Option<(&'static str, Held)> {
    let found = VARIABLES.iter().find(|(file, _, _)| *file == path);
    found.map(|(_, name, held)| (*name, *held))
}

/// The level that `kernel_locked_down` holds: the highest reason that is locked down, one of the three
/// that `lockdown_levels` names (security/lockdown/lockdown.c, 6.1 to 7.3). The kernel sets no other.
pub(crate) fn lockdown_level(kernel: &Kernel<'_>, held: u32) -> String {
    let names = [
        ("LOCKDOWN_NONE", "none"),
        ("LOCKDOWN_INTEGRITY_MAX", "integrity"),
        ("LOCKDOWN_CONFIDENTIALITY_MAX", "confidentiality"),
    ];
    let held = i64::from(held);
    let name = names.iter().find(|(name, _)| kernel.enumerator(name) == Ok(held));
    name.map_or_else(|| format!("level {held}"), |(_, name)| (*name).to_owned())
}

impl Views for MemoryViews<'_> {
    fn file(&self, path: &str) -> Result<String, Missing> {
        let Some((name, held)) = variable(path) else { return NoViews.file(path) };
        let at = self.kernel.symbol(name)?;
        Ok(match held {
            Held::Text(length) => self.kernel.string_at(at, length)?,
            Held::Int => self.kernel.u32_at(at)?.cast_signed().to_string(),
            Held::Mask => self.kernel.u64_at(at)?.to_string(),
            Held::Lockdown => lockdown_level(&self.kernel, self.kernel.u32_at(at)?),
            Held::Bool => if self.kernel.u8_at(at)? == 0 { "N" } else { "Y" }.to_owned(),
        })
    }

    fn source_of(&self, path: &str) -> String {
        variable(path).map_or(path.to_owned(), |(name, _)| format!("the variable {name}"))
    }

    fn tasks_in_proc(&self) -> Result<Vec<TaskView>, Missing> {
        NoViews.tasks_in_proc()
    }
    fn tasks_iterated(&self) -> Result<Vec<TaskView>, Missing> {
        NoViews.tasks_iterated()
    }
    fn task_answers(&self, tgid: u32, tid: u32) -> Result<bool, Missing> {
        NoViews.task_answers(tgid, tid)
    }
    fn bpf_listed(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        NoViews.bpf_listed(kind)
    }
    fn bpf_iterated(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        NoViews.bpf_iterated(kind)
    }
    fn current_task(&self) -> Result<u64, Missing> {
        NoViews.current_task()
    }
    fn own_bpf(&self) -> Result<Vec<(BpfKind, u32)>, Missing> {
        NoViews.own_bpf()
    }
    fn raise_event(&self) -> Result<String, Missing> {
        NoViews.raise_event()
    }
}

#[cfg(test)]
mod tests {
    use kernel_image::Symbols;
    use kernel_image::btf::{Btf, Builder};
    use kernel_memory::FakeMemory;

    use super::*;

    /// A header with an empty type section and a string section of one empty string.
    const EMPTY_BTF: [u8; 25] =
        [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    const AT: u64 = 0xffff_ffff_8200_0000;

    #[test]
    fn a_setting_is_read_from_the_variable_that_holds_it() {
        let mut memory = FakeMemory::new();
        memory.write(AT, b"/sbin/modprobe\0rest");
        memory.write_u32(AT + 0x100, u32::MAX);
        memory.write_u64(AT + 0x108, 12_800);
        memory.write(AT + 0x110, &[1]);
        let names = [
            (AT, b'D', "modprobe_path"),
            (AT + 0x100, b'D', "sysctl_perf_event_paranoid"),
            (AT + 0x108, b'D', "tainted_mask"),
            (AT + 0x110, b'D', "sig_enforce"),
        ];
        let (symbols, types) = (Symbols::from_iter(names), Btf::parse(&EMPTY_BTF).unwrap());
        let views = MemoryViews::new(Kernel { memory: &memory, symbols: &symbols, types: &types });
        let file = |path: &str| views.file(path);
        assert_eq!(file("/proc/sys/kernel/modprobe").unwrap(), "/sbin/modprobe");
        assert_eq!(file("/proc/sys/kernel/perf_event_paranoid").unwrap(), "-1");
        assert_eq!(file("/proc/sys/kernel/tainted").unwrap(), "12800");
        assert_eq!(file("/sys/module/module/parameters/sig_enforce").unwrap(), "Y");
        assert!(file("/proc/sys/kernel/kptr_restrict").unwrap_err().0.contains("kptr_restrict"));
        assert!(file("/proc/modules").is_err());
        assert_eq!(views.source_of("/proc/sys/kernel/modprobe"), "the variable modprobe_path");
    }

    #[test]
    fn lockdown_is_the_level_that_its_variable_names_and_no_other_value_is_one() {
        let symbols = Symbols::from_iter([(AT, b'd', "kernel_locked_down")]);
        let mut types = Builder::new();
        types.enumeration(
            "lockdown_reason",
            &[
                ("LOCKDOWN_NONE", 0),
                ("LOCKDOWN_INTEGRITY_MAX", 19),
                ("LOCKDOWN_CONFIDENTIALITY_MAX", 30),
            ],
        );
        let types = Btf::parse(&types.finish()).unwrap();
        for (held, level) in
            [(0, "none"), (19, "integrity"), (30, "confidentiality"), (16, "level 16")]
        {
            let mut memory = FakeMemory::new();
            memory.write_u32(AT, held);
            let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
            let seen = MemoryViews::new(kernel).file("/sys/kernel/security/lockdown");
            assert_eq!(seen.unwrap(), level);
        }
    }
}
