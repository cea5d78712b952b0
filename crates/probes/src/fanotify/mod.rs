// SPDX-License-Identifier: Apache-2.0
//! Verdicts about exec and open where there is no gate: fanotify's permission events.
//!
//! What. A [`Fanotify`] asks about what is executed, and if wanted opened, directly in directories that
//! were marked, and takes the answers: [`Question`]s and [`Reply`]s as those of the gate, so that whoever
//! decides need not know from where one comes.
//!
//! Why a fallback. fanotify knows exec and open only, tells of the process but not of the thread, asks its
//! groups one after the other (so there is one for all clients), and lets everything through when its
//! owner dies. It is marked on directories and never on a mount or a file system: what is not marked
//! cannot be held up, and a mark on `/` can hold up the owner himself.
//!
//! A group of the class PRE_CONTENT, because only to such a one the kernel lets a refusal have another
//! errno than EPERM (6.14 and later, and then one of those in [`ERRORS`]).
//!
//! What its owner must know:
//!
//! - *Closing it allows all that waits*, and so does the end of the process: the kernel knows no other
//!   way. A process that is only stopped holds up all who ask, for as long as that lasts; those can be
//!   killed.
//! - The thread that answers must itself neither open nor execute anything in a marked directory: it
//!   would wait for itself. Other threads of its process, and what it starts, are exempt: the question
//!   is answered here, without a word.
//! - Events are lost when more wait than the kernel's limit (16,384 unless set otherwise); these are
//!   allowed, and [`Fanotify::overflows`] counts that it happened.

mod event;

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::ProbeError;
use crate::gate::process;
use crate::privilege;
use crate::question::{FileKey, Notice, ProcessKey, Question, QuestionId, Questions, Reply};

pub use event::{FanotifyError, FanotifyEvent, FanotifyEvents};

const WHAT: &str = "asking about exec and open through fanotify";

/// The errors that a refusal can have besides EPERM (fs/notify/fanotify/fanotify_user.c, 6.14).
pub const ERRORS: [i32; 6] =
    [libc::EIO, libc::EBUSY, libc::ETXTBSY, libc::EAGAIN, libc::ENOSPC, libc::EDQUOT];

/// `RINGFENCE_PROCESS_EXEC` and `RINGFENCE_FILE_OPEN`.
const PROCESS_EXEC: u32 = 1;
const FILE_OPEN: u32 = 40;

/// Numbers of questions begin here; those of the kernel's records are below.
const FIRST: u64 = 1 << 63;

/// `GATE_ANCESTORS`: how far up the line of parents an exemption is looked for.
const ANCESTORS: usize = 8;

/// Which clients are not asked about what a process does.
#[derive(Clone, Copy, Debug)]
struct Exemption {
    own: u64,
    descendants: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Fanotify {
    group: OwnedFd,
    exec_askers: u64,
    open_askers: u64,
    exempt: HashMap<ProcessKey, Exemption>,
    /// The kernel knows a question by the number of its descriptor, which is therefore kept open here.
    waiting: HashMap<QuestionId, OwnedFd>,
    notices: VecDeque<Notice>,
    next: u64,
    overflows: u64,
    /// False once the kernel has refused an errno that newer ones take.
    takes_errors: bool,
    buffer: Box<[u8]>,
}

impl Fanotify {
    /// Opens it; nothing is marked yet. The process itself is exempt, with all that it starts.
    ///
    /// # Errors
    /// When the kernel or the caller's privileges do not allow it.
    pub fn open() -> Result<Self, ProbeError> {
        let own = ProcessKey::of(std::process::id())?;
        let exempt = HashMap::from([(own, Exemption { own: u64::MAX, descendants: u64::MAX })]);
        Ok(Self {
            group: group()?,
            exec_askers: 0,
            open_askers: 0,
            exempt,
            waiting: HashMap::new(),
            notices: VecDeque::new(),
            next: FIRST,
            overflows: 0,
            takes_errors: true,
            buffer: vec![0; 8192].into(),
        })
    }

    /// Who is asked about what is executed, and opened: sets of slots. What nobody is asked about is
    /// allowed at once.
    pub fn set_askers(&mut self, exec: u64, open: u64) {
        (self.exec_askers, self.open_askers) = (exec, open);
    }

    /// From now on what is executed directly in a directory is asked about; and with `opens`, what is
    /// opened there. What is executed then comes twice, as it is opened for that too.
    ///
    /// # Errors
    /// When it is no directory, or the kernel does not take it.
    pub fn mark(&self, directory: &Path, opens: bool) -> Result<(), ProbeError> {
        self.change_mark(libc::FAN_MARK_ADD, directory, opens)
    }

    /// What is executed and opened in a directory is not asked about any more.
    ///
    /// # Errors
    /// When it was not marked.
    pub fn unmark(&self, directory: &Path, opens: bool) -> Result<(), ProbeError> {
        self.change_mark(libc::FAN_MARK_REMOVE, directory, opens)
    }

    /// See [`GateMaps::exempt`](crate::GateMaps::exempt).
    pub fn exempt(&mut self, process: ProcessKey, own: u64, descendants: u64) {
        let process = ProcessKey { start: process.start / TICK * TICK, ..process };
        self.exempt.insert(process, Exemption { own, descendants });
    }

    /// A process that was exempt is asked about as all others are, or has ended.
    pub fn no_longer_exempt(&mut self, process: ProcessKey) {
        self.exempt.remove(&ProcessKey { start: process.start / TICK * TICK, ..process });
    }

    /// How often the kernel's queue ran over: at least so many events were allowed unasked.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    fn change_mark(&self, change: u32, directory: &Path, opens: bool) -> Result<(), ProbeError> {
        let bytes = directory.as_os_str().as_bytes();
        let failed = |error: &io::Error| ProbeError::file(directory.display().to_string(), error);
        let path = CString::new(bytes).map_err(|error| failed(&error.into()))?;
        let opens = if opens { libc::FAN_OPEN_PERM } else { 0 };
        let mask = libc::FAN_OPEN_EXEC_PERM | libc::FAN_EVENT_ON_CHILD | opens;
        // Neither FAN_MARK_MOUNT nor FAN_MARK_FILESYSTEM: an inode, which must be a directory's.
        let flags = change | libc::FAN_MARK_ONLYDIR;
        let group = self.group.as_raw_fd();
        // SAFETY: a path that ends with a zero and lives through the call.
        let result =
            unsafe { libc::fanotify_mark(group, flags, mask, libc::AT_FDCWD, path.as_ptr()) };
        if result < 0 { Err(failed(&io::Error::last_os_error())) } else { Ok(()) }
    }

    /// Reads what there is. False if there is nothing.
    fn read(&mut self) -> Result<bool, ProbeError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = match rustix::io::read(&self.group, &mut *buffer) {
            Ok(read) => self.take(buffer.get(..read).unwrap_or_default()).map(|()| read > 0),
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(failed("reading a question", error)),
        };
        self.buffer = buffer;
        outcome
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        for event in FanotifyEvents::new(bytes) {
            let event = event.map_err(|error| ProbeError::Malformed {
                what: "an event of fanotify".into(),
                reason: error.to_string(),
            })?;
            if event.mask & libc::FAN_Q_OVERFLOW != 0 {
                self.overflows += 1;
            }
            let [file, process] = [Some(event.descriptor), event.pidfd].map(|descriptor| {
                let descriptor = descriptor.filter(|descriptor| *descriptor >= 0)?;
                // SAFETY: the kernel has just made it for this process, and this is the only place that
                // takes it.
                Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
            });
            if let Some(file) = file {
                self.asked(&event, file, process)?;
            }
        }
        Ok(())
    }

    /// An event with a file: somebody waits.
    fn asked(
        &mut self,
        event: &FanotifyEvent,
        file: OwnedFd,
        process_descriptor: Option<OwnedFd>,
    ) -> Result<(), ProbeError> {
        let (kind, askers) = if event.mask & libc::FAN_OPEN_EXEC_PERM != 0 {
            (PROCESS_EXEC, self.exec_askers)
        } else {
            (FILE_OPEN, self.open_askers)
        };
        let pid = event.pid.cast_unsigned();
        let askers = askers & !self.exempted(pid);
        // A process that is gone, or in another pid namespace, has no key.
        let process = ProcessKey::of(pid).unwrap_or(ProcessKey { pid, start: 0 });
        let known = key(&file).and_then(|key| Ok((key, file.try_clone().map_err(errno)?)));
        let (key, descriptor) = match known {
            Ok(known) if askers != 0 => known,
            Ok(_) => return self.respond(&file, Reply::Allow),
            // What cannot be described cannot be asked about, and whoever waits must not wait for good.
            Err(error) => {
                self.respond(&file, Reply::FallBack)?;
                return Err(failed("describing a file", error));
            }
        };
        let id = QuestionId(self.next);
        self.next += 1;
        self.waiting.insert(id, file);
        self.notices.push_back(Notice::Asked(Question {
            id,
            event_id: id.0,
            kind,
            askers,
            time: now(),
            process,
            thread: 0,
            file: key,
            descriptor: Some(descriptor),
            process_descriptor,
        }));
        Ok(())
    }

    /// The clients who are not asked about what a process does.
    fn exempted(&self, pid: u32) -> u64 {
        let mut exempted = 0;
        let mut pid = pid;
        for level in 0..ANCESTORS {
            let Ok((key, parent)) = process::key_and_parent(pid) else { break };
            if let Some(found) = self.exempt.get(&key) {
                exempted |= if level == 0 { found.own } else { found.descendants };
            }
            if parent <= 1 {
                break;
            }
            pid = parent;
        }
        exempted
    }

    /// Answers the question that the kernel knows by `file`.
    fn respond(&mut self, file: &OwnedFd, reply: Reply) -> Result<(), ProbeError> {
        let denied = match reply {
            // As the kernel does it if its owner dies.
            Reply::Allow | Reply::FallBack => {
                return written(self.write(file, libc::FAN_ALLOW));
            }
            Reply::Deny(error) => i32::from(error),
        };
        if self.takes_errors && ERRORS.contains(&denied) {
            // FAN_DENY_ERRNO: the errno in the highest byte.
            let outcome = self.write(file, libc::FAN_DENY | (denied.cast_unsigned() & 0xff) << 24);
            if outcome != Err(Errno::INVAL) {
                return written(outcome);
            }
            self.takes_errors = false;
        }
        written(self.write(file, libc::FAN_DENY))
    }

    /// `struct fanotify_response`.
    fn write(&self, file: &OwnedFd, response: u32) -> Result<(), Errno> {
        let [descriptor, response] = [file.as_raw_fd().to_ne_bytes(), response.to_ne_bytes()];
        rustix::io::write(&self.group, [descriptor, response].as_flattened()).map(drop)
    }
}

impl Questions for Fanotify {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    fn next(&mut self) -> Result<Option<Notice>, ProbeError> {
        while self.notices.is_empty() && self.read()? {}
        Ok(self.notices.pop_front())
    }

    /// [`Reply::FallBack`] allows, as the kernel does when this is closed.
    fn answer(&mut self, id: QuestionId, reply: Reply) -> Result<(), ProbeError> {
        match self.waiting.remove(&id) {
            Some(file) => self.respond(&file, reply),
            None => Ok(()),
        }
    }
}

/// `GATE_TICK`.
const TICK: u64 = crate::gate::abi::TICK;

/// A group, which tells of processes by pidfd where the kernel can (5.15).
fn group() -> Result<OwnedFd, ProbeError> {
    let flags = libc::FAN_CLASS_PRE_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    let of_files = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC;
    let init = |flags: libc::c_uint| {
        // SAFETY: a plain system call.
        let descriptor = unsafe { libc::fanotify_init(flags, of_files.cast_unsigned()) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    };
    let group = init(flags | libc::FAN_REPORT_PIDFD).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => init(flags),
        _ => Err(error),
    });
    group.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL) => ProbeError::Unsupported {
            what: WHAT,
            lacking: "it is built without CONFIG_FANOTIFY_ACCESS_PERMISSIONS".into(),
        },
        _ => ProbeError::refused(WHAT, &privilege::ADMINISTRATION, &error, ""),
    })
}

fn key(file: &OwnedFd) -> Result<FileKey, Errno> {
    let status = rustix::fs::fstat(file)?;
    let (major, minor) = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
    let seconds = u64::try_from(status.st_ctime).unwrap_or_default();
    let version = seconds.saturating_mul(1_000_000_000).saturating_add(status.st_ctime_nsec as u64);
    Ok(FileKey { device: u64::from(major) << 20 | u64::from(minor), inode: status.st_ino, version })
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// ENOENT: nobody waits for it any more, because he was killed.
fn written(outcome: Result<(), Errno>) -> Result<(), ProbeError> {
    match outcome {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed("answering a question", error)),
    }
}

fn failed(what: &'static str, error: Errno) -> ProbeError {
    ProbeError::Failed { what, reason: error.to_string() }
}
