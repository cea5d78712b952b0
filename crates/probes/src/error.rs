// SPDX-License-Identifier: Apache-2.0
//! What goes wrong between this process and the kernel, each with what to do about it.

use std::io;

use crate::privilege::{self, Needs};

/// Why something of the live kernel is not to be had.
///
/// The message of each kind says what failed and what can be done; nothing is left to a number.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The process lacks the privilege.
    #[error("{what} needs root (or {capabilities}): run ringfence with sudo")]
    NotRoot {
        /// What was wanted.
        what: &'static str,
        /// The capabilities that would do, such as `CAP_BPF and CAP_PERFMON`.
        capabilities: &'static str,
    },
    /// The kernel carries no type information.
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing): BPF programs cannot be fitted \
         to it; boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of all distributions are"
    )]
    NoBtf,
    /// lockdown=confidentiality: reading kernel memory is what it forbids.
    #[error(
        "{what} was refused because the kernel is locked down for confidentiality, which forbids \
         all reading of kernel memory; boot with lockdown=integrity, or watch this machine from \
         outside"
    )]
    LockedDown {
        /// What was wanted.
        what: &'static str,
    },
    /// Root, not locked down, and still refused: a sandbox or a security module.
    #[error("{what} was refused although the caller is root: {hint}")]
    Refused {
        /// What was wanted.
        what: &'static str,
        /// What usually refuses, as far as it can be told from here.
        hint: String,
    },
    /// The running kernel lacks what is needed.
    #[error("{what} is not possible on this kernel: {lacking}")]
    Unsupported {
        /// What was wanted.
        what: &'static str,
        /// What the kernel lacks, and which kernels have it.
        lacking: String,
    },
    /// The kernel refused a program or a call for a reason of its own.
    #[error("{what} failed: {reason}")]
    Failed {
        /// What was wanted.
        what: &'static str,
        /// The last lines of what libbpf and the verifier said, or the system's error.
        reason: String,
    },
    /// Something that was open has come to its end; it can be opened anew.
    #[error("{what} has come to its end: {reason}")]
    Closed {
        /// What it was.
        what: &'static str,
        /// How it ended.
        reason: &'static str,
    },
    /// A file could not be read.
    #[error("{path} cannot be read: {reason}")]
    File {
        /// Which file.
        path: String,
        /// Why, and what to do where something can be done.
        reason: String,
    },
    /// A file or a record of the kernel is not what it should be.
    #[error("{what} cannot be understood: {reason}")]
    Malformed {
        /// Which file or record.
        what: String,
        /// What is wrong with it, and where.
        reason: String,
    },
}

impl ProbeError {
    /// A file that could not be read.
    pub(crate) fn file(path: impl Into<String>, error: &io::Error) -> Self {
        Self::File { path: path.into(), reason: error.to_string() }
    }

    /// A system call or a BPF load that failed with `error`, told apart by the reasons there are
    /// for EPERM. `log` is what libbpf said meanwhile.
    pub(crate) fn refused(what: &'static str, needs: &Needs, error: &io::Error, log: &str) -> Self {
        let refused = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        // The verifier says EINVAL or EACCES with "unknown func" where lockdown takes a helper
        // away, so lockdown is asked about first, whatever the error.
        let locked_down =
            || crate::host::lockdown() == Some(crate::host::Lockdown::Confidentiality);
        if needs.reads_memory && locked_down() {
            return Self::LockedDown { what };
        }
        if refused && !needs.are_met() {
            return Self::NotRoot { what, capabilities: needs.capabilities };
        }
        let said = last_lines(log, 6);
        if error.raw_os_error() == Some(libc::EPERM) {
            let hint = if privilege::under_seccomp() {
                "a seccomp filter is in force (a container or a sandbox?); run ringfence outside it"
            } else {
                "this kernel or a security module in it forbids it; the kernel log may say more"
            };
            return Self::Refused { what, hint: hint.into() };
        }
        let reason = if said.is_empty() { error.to_string() } else { format!("{error}: {said}") };
        Self::Failed { what, reason }
    }
}

/// The last `count` lines that say something, joined. The verifier's log ends with the reason;
/// what libbpf adds around it says no more than the error does, and is all where the kernel was not
/// asked yet.
fn last_lines(log: &str, count: usize) -> String {
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_frame = |line: &&str| ["--", "processed"].iter().any(|start| line.starts_with(start));
    let (own, verifier): (Vec<&str>, Vec<&str>) =
        lines.filter(|line| !is_frame(line)).partition(|line| line.starts_with("libbpf: "));
    let lines = if verifier.is_empty() { own } else { verifier };
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_verifier_log_is_what_is_kept() {
        let log =
            "libbpf: prog: -- BEGIN\n0: r1\n1: r2\nR1 invalid\nprocessed 3 insns\n-- END --\n\n";
        assert_eq!(last_lines(log, 2), "1: r2; R1 invalid");
        assert_eq!(last_lines("", 2), "");
        assert_eq!(last_lines("libbpf: no such symbol\n", 2), "libbpf: no such symbol");
    }
}
