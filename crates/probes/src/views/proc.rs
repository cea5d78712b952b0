// SPDX-License-Identifier: Apache-2.0
//! Threads as /proc lists them.

use std::fmt::Write;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use guard::views::TaskView;
use rustix::fs::{Mode, OFlags, RawDir};

use super::files::private_mount;
use crate::error::ProbeError;

/// The /proc that speaks of our own pid namespace.
///
/// What a proc file system shows is the pid namespace of whoever mounted it. In a container the
/// /proc of the host may be mounted, or the other way round; numbers of tasks then mean other tasks.
/// So /proc is used if it knows us by the number that we have, and else one is mounted where
/// nobody else sees it.
#[derive(Debug)]
pub(crate) struct Proc {
    root: OwnedFd,
}

impl Proc {
    /// Opens it.
    pub(crate) fn open() -> Result<Self, ProbeError> {
        let failed = |error: io::Error| ProbeError::File {
            path: "/proc".into(),
            reason: format!("{error}; a proc file system of this pid namespace is needed"),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let usual = rustix::fs::open("/proc", flags, Mode::empty());
        if let Ok(root) = usual
            && knows_us(&root)
        {
            return Ok(Self { root });
        }
        let root = private_mount("proc").map_err(failed)?;
        if knows_us(&root) { Ok(Self { root }) } else { Err(failed(io::Error::other("not ours"))) }
    }

    /// All threads, by listing directories. One that goes while it is looked at may be missing.
    pub(crate) fn tasks(&self) -> Result<Vec<TaskView>, ProbeError> {
        let failed = |error: io::Error| ProbeError::file("/proc", &error);
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut processes = Vec::new();
        self.numbers(".", &mut buffer, &mut |tgid| processes.push(tgid)).map_err(failed)?;
        let mut tasks = Vec::with_capacity(processes.len());
        let mut path = String::new();
        for tgid in processes {
            path.clear();
            // Writing to a string cannot fail.
            let _ = write!(path, "{tgid}/task");
            // Gone meanwhile: then it has no threads either.
            let _ = self.numbers(&path, &mut buffer, &mut |tid| tasks.push(TaskView { tgid, tid }));
        }
        Ok(tasks)
    }

    /// The entries of a directory that are numbers.
    fn numbers(
        &self,
        directory: &str,
        buffer: &mut [MaybeUninit<u8>],
        found: &mut dyn FnMut(u32),
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.root, directory, flags, Mode::empty())?;
        let mut entries = RawDir::new(directory, buffer);
        while let Some(entry) = entries.next() {
            if let Some(number) = parse_number(entry?.file_name().to_bytes()) {
                found(number);
            }
        }
        Ok(())
    }

    /// Whether a thread is answered for when asked for by its number.
    pub(crate) fn answers(&self, tgid: u32, tid: u32) -> io::Result<bool> {
        let path = format!("{tgid}/task/{tid}/stat");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.root, path, flags, Mode::empty()) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a proc file system knows us by the number that we have.
fn knows_us(root: impl AsFd) -> bool {
    let link = rustix::fs::readlinkat(root, "self", Vec::new());
    link.is_ok_and(|link| link.to_bytes() == std::process::id().to_string().as_bytes())
}

fn parse_number(name: &[u8]) -> Option<u32> {
    // Most of /proc's own entries begin with a letter.
    name.first().filter(|first| first.is_ascii_digit())?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_is_listed_and_answers() {
        let proc = Proc::open().unwrap();
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let tgid = std::process::id();
        let tasks = proc.tasks().unwrap();
        assert!(tasks.contains(&TaskView { tgid, tid }));
        assert!(proc.answers(tgid, tid).unwrap());
        // 1 is the first process: never a thread of ours.
        assert!(!proc.answers(tgid, 1).unwrap());
    }
}
