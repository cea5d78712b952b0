// SPDX-License-Identifier: Apache-2.0
//! What the programs share with this process: bpf/lib/clients_abi.h.

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ProbeError;
use crate::mapping::Mapping;
use crate::test_run::Context;

/// How many clients there can be.
pub const CLIENTS: u32 = 64;
/// `RINGFENCE_TYPES`.
pub(super) const TYPES: usize = 64;
/// `RINGFENCE_RECORD_MAX`.
pub(super) const RECORD_MAX: usize = 12288;
/// Reasons why records are lost, rounded up.
pub(super) const LOST_KINDS: usize = 4;
/// Buffers for each processor, and at most.
pub(super) const BUFFERS_EACH: u32 = 4;
pub(super) const BUFFERS_MOST: u32 = 512;
/// Longest prefix of a path, in bytes.
pub(super) const PREFIX_MAX: usize = 256;

/// `struct subscribers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Subscribers {
    pub(crate) notify: u64,
    pub(crate) ask: u64,
}

/// `struct client_state`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ClientState {
    pub(crate) sequence: u64,
    pub(crate) pending: u64,
    pub(crate) armed: u64,
    pub(crate) mute_process: u64,
    pub(crate) mute_executable: u64,
    pub(crate) mute_cgroup: u64,
    pub(crate) mute_path: u64,
    pub(crate) inverted: u64,
    pub(crate) boot_id: [u8; 16],
    pub(crate) initial_mounts: u32,
    pub(crate) buffers: u32,
    pub(crate) wake_always: u32,
    pub(crate) reserved: u32,
    pub(crate) checked: u64,
    pub(crate) verity_table: u64,
    pub(crate) watching: u64,
}

/// `struct asked`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Asked {
    pub(crate) time: [u64; CLIENTS as usize],
    pub(crate) deny_full: u64,
}

impl Default for Asked {
    fn default() -> Self {
        Self { time: [0; CLIENTS as usize], deny_full: 0 }
    }
}

/// `struct client_counters`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ClientCounters {
    pub(crate) written: u64,
    pub(crate) lost: u64,
    pub(crate) told: u64,
    pub(crate) telling: u32,
    pub(crate) woken: u32,
    pub(crate) lost_by: [[u32; TYPES]; LOST_KINDS],
    pub(crate) told_by: [[u32; TYPES]; LOST_KINDS],
}

/// `struct ringfence_process_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct ProcessKey {
    pub(crate) pid: u32,
    pub(crate) reserved: u32,
    pub(crate) start: u64,
}

/// `struct executable_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub(crate) struct ExecutableKey {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// `struct prefix_key`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PrefixKey {
    pub(crate) length: u32,
    pub(crate) path: [u8; PREFIX_MAX],
}

/// `struct write_call`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct WriteCall {
    pub(crate) slot: u32,
    pub(crate) wake: u32,
    pub(crate) length: u32,
    pub(crate) reserved: u32,
}

/// `struct missed_call`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct MissedCall {
    pub(crate) clients: u64,
    pub(crate) r#type: u32,
    pub(crate) count: u32,
}
// SAFETY: a u64 and two u32, without padding.
unsafe impl Context for MissedCall {}

/// What the program that writes returns: `WRITE_`.
pub(super) const WRITE_DONE: u32 = 0;
pub(super) const WRITE_NO_RING: u32 = 1;
pub(super) const WRITE_FULL: u32 = 2;
pub(super) const WRITE_NO_BUFFER: u32 = 4;

/// `struct write_context`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WriteContext {
    pub(crate) call: WriteCall,
    pub(crate) record: [u8; RECORD_MAX],
}
// SAFETY: four u32 and bytes, without padding.
unsafe impl Context for WriteContext {}

/// The context of a program that does not look at it.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct NoContext(u64);
// SAFETY: one u64.
unsafe impl Context for NoContext {}

/// A type whose value is what its bytes say and nothing else.
///
/// # Safety
/// Every bit pattern must be a value of the type, and it must have no padding.
pub(crate) unsafe trait Plain: Copy {
    /// The bytes that the kernel gets.
    fn bytes(&self) -> &[u8] {
        // SAFETY: a value is its bytes, all of them set, since the type has no padding.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }

    /// The value in bytes that the kernel gave; none if there are not as many.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: as many bytes as the type has, and any bytes are a value of it.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}
// SAFETY: two u64.
unsafe impl Plain for Subscribers {}
// SAFETY: u64 and u32 without gaps.
unsafe impl Plain for ClientCounters {}
// SAFETY: integers of one width only, so there is no padding.
unsafe impl Plain for Asked {}
// SAFETY: two u32 and a u64.
unsafe impl Plain for ProcessKey {}
// SAFETY: two u64.
unsafe impl Plain for ExecutableKey {}
// SAFETY: a u32 and bytes.
unsafe impl Plain for PrefixKey {}

/// The state, which programs read and write at the same time: so single words, atomically.
#[derive(Debug)]
pub(super) struct State(Mapping);

/// A word of the state that this side reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Sequence,
    Pending,
    Armed,
    MuteProcess,
    MuteExecutable,
    MuteCgroup,
    MutePath,
    Inverted,
    Watching,
}

impl State {
    /// Maps the state map.
    pub(super) fn map(map: impl AsFd) -> Result<Self, ProbeError> {
        let mapping = Mapping::new(map, size_of::<ClientState>(), true);
        let failed = |error: std::io::Error| ProbeError::Failed {
            what: "mapping the state of the clients",
            reason: error.to_string(),
        };
        mapping.map(Self).map_err(failed)
    }

    /// Writes everything, before any program is attached.
    pub(super) fn begin(&mut self, state: &ClientState) {
        let place: NonNull<ClientState> = self.0.start().cast();
        // SAFETY: the mapping is as long, page-aligned and writable; nobody else uses it yet.
        unsafe { place.write(*state) };
    }

    /// A word.
    pub(super) fn word(&self, word: Word) -> &AtomicU64 {
        let offset = match word {
            Word::Sequence => offset_of!(ClientState, sequence),
            Word::Pending => offset_of!(ClientState, pending),
            Word::Armed => offset_of!(ClientState, armed),
            Word::MuteProcess => offset_of!(ClientState, mute_process),
            Word::MuteExecutable => offset_of!(ClientState, mute_executable),
            Word::MuteCgroup => offset_of!(ClientState, mute_cgroup),
            Word::MutePath => offset_of!(ClientState, mute_path),
            Word::Inverted => offset_of!(ClientState, inverted),
            Word::Watching => offset_of!(ClientState, watching),
        };
        // SAFETY: within the mapping, which lives as long as the reference; aligned to 8 bytes; and
        // whoever else touches it, programs of the kernel, does so by whole words.
        unsafe { &*self.0.start().add(offset).cast::<AtomicU64>().as_ptr() }
    }

    /// Sets or clears the bit of a client.
    pub(super) fn set(&self, word: Word, slot: u32, on: bool) {
        if on {
            self.word(word).fetch_or(1 << slot, Ordering::SeqCst);
        } else {
            self.word(word).fetch_and(!(1 << slot), Ordering::SeqCst);
        }
    }
}
