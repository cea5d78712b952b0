// SPDX-License-Identifier: Apache-2.0
//! The memory of processes, on request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::interface::{FileKey, ProcessKey};
use super::{Session, SessionError};

/// A part of the memory of a process.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The one behind its last.
    pub end: u64,
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It can be executed.
    pub execute: bool,
    /// What is written reaches the file and all who have it mapped.
    pub shared: bool,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Nothing for anonymous memory.
    pub file: Option<FileKey>,
    /// Path of the file, or what the kernel calls it, as `[stack]`.
    pub name: Option<String>,
    /// False if the name has bytes that are not UTF-8, which were replaced.
    pub exact: bool,
}

impl Session {
    /// What is mapped where in the memory of a process, in the order of the addresses. What it maps meanwhile
    /// may be there or not.
    ///
    /// # Errors
    ///
    /// [`Refusal::MemoryNotGranted`](super::Refusal::MemoryNotGranted): the grant has no `map`.
    /// [`Refusal::ProcessNotFound`](super::Refusal::ProcessNotFound): it has ended.
    pub fn memory_map(&mut self, process: ProcessKey) -> Result<Vec<Mapping>, SessionError> {
        #[derive(Deserialize)]
        struct Part {
            mappings: Vec<Mapping>,
            next: Option<u64>,
        }
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let call = json!({ "pid": process.pid, "start": process.start, "from": from });
            let (part, _): (Part, _) = self.connection.call("GetMemoryMap", call)?;
            all.extend(part.mappings);
            match part.next {
                None => return Ok(all),
                next => from = next,
            }
        }
    }

    /// What is in the memory of a process from an address on: as many of the bytes as are there without a gap,
    /// at least one, and 256 KiB at a time.
    ///
    /// # Errors
    ///
    /// [`Refusal::MemoryNotGranted`](super::Refusal::MemoryNotGranted): the grant has no `read`.
    /// [`Refusal::MemoryUnavailable`](super::Refusal::MemoryUnavailable): nothing is there, or the process
    /// does not give it. [`Refusal::LimitExceeded`](super::Refusal::LimitExceeded): more than there is in a
    /// second.
    pub fn read_memory(
        &mut self,
        process: ProcessKey,
        address: u64,
        length: u32,
    ) -> Result<Vec<u8>, SessionError> {
        #[derive(Deserialize)]
        struct Read {
            data: String,
        }
        let ProcessKey { pid, start } = process;
        let call = json!({ "pid": pid, "start": start, "address": address, "length": length });
        let (read, _): (Read, _) = self.connection.call("ReadMemory", call)?;
        STANDARD.decode(read.data).map_err(|error| SessionError::Protocol {
            method: "ReadMemory",
            reason: error.to_string(),
        })
    }
}
