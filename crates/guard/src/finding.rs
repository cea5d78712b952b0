// SPDX-License-Identifier: Apache-2.0
//! What the guard reports.

use serde::{Serialize, Serializer};

/// Something that is not as it must be, with the evidence for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check that found it ([`crate::Check::name`]).
    pub check: &'static str,
    /// The symbol that holds `address`, where there is one.
    pub symbol: Option<String>,
    /// Bytes from that symbol to `address`.
    pub offset: u64,
    /// The kernel virtual address concerned; 0 where a finding is not about a place in memory.
    #[serde(serialize_with = "hexadecimal")]
    pub address: u64,
    /// What should be there: bytes in hexadecimal with their disassembly, or a value in words.
    pub expected: String,
    /// What is there, in the same form.
    pub seen: String,
    /// The name of what was done, as the field calls it: `inline patch`, `syscall call retargeted`…
    pub technique: String,
    /// Who is behind it: a module, a BPF program, a process, where that is known.
    pub owner: Option<String>,
    /// Further facts, one line each: how often it was read, by which paths, what the journal says.
    pub evidence: Vec<String>,
}

/// Somebody who asked the kernel, through an interface made for it, to be called at some place.
///
/// A legitimate mechanism is not a legitimate use: each hook is reported with its owner. It becomes
/// a [`Finding`] when its owner cannot be named or policy does not allow it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Hook {
    /// `ftrace`, `kprobe`, `tracepoint`, `bpf`, `livepatch`, `perf`…
    pub mechanism: &'static str,
    /// What is hooked: a function, a tracepoint, a static call.
    pub target: String,
    /// What is called.
    pub handler: String,
    /// Who owns the handler.
    pub owner: String,
}

/// How the text of a kernel was accounted for. All numbers are bytes but the last two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TextSummary {
    /// Bytes of text read.
    pub bytes: u64,
    /// Bytes that must be equal to the expected ones at all times.
    pub pinned: u64,
    /// Bytes in sites that the kernel itself may patch, each with a set of legal encodings.
    pub mutable: u64,
    /// Places that differ from the baseline and hold another legal encoding.
    pub explained_changes: u64,
    /// Places that differ and that nothing explains.
    pub unexplained: u64,
}

/// How the text and read-only data of the loaded modules were accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModulesSummary {
    /// Modules on the kernel's list that were compared with their files.
    pub compared: u64,
    /// Modules on the list that could not be, for a reason that the check gives.
    pub not_compared: u64,
    /// The bytes of those that were.
    #[serde(flatten)]
    pub text: TextSummary,
}

fn hexadecimal<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{address:#x}"))
}
