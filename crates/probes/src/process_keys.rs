// SPDX-License-Identifier: Apache-2.0
//! The key of a process, exactly as the records of events have it (bpf/process_keys.bpf.c).

use std::io::Read;
use std::os::fd::AsFd;

use libbpf_rs::{Iter, Link, MapCore, MapFlags, Object};

use crate::error::ProbeError;
use crate::kernel_types;
use crate::object::{self, Kind, Own};

const WHAT: &str = "asking for the key of a process";
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/process_keys.bpf.o"));

/// `struct process_keys` of the program, as it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Keys {
    /// When the first thread of the process started: CLOCK_BOOTTIME, in nanoseconds.
    pub start: u64,
    /// The same of its parent; 0 for nobody.
    pub parent_start: u64,
    /// Its number in the initial pid namespace.
    pub pid: u32,
    /// The same of its parent; 0 for nobody.
    pub parent_pid: u32,
}

/// Answers which key a process has. Costs nothing unless it is asked.
#[derive(Debug)]
pub struct ProcessKeys {
    object: Object,
    link: Link,
    _own: Own,
}

impl ProcessKeys {
    /// Loads the program and attaches it to its iterator.
    ///
    /// # Errors
    /// Without the privilege to load BPF programs, or before 5.8, where there are no iterators.
    pub fn load() -> Result<Self, ProbeError> {
        let mut own = Own::default();
        let open = || kernel_types::builder()?.open_memory(OBJECT)?.load();
        let object = object::with_libbpf(WHAT, open)?;
        for program in object.progs() {
            own.add(Kind::Program, program.as_fd())?;
        }
        for map in object.maps() {
            own.add(Kind::Map, map.as_fd())?;
        }
        let program = object.progs_mut().next().ok_or_else(|| malformed("it has no program"))?;
        let link = object::with_libbpf(WHAT, || program.attach())?;
        own.add(Kind::Link, link.as_fd())?;
        Ok(Self { object, link, _own: own })
    }

    /// The keys of the process with this number and of its parent; `None` if there is none.
    ///
    /// # Errors
    /// When the kernel fails.
    pub fn of(&mut self, pid: u32) -> Result<Option<Keys>, ProbeError> {
        let map = self.object.maps().next().ok_or_else(|| malformed("it has no map"))?;
        let zero = 0_u32.to_ne_bytes();
        object::with_libbpf(WHAT, || map.update(&zero, &pid.to_ne_bytes(), MapFlags::ANY))?;
        let mut iterator = object::with_libbpf(WHAT, || Iter::new(&self.link))?;
        let mut bytes = Vec::new();
        let read = iterator.read_to_end(&mut bytes);
        read.map_err(|error| ProbeError::Failed { what: WHAT, reason: error.to_string() })?;
        match Keys::parse(&bytes) {
            _ if bytes.is_empty() => Ok(None),
            Some(keys) if keys.pid == pid => Ok(Some(keys)),
            _ => Err(malformed("what it wrote is not one record of this process")),
        }
    }
}

impl Keys {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk()?;
        let (parent_start, rest) = rest.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (parent_pid, rest) = rest.split_first_chunk()?;
        rest.is_empty().then(|| Self {
            start: u64::from_ne_bytes(*start),
            parent_start: u64::from_ne_bytes(*parent_start),
            pid: u32::from_ne_bytes(*pid),
            parent_pid: u32::from_ne_bytes(*parent_pid),
        })
    }
}

fn malformed(reason: &str) -> ProbeError {
    ProbeError::Malformed { what: "bpf/process_keys.bpf.c".into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From /proc: parent and start, the latter in hundredths of a second.
    fn stat(pid: u32) -> (u32, u64) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[1].parse().unwrap(), fields[19].parse().unwrap())
    }

    #[test]
    #[ignore = "root: loads BPF programs"]
    fn keys_are_what_proc_says_but_exact() {
        let mut keys = ProcessKeys::load().unwrap();
        for pid in [std::process::id(), std::os::unix::process::parent_id()] {
            let found = keys.of(pid).unwrap().unwrap();
            let (parent, start) = stat(pid);
            assert_eq!((found.pid, found.parent_pid), (pid, parent));
            assert_eq!(found.start / 10_000_000, start);
            if parent != 0 {
                assert_eq!(found.parent_start / 10_000_000, stat(parent).1);
            }
        }
        assert_eq!(keys.of(u32::MAX).unwrap(), None);
        // A thread is no process.
        let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get());
        let thread = thread.join().unwrap().cast_unsigned();
        assert_eq!(keys.of(thread).unwrap(), None);
    }
}
