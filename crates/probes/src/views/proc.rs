// SPDX-License-Identifier: Apache-2.0
//! Threads as /proc lists them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use guard::views::TaskView;
use rustix::fs::{Mode, OFlags};

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
        let mut tasks = Vec::new();
        for tgid in numbers(self.path("")).map_err(failed)? {
            // Gone meanwhile: then it has no threads either.
            for tid in numbers(self.path(&format!("{tgid}/task"))).unwrap_or_default() {
                let comm = self.small_file(&format!("{tgid}/task/{tid}/comm"));
                tasks.push(TaskView { tgid, tid, comm: comm.unwrap_or_default() });
            }
        }
        Ok(tasks)
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

    fn small_file(&self, path: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, path, flags, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).take(4096).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
    }

    /// A path for those who need one: that of our descriptor, which may lead to a place that is
    /// mounted nowhere.
    fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{inside}", self.root.as_raw_fd()))
    }
}

/// Whether a proc file system knows us by the number that we have.
fn knows_us(root: impl AsFd) -> bool {
    let link = rustix::fs::readlinkat(root, "self", Vec::new());
    link.is_ok_and(|link| link.to_bytes() == std::process::id().to_string().as_bytes())
}

/// The entries of a directory that are numbers.
fn numbers(directory: PathBuf) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Some(number) = parse_number(&entry?.file_name()) {
            found.push(number);
        }
    }
    Ok(found)
}

fn parse_number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_is_listed_with_its_name_and_answers() {
        let proc = Proc::open().unwrap();
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let tgid = std::process::id();
        let tasks = proc.tasks().unwrap();
        let ours = tasks.iter().find(|task| (task.tgid, task.tid) == (tgid, tid)).unwrap();
        let comm = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        assert_eq!(ours.comm, comm.trim_end());
        assert!(proc.answers(tgid, tid).unwrap());
        // 1 is the first process: never a thread of ours.
        assert!(!proc.answers(tgid, 1).unwrap());
    }
}
