// SPDX-License-Identifier: Apache-2.0
//! Numbers of records in words. What has no word here stays a number, so that nothing is left out.

use abi::*;

/// Bits and their words.
pub(super) type Bits = [(u32, &'static str)];
/// Values and their words.
pub(super) type Values = [(u32, &'static str)];

pub(super) const RECORD: &Bits = &[
    (FLAG_MANDATORY, "mandatory"),
    (FLAG_TRUNCATED, "truncated"),
    (FLAG_UNVERIFIED, "unverified"),
    (FLAG_KERNEL_ACTOR, "kernel_actor"),
    (FLAG_INCOMPLETE, "incomplete"),
];

pub(super) const FILE: &Bits = &[
    (FILE_MEMFD, "memfd"),
    (FILE_DELETED, "deleted"),
    (FILE_VERITY, "verity"),
    (FILE_IN_MEMORY, "in_memory"),
    (FILE_NOSUID, "nosuid"),
    (FILE_NOEXEC, "noexec"),
    (FILE_SETID, "setid"),
];

pub(super) const EXEC: &Bits =
    &[(EXEC_SECURE, "secure"), (EXEC_FILELESS, "fileless"), (EXEC_INTERPRETED, "interpreted")];

/// `PROT_` (uapi/asm-generic/mman-common.h).
pub(super) const PROTECTION: &Bits = &[(1, "read"), (2, "write"), (4, "exec")];

pub(super) const DIGEST: &Values =
    &[(DIGEST_SHA256, "sha256"), (DIGEST_SHA512_TRUNCATED, "sha512_truncated")];

pub(super) const TRACE: &Values =
    &[(TRACE_READ, "read"), (TRACE_ATTACH, "attach"), (TRACE_ME, "traceme")];

pub(super) const CREDENTIALS: &Values = &[
    (CREDENTIALS_SETUID, "setuid"),
    (CREDENTIALS_SETGID, "setgid"),
    (CREDENTIALS_CAPSET, "capset"),
    (CREDENTIALS_EXEC, "exec"),
];

pub(super) const FROM: &Values = &[(MODULE_FROM_FILE, "file"), (MODULE_FROM_MEMORY, "memory")];

pub(super) const ACCESS: &Values = &[(ACCESS_READ, "read"), (ACCESS_WRITE, "write")];

pub(super) const ACCESS_BY: &Values = &[
    (ACCESS_BY_PTRACE, "ptrace"),
    (ACCESS_BY_PROC_MEM, "proc_mem"),
    (ACCESS_BY_PROCESS_VM, "process_vm"),
    (ACCESS_BY_PROCESS_MADVISE, "process_madvise"),
];

pub(super) const FILELESS: &Values = &[(FILELESS_EXEC, "exec"), (FILELESS_MAP, "map")];

pub(super) const MODIFY: &Values = &[(MODIFY_CLOSED, "closed"), (MODIFY_TRUNCATED, "truncated")];

pub(super) const LOST: &Values =
    &[(LOST_RING_FULL, "ring_full"), (LOST_NO_BUFFER, "no_buffer"), (LOST_MISSED, "missed")];

pub(super) const STAGE: &Values = &[
    (STAGE_UNAVAILABLE as u32, "unavailable"),
    (STAGE_OBSERVED as u32, "observed"),
    (STAGE_ASKED as u32, "asked"),
    (STAGE_ENFORCED as u32, "enforced"),
];

pub(super) const SHUTDOWN: &Values =
    &[(SHUTDOWN_STOPPED, "stopped"), (SHUTDOWN_REVOKED, "revoked")];

pub(super) const FINDING: &Values =
    &[(FINDING_NEW, "new"), (FINDING_GONE, "gone"), (FINDING_STANDING, "standing")];

/// The words of the bits that are set; what has none is one number at the end.
pub(super) fn bits(value: u32, words: &Bits) -> Vec<String> {
    let mut rest = value;
    let mut found = Vec::new();
    for (bit, word) in words {
        if value & bit != 0 {
            found.push((*word).to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        found.push(format!("{rest:#x}"));
    }
    found
}

/// The word of a value, or its number.
pub(super) fn word(value: u32, words: &Values) -> String {
    words
        .iter()
        .find(|(number, _)| *number == value)
        .map_or_else(|| value.to_string(), |(_, word)| (*word).to_owned())
}

/// The name of a type, or its number.
pub(super) fn event_type(number: u16) -> String {
    EventType::from_number(number)
        .map_or_else(|| number.to_string(), |event| event.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_word_stays_a_number() {
        assert_eq!(bits(FILE_DELETED | 0x1000, FILE), ["deleted", "0x1000"]);
        assert!(bits(0, FILE).is_empty());
        assert_eq!([word(2, TRACE), word(9, TRACE)], ["attach", "9"]);
        assert_eq!([event_type(1), event_type(60)], ["process_exec", "60"]);
    }
}
