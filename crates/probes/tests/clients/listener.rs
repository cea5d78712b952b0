// SPDX-License-Identifier: Apache-2.0
//! A client for tests of LSM hooks: what it hears while something is done; and what things are done with.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::ptr;

use probes::events::{EventType, Hooks, Mechanism};

use super::record::Record;
use super::{Client, LARGE, Programs};

pub(crate) const READ: i32 = libc::PROT_READ;
pub(crate) const WRITE: i32 = libc::PROT_WRITE;
pub(crate) const EXEC: i32 = libc::PROT_EXEC;
pub(crate) const LENGTH: usize = 8192;

/// A client that is told of one type, and what it says of it.
pub(crate) struct Listener {
    hooks: Hooks,
    pub(crate) client: Client,
    part: &'static str,
    kind: EventType,
}

impl Listener {
    /// None where this type cannot be had, which must be said.
    pub(crate) fn to(kind: EventType, part: &'static str) -> Option<Self> {
        let mut hooks = Hooks::load_for(kind.bit()).unwrap();
        let coverage = hooks.coverage().into_iter().find(|coverage| coverage.kind == kind).unwrap();
        if coverage.notify != Ok(Mechanism::Lsm) {
            let reason = coverage.deny.unwrap_err();
            assert!(!reason.is_empty());
            eprintln!("not looked for: {}: {reason}", kind.name());
            if coverage.notify.is_err() {
                let ring = hooks.create_ring(LARGE).unwrap();
                hooks.admit(0, &ring).unwrap();
                assert!(hooks.subscribe(0, kind.bit()).is_err());
            }
            return None;
        }
        // Credentials are told of when they have changed.
        let denied = kind != EventType::PROCESS_CREDENTIALS;
        assert_eq!(coverage.deny.is_ok_and(|by| by == Mechanism::Lsm), denied);
        let client = Client::admit(&mut hooks, 11, LARGE, &[kind]);
        Some(Self { hooks, client, part, kind })
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

    /// Says that a door was opened, and the event told of, and nothing else: see the lab's coverage.
    pub(crate) fn door(&self, name: &str) {
        println!("door: notify {} {name}", self.kind.name());
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

/// A child that waits to be looked into.
pub(crate) struct Subject(pub(crate) Child);

impl Subject {
    pub(crate) fn start() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub(crate) fn seize(&self) {
        // SAFETY: a child of ours, which is let go again.
        unsafe {
            let none = ptr::null_mut::<libc::c_void>();
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, self.pid(), none, none), 0);
            libc::ptrace(libc::PTRACE_INTERRUPT, self.pid(), none, none);
            assert_eq!(libc::waitpid(self.pid(), ptr::null_mut(), 0), self.pid());
            assert_eq!(libc::ptrace(libc::PTRACE_DETACH, self.pid(), none, none), 0);
        }
    }

    pub(crate) fn vm(&self, call: libc::c_long) -> libc::c_long {
        let mut byte = 0_u8;
        let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // Nothing is there; that is found out after it was asked for.
        let remote = libc::iovec { iov_base: ptr::null_mut(), iov_len: 1 };
        let (pid, count, flags) =
            (libc::c_long::from(self.pid()), 1 as libc::c_ulong, 0 as libc::c_ulong);
        // The last one is passed on the stack, where half of an int's place is whatever was there, and the
        // kernel refuses flags that it does not know.
        // SAFETY: reads or writes one byte of ours at most.
        unsafe {
            libc::syscall(call, pid, &raw const local, count, &raw const remote, count, flags)
        }
    }

    pub(crate) fn pidfd(&self) -> File {
        // SAFETY: a plain system call; the descriptor is ours alone.
        unsafe { File::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, self.pid(), 0) as RawFd) }
    }

    pub(crate) fn get_fd(&self, pidfd: &File) -> libc::c_long {
        // SAFETY: a plain system call; what it gives is closed as this process ends.
        unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), 1, 0) }
    }

    pub(crate) fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
