// SPDX-License-Identifier: Apache-2.0
//! The kernel's side: a group of fanotify, its marks and the answers that it takes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::ERRORS;
use crate::error::ProbeError;
use crate::privilege;
use crate::question::Reply;

const WHAT: &str = "asking about exec and open through fanotify";

/// A group of the class PRE_CONTENT, because only to such a one the kernel lets a refusal have another
/// errno than EPERM (6.14 and later, and then one of those in [`ERRORS`]).
#[derive(Debug)]
pub(super) struct Group {
    descriptor: OwnedFd,
    /// False once the kernel has refused an errno that newer ones take.
    takes_errors: AtomicBool,
}

impl Group {
    /// Opens one, which tells of processes by pidfd where the kernel can (5.15). Nothing is marked yet.
    pub(super) fn open() -> Result<Self, ProbeError> {
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
        let group =
            init(flags | libc::FAN_REPORT_PIDFD).or_else(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => init(flags),
                _ => Err(error),
            });
        let descriptor = group.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL) => ProbeError::Unsupported {
                what: WHAT,
                lacking: "it is built without CONFIG_FANOTIFY_ACCESS_PERMISSIONS".into(),
            },
            _ => ProbeError::refused(WHAT, &privilege::ADMINISTRATION, &error, ""),
        })?;
        Ok(Self { descriptor, takes_errors: AtomicBool::new(true) })
    }

    /// Has these events of a file, or of what is directly in a directory, waited with. The kernel
    /// refuses those of /proc (`FS_DISALLOW_NOTIFY_PERM`), which is read to answer.
    pub(super) fn mark(&self, path: &Path, events: u64) -> Result<(), ProbeError> {
        self.change(libc::FAN_MARK_ADD, path, events).map_err(|error| in_words(path, &error))
    }

    /// Takes that back. What is not marked, or not there, needs nothing.
    pub(super) fn unmark(&self, path: &Path, events: u64) -> Result<(), ProbeError> {
        match self.change(libc::FAN_MARK_REMOVE, path, events) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(in_words(path, &error)),
            _ => Ok(()),
        }
    }

    /// Neither `FAN_MARK_MOUNT` nor `FAN_MARK_FILESYSTEM`, ever: a mark is on an inode.
    fn change(&self, change: u32, path: &Path, events: u64) -> io::Result<()> {
        // Of what else a path leads to nothing can be asked.
        let directory =
            if events & libc::FAN_EVENT_ON_CHILD != 0 { libc::FAN_MARK_ONLYDIR } else { 0 };
        let path = CString::new(path.as_os_str().as_bytes())?;
        let group = self.descriptor.as_raw_fd();
        // SAFETY: a path that ends with a zero and lives through the call.
        let result = unsafe {
            libc::fanotify_mark(group, change | directory, events, libc::AT_FDCWD, path.as_ptr())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// What there is, as [`super::FanotifyEvents`] takes it.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.descriptor, buffer)
    }

    /// Answers the question that the kernel knows by `file`.
    pub(super) fn respond(&self, file: &OwnedFd, reply: Reply) -> Result<(), ProbeError> {
        let denied = match reply {
            // As the kernel does it if its owner dies.
            Reply::Allow | Reply::FallBack => {
                return written(self.write(file, libc::FAN_ALLOW));
            }
            Reply::Deny(error) => i32::from(error),
        };
        if self.takes_errors.load(Ordering::Relaxed) && ERRORS.contains(&denied) {
            // FAN_DENY_ERRNO: the errno in the highest byte.
            let outcome = self.write(file, libc::FAN_DENY | (denied.cast_unsigned() & 0xff) << 24);
            if outcome != Err(Errno::INVAL) {
                return written(outcome);
            }
            self.takes_errors.store(false, Ordering::Relaxed);
        }
        written(self.write(file, libc::FAN_DENY))
    }

    /// `struct fanotify_response`.
    fn write(&self, file: &OwnedFd, response: u32) -> Result<(), Errno> {
        let [descriptor, response] = [file.as_raw_fd().to_ne_bytes(), response.to_ne_bytes()];
        rustix::io::write(&self.descriptor, [descriptor, response].as_flattened()).map(drop)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn in_words(path: &Path, error: &io::Error) -> ProbeError {
    ProbeError::file(path.display().to_string(), error)
}

/// ENOENT: nobody waits for it any more, because he was killed.
fn written(outcome: Result<(), Errno>) -> Result<(), ProbeError> {
    match outcome {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(super::failed("answering a question", error)),
    }
}
