// SPDX-License-Identifier: Apache-2.0
//! What a process must be allowed, and whether this one is: for errors that say what to do.

use std::fs;

/// What something needs of the caller and of the kernel.
#[derive(Debug)]
pub(crate) struct Needs {
    /// For people.
    pub(crate) capabilities: &'static str,
    /// Bits of include/uapi/linux/capability.h: one of these sets is enough.
    any_of: &'static [&'static [u32]],
    /// Whether it reads kernel memory, which lockdown=confidentiality forbids.
    pub(crate) reads_memory: bool,
}

const SYS_RAWIO: u32 = 17;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF_CAPABILITY: u32 = 39;

/// BPF programs that read kernel memory.
pub(crate) const BPF: Needs = Needs {
    capabilities: "CAP_BPF and CAP_PERFMON",
    any_of: &[&[SYS_ADMIN], &[BPF_CAPABILITY, PERFMON]],
    reads_memory: true,
};

/// What only an administrator may: BPF objects by their ids, fanotify.
pub(crate) const ADMINISTRATION: Needs =
    Needs { capabilities: "CAP_SYS_ADMIN", any_of: &[&[SYS_ADMIN]], reads_memory: false };

/// perf events of all processes.
pub(crate) const PERF: Needs =
    Needs { capabilities: "CAP_PERFMON", any_of: &[&[SYS_ADMIN], &[PERFMON]], reads_memory: false };

/// /proc/kcore.
pub(crate) const RAW_IO: Needs =
    Needs { capabilities: "CAP_SYS_RAWIO", any_of: &[&[SYS_RAWIO]], reads_memory: true };

impl Needs {
    /// Whether this process has the capabilities.
    pub(crate) fn are_met(&self) -> bool {
        let hex = status_field("CapEff:");
        match hex.and_then(|hex| u64::from_str_radix(&hex, 16).ok()) {
            Some(effective) => self.are_met_by(effective),
            None => rustix::process::geteuid().is_root(),
        }
    }

    fn are_met_by(&self, effective: u64) -> bool {
        self.any_of.iter().any(|set| set.iter().all(|bit| effective >> bit & 1 == 1))
    }
}

/// Whether a seccomp filter is in force for this process.
pub(crate) fn under_seccomp() -> bool {
    status_field("Seccomp:").is_some_and(|mode| mode != "0")
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.get(name.len()..)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_set_of_capabilities_is_enough() {
        assert!(BPF.are_met_by(1 << SYS_ADMIN));
        assert!(BPF.are_met_by(1 << BPF_CAPABILITY | 1 << PERFMON));
        assert!(!BPF.are_met_by(1 << BPF_CAPABILITY));
        assert!(!RAW_IO.are_met_by(1 << SYS_ADMIN));
    }
}
