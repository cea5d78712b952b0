// SPDX-License-Identifier: Apache-2.0
//! A client for tests of LSM hooks: what it hears while something is done; and what things are done with.

use std::fs::{self, File};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::ptr;

use probes::events::{EventType, Mechanism};

use super::deeds::{LENGTH, Program, Subject, bpf};
use super::record::Record;
use super::{Client, LARGE, Loaded, Programs};

pub(crate) const READ: i32 = libc::PROT_READ;
pub(crate) const WRITE: i32 = libc::PROT_WRITE;
pub(crate) const EXEC: i32 = libc::PROT_EXEC;

/// A client that is told of one type, and what it says of it.
pub(crate) struct Listener {
    hooks: Loaded,
    pub(crate) client: Client,
    part: &'static str,
    kind: EventType,
}

impl Listener {
    /// None where this type cannot be had, which must be said.
    pub(crate) fn to(kind: EventType, part: &'static str) -> Option<Self> {
        let mut hooks = Loaded::of(kind.bit());
        let coverage = hooks.coverage().into_iter().find(|coverage| coverage.kind == kind).unwrap();
        if coverage.notify != Ok(Mechanism::Lsm) {
            let reason =
                coverage.notify.clone().err().unwrap_or_else(|| coverage.deny.unwrap_err());
            assert!(!reason.is_empty());
            eprintln!("not looked for: {}: {reason}", kind.name());
            if coverage.notify.is_err() {
                let ring = hooks.create_ring(LARGE).unwrap();
                hooks.admit(0, &ring).unwrap();
                assert!(hooks.subscribe(0, kind.bit()).is_err());
            }
            return None;
        }
        // Credentials and files are told of when they have changed.
        let denied = ![EventType::PROCESS_CREDENTIALS, EventType::FILE_MODIFY].contains(&kind);
        assert_eq!(coverage.deny.is_ok_and(|by| by == Mechanism::Lsm), denied);
        let client = Client::admit(&mut hooks, 11, LARGE, &[kind]);
        Some(Self { hooks, client, part, kind })
    }

    /// Of what system calls have done, as on a host that refuses LSM programs.
    pub(crate) fn to_calls(kind: EventType, part: &'static str) -> Self {
        let mut hooks = Loaded::without_lsm(kind.bit());
        let coverage = hooks.coverage().into_iter().find(|coverage| coverage.kind == kind).unwrap();
        assert_eq!(coverage.notify, Ok(Mechanism::SystemCall));
        assert!(coverage.deny.is_err());
        let client = Client::admit(&mut hooks, 11, LARGE, &[kind]);
        Self { hooks, client, part, kind }
    }

    /// What is told of while something is done, as far as this process did it. The hooks are passed
    /// before it is done, so it is all there then.
    pub(crate) fn hear<T>(&mut self, what: impl FnOnce() -> T) -> (Vec<Record>, T) {
        self.client.take();
        self.client.seen.clear();
        let done = what();
        self.client.take();
        let ours = self.client.of(std::process::id()).into_iter().cloned().collect();
        let _ = &self.hooks;
        (ours, done)
    }

    /// The one record that is told.
    #[track_caller]
    pub(crate) fn hear_one<T>(&mut self, what: impl FnOnce() -> T) -> (Record, T) {
        let (mut heard, done) = self.hear(what);
        assert_eq!(heard.len(), 1, "{heard:?}");
        (heard.remove(0), done)
    }

    /// The one record that is told of a subject, with some fields that it must have.
    #[track_caller]
    pub(crate) fn hear_of(
        &mut self,
        subject: &Subject,
        fields: &[(&str, u64)],
        what: impl FnOnce(),
    ) {
        let (record, ()) = self.hear_one(what);
        for (field, expected) in fields {
            assert_eq!(self.number(&record, field), *expected, "{field}");
        }
        assert_eq!(self.number(&record, "target.pid"), u64::from(subject.0.id()));
        assert!(!self.text(&record, "executable.path").is_empty());
    }

    /// Nothing is told of.
    #[track_caller]
    pub(crate) fn hear_nothing<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let (heard, done) = self.hear(what);
        assert!(heard.is_empty(), "{heard:?}");
        done
    }

    /// Of `bpf_load`: a program that is loaded is told of with what it is, and a map is not.
    pub(crate) fn hear_of_programs_and_not_of_maps(&mut self) {
        let program = Program::new(b"of_tests");
        let (record, ()) = self.hear_one(|| assert_eq!(program.load(), 0));
        assert_eq!(self.number(&record, "program_type"), 1);
        assert_eq!(self.number(&record, "instructions"), 2);
        assert_eq!(record.bytes("ringfence_bpf_load.name", 9), b"of_tests\0");
        let mut map = [0_u64; 18];
        // An array with a key and a value of four bytes, and one entry.
        map[0] = 2 | 4 << 32;
        map[1] = 4 | 1 << 32;
        self.hear_nothing(|| assert_eq!(bpf(0, &map), 0));
    }

    /// This door was opened, and the event told of.
    pub(crate) fn door(&self, name: &str) {
        super::door_of("notify", self.kind, name);
    }

    pub(crate) fn number(&self, record: &Record, field: &str) -> u64 {
        record.body(&format!("{}.{field}", self.part))
    }

    pub(crate) fn text(&self, record: &Record, field: &str) -> String {
        record.text(&format!("{}.{field}", self.part))
    }
}

/// Some memory.
pub(crate) struct Memory(pub(crate) *mut libc::c_void);

impl Memory {
    pub(crate) fn map(protection: i32, flags: i32, file: RawFd) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), LENGTH, protection, flags, file, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(start)
    }

    pub(crate) fn anonymous(protection: i32) -> Self {
        Self::map(protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    pub(crate) fn protect(&self, protection: i32) {
        // SAFETY: our own mapping, which nobody looks into.
        assert_eq!(unsafe { libc::mprotect(self.0, LENGTH, protection) }, 0);
    }

    /// By pkey_mprotect, with the key -1, which is none.
    pub(crate) fn protect_by_key(&self, protection: i32) -> libc::c_long {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_pkey_mprotect, self.0, LENGTH, protection, -1) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody looks into.
        unsafe { libc::munmap(self.0, LENGTH) };
    }
}

pub(crate) fn some_file(programs: &Programs) -> (PathBuf, File) {
    let path = programs.path().join("library");
    fs::write(&path, [0; LENGTH]).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    (path, file)
}
