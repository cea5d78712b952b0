// SPDX-License-Identifier: Apache-2.0
//! Verdicts about exec and open where there is no gate: fanotify's permission events.
//!
//! What. A [`Fanotify`] asks about what is executed directly in directories that were marked, and about
//! what is opened directly in directories, or is one of the files, that its clients watch; and takes the
//! answers: [`Question`]s and [`Reply`]s as those of the gate, so that whoever decides need not know from
//! where one comes.
//!
//! Why a fallback. fanotify knows exec and open only, and of an open not what is to be done with the file;
//! it tells of the process but not of the thread, asks its groups one after the other (so there is one for
//! all clients), and lets everything through when its owner dies. It is marked on directories and files
//! and never on a mount or a file system: what is not marked cannot be held up, and a mark on `/` can hold
//! up the owner himself.
//!
//! What its owner must know:
//!
//! - *Closing it allows all that waits*, and so does the end of the process: the kernel knows no other
//!   way. A process that is only stopped holds up all who ask, for as long as that lasts; those can be
//!   killed.
//! - He and what he starts are exempt, in all their threads: a thread of its own (`listener.rs`) answers
//!   that, without a word.
//! - Events are lost when more wait than the kernel's limit (16,384 unless set otherwise); these are
//!   allowed, and [`Fanotify::overflows`] counts that it happened.

mod event;
mod group;
mod listener;
mod places;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::ProbeError;
use crate::gate::Exemptions;
use crate::question::{Notice, ProcessKey, QuestionId, Questions, Reply};
use listener::{Listener, Shared};
use places::Place;

pub use event::{FanotifyError, FanotifyEvent, FanotifyEvents};

/// The errors that a refusal can have besides EPERM (fs/notify/fanotify/fanotify_user.c, 6.14).
pub const ERRORS: [i32; 6] =
    [libc::EIO, libc::EBUSY, libc::ETXTBSY, libc::EAGAIN, libc::ENOSPC, libc::EDQUOT];

/// `RINGFENCE_PROCESS_EXEC` and `RINGFENCE_FILE_OPEN`.
const PROCESS_EXEC: u32 = 1;
const FILE_OPEN: u32 = 40;

/// Numbers of questions begin here; those of the kernel's records are below.
const FIRST: u64 = 1 << 63;

const EXECUTED: u64 = libc::FAN_OPEN_EXEC_PERM | libc::FAN_EVENT_ON_CHILD;

/// See the module.
#[derive(Debug)]
pub struct Fanotify {
    listener: Listener,
    exemptions: Exemptions,
    /// The kernel knows a question by the number of its descriptor, which is therefore kept open here.
    waiting: HashMap<QuestionId, Arc<OwnedFd>>,
    /// Directories that are marked for what is executed there.
    executed: BTreeSet<Place>,
}

impl Fanotify {
    /// Opens it; nothing is marked yet. The process itself is exempt, with all that it starts.
    ///
    /// # Errors
    /// When the kernel or the caller's privileges do not allow it.
    pub fn open() -> Result<Self, ProbeError> {
        let exemptions = Exemptions::load()?;
        let listener = Listener::start(exemptions.exempted()?)?;
        Ok(Self { listener, exemptions, waiting: HashMap::new(), executed: BTreeSet::new() })
    }

    /// What can be asked about of the events of a type, by its number; `None` if nothing.
    #[must_use]
    pub fn reach(kind: u32) -> Option<&'static str> {
        match kind {
            PROCESS_EXEC => Some(
                "only what lies directly in the directories that ringfenced's --ask-directory names; \
                 allowed as it ends",
            ),
            FILE_OPEN => Some(
                "only regular files that are watched or lie directly in watched directories, and not \
                 what they are opened for; allowed as ringfenced ends",
            ),
            _ => None,
        }
    }

    fn shared(&self) -> &Shared {
        &self.listener.shared
    }

    /// Who is asked about what is executed in marked directories: a set of slots. What nobody is asked
    /// about is allowed at once.
    pub fn set_exec_askers(&mut self, askers: u64) {
        self.shared().state().exec_askers = askers;
    }

    /// From now on what is executed directly in a directory is asked about.
    ///
    /// # Errors
    /// When it is no directory, or the kernel does not take it.
    pub fn mark(&mut self, directory: &Path) -> Result<(), ProbeError> {
        self.shared().group.mark(directory, EXECUTED)?;
        self.executed.insert(found(directory)?.0);
        Ok(())
    }

    /// From now on the client of a slot is asked about the opening of what lies directly in these
    /// directories, and of these files; about nothing else. To execute a file it is opened too.
    ///
    /// # Errors
    /// When one leads nowhere, or the kernel does not take it. The others count.
    pub fn watch(&mut self, slot: u32, paths: &[impl AsRef<Path>]) -> Result<(), ProbeError> {
        let (mut places, mut first) = (Vec::new(), Ok(()));
        for path in paths {
            match self.mark_opened(path.as_ref()) {
                Ok(place) => places.push((place, path.as_ref().to_path_buf())),
                Err(error) if first.is_ok() => first = Err(error),
                Err(_) => {}
            }
        }
        let left = self.shared().state().places.change(slot, places);
        for (place, path) in left {
            let unmarked = self.unmark_opened(place, &path);
            first = first.and(unmarked);
        }
        first
    }

    fn mark_opened(&self, path: &Path) -> Result<Place, ProbeError> {
        let (place, is_directory) = found(path)?;
        let children = if is_directory { libc::FAN_EVENT_ON_CHILD } else { 0 };
        self.shared().group.mark(path, libc::FAN_OPEN_PERM | children)?;
        Ok(place)
    }

    /// A path that leads elsewhere by now is left marked until this is closed: nobody is asked for it.
    fn unmark_opened(&self, place: Place, path: &Path) -> Result<(), ProbeError> {
        let Ok((now, is_directory)) = Place::find(path) else { return Ok(()) };
        if now != place {
            return Ok(());
        }
        // With it the mark would lose what is executed in the directory.
        let children = if is_directory && !self.executed.contains(&place) {
            libc::FAN_EVENT_ON_CHILD
        } else {
            0
        };
        self.shared().group.unmark(path, libc::FAN_OPEN_PERM | children)
    }

    /// See [`Exemptions::set`].
    ///
    /// # Errors
    /// As there.
    pub fn exempt(
        &mut self,
        process: ProcessKey,
        own: u64,
        descendants: u64,
    ) -> Result<(), ProbeError> {
        self.exemptions.set(process, own, descendants)
    }

    /// See [`Exemptions::remove`].
    ///
    /// # Errors
    /// As there.
    pub fn no_longer_exempt(&mut self, process: ProcessKey) -> Result<(), ProbeError> {
        self.exemptions.remove(process)
    }

    /// See [`Exemptions::failed`].
    #[must_use]
    pub fn unmarked(&self) -> u64 {
        self.exemptions.failed()
    }

    /// How often the kernel's queue ran over: at least so many events were allowed unasked.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.shared().state().overflows
    }

    /// Whether nothing is asked any more, for a reason that [`Questions::next`] has given.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared().state().ended
    }
}

impl Questions for Fanotify {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared().ready.as_fd()
    }

    fn next(&mut self) -> Result<Option<Notice>, ProbeError> {
        let shared = Arc::clone(&self.listener.shared);
        let mut state = shared.state();
        let asked = state.asked.pop_front();
        let error = if asked.is_none() { state.error.take() } else { None };
        if state.asked.is_empty() && state.error.is_none() {
            // Under the same lock as what makes it readable, so nothing is missed.
            let _ = rustix::io::read(&shared.ready, &mut [0; 8]);
        }
        match (asked, error) {
            (Some((question, file)), _) => {
                self.waiting.insert(question.id, file);
                Ok(Some(Notice::Asked(question)))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// [`Reply::FallBack`] allows, as the kernel does when this is closed.
    fn answer(&mut self, id: QuestionId, reply: Reply) -> Result<(), ProbeError> {
        match self.waiting.remove(&id) {
            Some(file) => self.shared().group.respond(&file, reply),
            None => Ok(()),
        }
    }
}

fn found(path: &Path) -> Result<(Place, bool), ProbeError> {
    Place::find(path).map_err(|error| ProbeError::file(path.display().to_string(), &error.into()))
}

fn failed(what: &'static str, error: Errno) -> ProbeError {
    ProbeError::Failed { what, reason: error.to_string() }
}
