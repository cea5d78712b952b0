// SPDX-License-Identifier: Apache-2.0
//! Methods that give the memory of a process: GetMemoryMap, ReadMemory.
//!
//! What is in memory is what a process keeps from others, so a grant says who may have it (`memory`). It is
//! bounded for each call, for each second, and to one reading at a time for each user.

use std::io;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::grant::MemoryUse;
use serde::{Deserialize, Serialize};

use super::inspect::unless_gone;
use super::types::FileId;
use super::waiting::For;
use super::{Answer, Caller, Control, ControlError, reply};
use crate::identity::Held;
use crate::kernel::Kernel;
use crate::measure::Subject;
use crate::memory::{self, LONGEST, Mapping, Wanted};

/// What a session gets within [`SPAN`].
const CALLS: u32 = 64;
/// Bytes of memory, of all its calls.
const BYTES: u32 = 16 << 20;
const SPAN: Duration = Duration::from_secs(1);
/// Mappings of one reply, and bytes of it that are not exceeded by more than the longest path.
const MAPPINGS: usize = 1000;
const REPLY: usize = 256 << 10;

/// How much a session had lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    since: Option<Instant>,
    calls: u32,
    bytes: u32,
}

impl Budget {
    /// Takes one call and so many bytes, if there are as many.
    fn take(&mut self, now: Instant, bytes: u32) -> Result<(), ControlError> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        if self.calls >= CALLS {
            let what = "readings of memory in a second";
            return Err(ControlError::LimitExceeded { what, limit: CALLS.into() });
        }
        if self.bytes.saturating_add(bytes) > BYTES {
            let what = "bytes of memory in a second";
            return Err(ControlError::LimitExceeded { what, limit: BYTES.into() });
        }
        (self.calls, self.bytes) = (self.calls + 1, self.bytes + bytes);
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapOf {
    pid: u32,
    start: u64,
    from: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BytesOf {
    pid: u32,
    start: u64,
    address: u64,
    length: u32,
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct MemoryRequest {
    pid: u32,
    wanted: Wanted,
    /// The first address that is of interest.
    from: u64,
}

#[derive(Serialize)]
struct Mapped<'a> {
    start: u64,
    end: u64,
    read: bool,
    write: bool,
    execute: bool,
    shared: bool,
    offset: u64,
    file: Option<FileId>,
    name: Option<std::borrow::Cow<'a, str>>,
    exact: bool,
}

#[derive(Serialize)]
struct Map<'a> {
    mappings: Vec<Mapped<'a>>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct Bytes {
    data: String,
}

impl MemoryRequest {
    pub(super) fn answer(&self, read: &[u8]) -> Result<Answer, ControlError> {
        if self.wanted != Wanted::Map {
            return reply(&Bytes { data: STANDARD.encode(read) });
        }
        let is_wanted = |mapping: &Mapping| {
            // Addresses of the interface are positive; above is what the kernel has for all (vsyscall).
            mapping.end > self.from && i64::try_from(mapping.end).is_ok()
        };
        let (mut taken, mut bytes, mut next) = (Vec::new(), 0, None);
        for mapping in memory::mappings(read).filter(is_wanted) {
            if taken.len() == MAPPINGS || bytes > REPLY {
                next = Some(mapping.start);
                break;
            }
            bytes += 200 + mapping.name.len();
            taken.push(mapping);
        }
        reply(&Map { mappings: taken.iter().map(Mapped::from).collect(), next })
    }

    pub(super) fn failed(&self, error: &io::Error) -> ControlError {
        if error.raw_os_error() == Some(libc::ESRCH) {
            return ControlError::ProcessNotFound { pid: self.pid };
        }
        ControlError::MemoryUnavailable {
            pid: self.pid,
            address: self.from,
            reason: error.to_string(),
        }
    }
}

impl<'a> From<&'a Mapping> for Mapped<'a> {
    fn from(mapping: &'a Mapping) -> Self {
        let name = String::from_utf8_lossy(&mapping.name);
        Self {
            start: mapping.start,
            end: mapping.end,
            read: mapping.protection & 1 != 0,
            write: mapping.protection & 2 != 0,
            execute: mapping.protection & 4 != 0,
            shared: mapping.shared,
            offset: mapping.offset,
            file: mapping.file.map(|(device, inode)| FileId { device, inode }),
            exact: matches!(name, std::borrow::Cow::Borrowed(_)),
            name: (!name.is_empty()).then_some(name),
        }
    }
}

impl<K: Kernel> Control<K> {
    pub(super) fn get_memory_map(
        &mut self,
        caller: &Caller<'_>,
        call: &crate::varlink::Call<'_>,
    ) -> Result<Answer, ControlError> {
        let MapOf { pid, start, from } = super::parameters(call)?;
        self.may_have(caller, MemoryUse::Map, 0)?;
        let request = MemoryRequest { pid, wanted: Wanted::Map, from: from.unwrap_or_default() };
        self.read_memory_of(caller, start, request)
    }

    pub(super) fn read_memory(
        &mut self,
        caller: &Caller<'_>,
        call: &crate::varlink::Call<'_>,
    ) -> Result<Answer, ControlError> {
        let BytesOf { pid, start, address, length } = super::parameters(call)?;
        if length == 0 {
            return Err(ControlError::invalid("length", "at least one byte is read"));
        }
        if length > LONGEST {
            let what = "bytes of memory in a call";
            return Err(ControlError::LimitExceeded { what, limit: LONGEST.into() });
        }
        self.may_have(caller, MemoryUse::Read, length)?;
        let wanted = Wanted::Bytes { address, length };
        self.read_memory_of(caller, start, MemoryRequest { pid, wanted, from: address })
    }

    /// Whether the grant gives it, and there is something left for this second. Root has it without.
    fn may_have(
        &mut self,
        caller: &Caller<'_>,
        wanted: MemoryUse,
        bytes: u32,
    ) -> Result<(), ControlError> {
        self.needs_session_or_root(caller)?;
        let Ok(session) = self.sessions.of(caller.connection) else { return Ok(()) };
        let granted = self.broker.grant(session.slot).map(|grant| grant.memory.as_slice());
        if !granted.unwrap_or_default().contains(&wanted) {
            return Err(ControlError::MemoryNotGranted { what: wanted.name() });
        }
        session.memory.take(Instant::now(), bytes)
    }

    fn read_memory_of(
        &mut self,
        caller: &Caller<'_>,
        start: u64,
        request: MemoryRequest,
    ) -> Result<Answer, ControlError> {
        let pid = request.pid;
        let gone = ControlError::ProcessNotFound { pid };
        let Some(process) = unless_gone(Held::open(pid))? else { return Err(gone) };
        // Held before its key is asked for: it is the process of the key, or has ended.
        let is_meant = self.kernel.keys(pid)?.is_some_and(|(key, _)| key.start == start);
        if !is_meant || process.still_there().is_err() {
            return Err(gone);
        }
        let subject = Subject::Memory { process, wanted: request.wanted };
        Ok(self.wait(caller, subject, For::Memory(request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_so_much_in_a_second_and_then_again() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        for _ in 0..CALLS {
            budget.take(now, 1).unwrap();
        }
        let refused = budget.take(now, 1).unwrap_err();
        assert_eq!(refused.name(), "io.ringfence.Control.LimitExceeded");
        budget.take(now + SPAN, BYTES).unwrap();
        assert!(budget.take(now + SPAN, 1).is_err());
        budget.take(now + 2 * SPAN, 1).unwrap();
    }
}
