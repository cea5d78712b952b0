// SPDX-License-Identifier: Apache-2.0
//! The thread that takes what the kernel asks. What nobody is asked about it answers itself, at once;
//! the rest it leaves for whoever decides.
//!
//! A thread of its own, so that the one who decides can open and execute what it likes: what its process
//! does in a marked directory is answered here, and here nothing is opened but files of /proc, on which
//! the kernel takes no mark.

use std::collections::VecDeque;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::group::Group;
use super::places::{Opened, Places};
use super::{FILE_OPEN, FIRST, FanotifyEvent, FanotifyEvents, PROCESS_EXEC, failed};
use crate::error::ProbeError;
use crate::gate::Exempted;
use crate::question::{FileKey, ProcessKey, Question, QuestionId, Reply};

/// What both threads know.
#[derive(Debug)]
pub(super) struct State {
    /// Who is asked about what is executed: a set of slots.
    pub(super) exec_askers: u64,
    /// Who is asked about what is opened.
    pub(super) places: Places,
    /// Questions, each with the descriptor by whose number the kernel knows it.
    pub(super) asked: VecDeque<(Question, Arc<OwnedFd>)>,
    /// What went wrong last, until somebody has been told.
    pub(super) error: Option<ProbeError>,
    /// The thread is not there any more.
    pub(super) ended: bool,
    pub(super) overflows: u64,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: Group,
    /// Readable when something was asked, or the thread has ended.
    pub(super) ready: OwnedFd,
    /// Readable when the thread is to end.
    stop: OwnedFd,
    exempted: Exempted,
    /// Held for moments, and never while anything is opened: see the module.
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread. It ends with this.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(exempted: Exempted) -> Result<Self, ProbeError> {
        let flag = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| failed("making an eventfd", error))
        };
        let state = State {
            exec_askers: 0,
            places: Places::default(),
            asked: VecDeque::new(),
            error: None,
            ended: false,
            overflows: 0,
            next: FIRST,
        };
        let (ready, stop) = (flag()?, flag()?);
        let shared =
            Shared { group: Group::open()?, ready, stop, exempted, state: Mutex::new(state) };
        let shared = Arc::new(shared);
        let listening = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("fanotify".into())
            .spawn(move || {
                let _end = End(&listening);
                if let Err(error) = listening.listen() {
                    listening.state().error = Some(error);
                }
            })
            .map_err(|error| ProbeError::Failed {
                what: "starting a thread",
                reason: error.to_string(),
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        signal(&self.shared.stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says that the thread has ended, however it did.
struct End<'shared>(&'shared Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        if thread::panicking() {
            state.error = Some(ProbeError::Failed {
                what: "taking questions of fanotify",
                reason: "the thread panicked".into(),
            });
        }
        signal(&self.0.ready);
    }
}

impl Shared {
    /// Until it is to end, or cannot go on.
    fn listen(&self) -> Result<(), ProbeError> {
        let mut buffer = vec![0; 8192];
        loop {
            let mut both = [&self.group.as_fd(), &self.stop.as_fd()]
                .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN));
            match poll(&mut both, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed("waiting for questions", error)),
            }
            if !both[1].revents().is_empty() {
                return Ok(());
            }
            match self.group.read(&mut buffer) {
                Ok(read) => self.take(buffer.get(..read).unwrap_or_default())?,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error @ (Errno::BADF | Errno::FAULT | Errno::INVAL)) => {
                    return Err(failed("reading questions", error));
                }
                // The file cannot be opened for this process, perhaps because it has too many. The
                // kernel has denied it (`fanotify_read`), and the next is another.
                Err(error) => {
                    self.state().error = Some(failed("reading a question, which is denied", error));
                    signal(&self.ready);
                }
            }
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<(), ProbeError> {
        for event in FanotifyEvents::new(bytes) {
            let event = event.map_err(|error| ProbeError::Malformed {
                what: "an event of fanotify".into(),
                reason: error.to_string(),
            })?;
            if event.mask & libc::FAN_Q_OVERFLOW != 0 {
                self.state().overflows += 1;
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
        &self,
        event: &FanotifyEvent,
        file: OwnedFd,
        process_descriptor: Option<OwnedFd>,
    ) -> Result<(), ProbeError> {
        let pid = event.pid.cast_unsigned();
        let kind =
            if event.mask & libc::FAN_OPEN_EXEC_PERM != 0 { PROCESS_EXEC } else { FILE_OPEN };
        let askers = self.askers(kind, pid, &file, process_descriptor.as_ref());
        if askers == 0 {
            return self.group.respond(&file, Reply::Allow);
        }
        // A process that is gone, or in another pid namespace, has no key.
        let process = ProcessKey::of(pid).unwrap_or(ProcessKey { pid, start: 0 });
        let (key, file) = (key(&file), Arc::new(file));
        let mut state = self.state();
        let id = QuestionId(state.next);
        state.next += 1;
        let question = Question {
            id,
            event_id: id.0,
            kind,
            askers,
            time: now(),
            process,
            thread: 0,
            file: key,
            descriptor: Some(Arc::clone(&file)),
            process_descriptor,
        };
        state.asked.push_back((question, file));
        signal(&self.ready);
        Ok(())
    }

    /// Who is to be asked, as a set of slots.
    fn askers(&self, kind: u32, pid: u32, file: &OwnedFd, process: Option<&OwnedFd>) -> u64 {
        if pid == std::process::id() {
            return 0;
        }
        let askers = if kind == PROCESS_EXEC {
            self.state().exec_askers
        } else if self.state().places.is_empty() {
            0
        } else {
            // Of what cannot be looked at nobody can be asked.
            Opened::find(file).map_or(0, |opened| self.state().places.askers(&opened))
        };
        if askers == 0 { 0 } else { askers & !self.exempted(pid, process) }
    }

    /// The clients who are not asked about what a process does.
    fn exempted(&self, pid: u32, process: Option<&OwnedFd>) -> u64 {
        let exempted = self.exempted.of(ProcessKey::of(pid).ok(), process.map(AsFd::as_fd));
        // Who is asked once too often waits until a deadline at worst.
        exempted.unwrap_or_else(|error| {
            self.state().error = Some(error);
            signal(&self.ready);
            0
        })
    }
}

/// It counts, so more than one is one; and it never is full.
fn signal(flag: &OwnedFd) {
    let _ = rustix::io::write(flag, &1_u64.to_ne_bytes());
}

/// Of an open file, which always has a status; what had none could not be remembered.
fn key(file: &OwnedFd) -> FileKey {
    let Ok(status) = rustix::fs::fstat(file) else { return FileKey::default() };
    let (major, minor) = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
    let seconds = u64::try_from(status.st_ctime).unwrap_or_default();
    let version = seconds.saturating_mul(1_000_000_000).saturating_add(status.st_ctime_nsec);
    FileKey { device: u64::from(major) << 20 | u64::from(minor), inode: status.st_ino, version }
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
