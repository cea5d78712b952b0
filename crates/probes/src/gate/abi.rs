// SPDX-License-Identifier: Apache-2.0
//! `bpf/lib/gate_abi.h`; crates/probes/src/layout.rs proves that both are laid out alike.

/// A structure that maps hold.
///
/// # Safety
/// Every bit pattern must be a value of the type, and the type must have no padding.
pub(crate) unsafe trait Plain: Copy {
    /// Its bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the type has no padding, so all its bytes are initialised; they live as long as it.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }

    /// The value that the bytes are; none unless there are exactly as many as it has.
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: there are as many bytes as the type has, and any are a value of it.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

/// `GATE_ALLOW` and `GATE_DENY`.
pub(crate) const ALLOW: u32 = 1;
pub(crate) const DENY: u32 = 2;
/// `GATE_TICK`.
pub(crate) const TICK: u64 = 10_000_000;
/// `GATE_TYPES`.
pub(crate) const TYPES: usize = 64;

/// `struct gate_process`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct GateProcess {
    pub(crate) pid: u32,
    pub(crate) reserved: u32,
    pub(crate) start: u64,
}

/// `struct gate_exemption`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct GateExemption {
    pub(crate) own: u64,
    pub(crate) descendants: u64,
    pub(crate) everybody: u64,
}

/// `struct gate_mark`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct GateMark {
    pub(crate) clients: u64,
    pub(crate) everybody: u64,
}

/// `struct gate_marking`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct GateMarking {
    pub(crate) gone: u64,
    pub(crate) process: GateProcess,
    pub(crate) mark: GateMark,
    pub(crate) failed: u64,
}

/// `struct gate_file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct GateFile {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) version: u64,
}

/// `struct gate_reply`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct GateReply {
    pub(crate) event_id: u64,
    pub(crate) verdict: u32,
    pub(crate) error: u32,
    pub(crate) reserved: u64,
}

/// `struct gate_question`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct GateQuestion {
    pub(crate) event_id: u64,
    pub(crate) askers: u64,
    pub(crate) time: u64,
    pub(crate) pid: u32,
    pub(crate) thread: u32,
    pub(crate) start: u64,
    pub(crate) file: GateFile,
    pub(crate) r#type: u32,
    pub(crate) reserved: u32,
    pub(crate) reply: GateReply,
}

/// `struct gate_answer_key`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct GateAnswerKey {
    pub(crate) file: GateFile,
    pub(crate) r#type: u32,
    pub(crate) reserved: u32,
}

/// `struct gate_answer`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct GateAnswer {
    pub(crate) allowed: u64,
}

/// `struct gate_settings`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct GateSettings {
    pub(crate) anchor: u32,
    pub(crate) reserved: u32,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) deny_unanswered: [u64; TYPES],
}

// SAFETY: integers that follow each other without a gap, here and in all that follow.
unsafe impl Plain for GateProcess {}
// SAFETY: as above.
unsafe impl Plain for GateExemption {}
// SAFETY: as above.
unsafe impl Plain for GateMark {}
// SAFETY: as above.
unsafe impl Plain for GateReply {}
// SAFETY: as above.
unsafe impl Plain for GateQuestion {}
// SAFETY: as above.
unsafe impl Plain for GateAnswerKey {}
// SAFETY: as above.
unsafe impl Plain for GateAnswer {}
// SAFETY: as above.
unsafe impl Plain for GateSettings {}
