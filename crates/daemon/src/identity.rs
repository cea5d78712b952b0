// SPDX-License-Identifier: Apache-2.0
//! Who is at the other end of a connection, by the kernel's word.
//!
//! The user is that of the moment of `connect`, and cannot change afterwards. The process is held by
//! a pidfd, so its number cannot come to mean another one. What it runs is looked at when it asks for
//! a session.
//!
//! What this is worth. Linux lets a process of the same user trace another one, preload libraries
//! into it and hand its sockets around. So the executable says which product it is only among
//! processes that may not do that to each other: a grant names a user, and a product that wants to be
//! told from others has a user of its own. That the executable is compared too is no proof, but it
//! keeps out what was not installed.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use probes::peer_pidfd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The process that connected.
#[derive(Debug)]
pub struct Peer {
    /// Of its thread group.
    pub pid: u32,
    /// Its effective user as it connected.
    pub uid: u32,
    /// Its effective group as it connected.
    pub gid: u32,
    /// Holds the process.
    process: OwnedFd,
}

impl Peer {
    /// Who connected to the other end of this socket. An error if that process has ended.
    ///
    /// Before 6.5 the kernel gives the number only. Between `connect` and the moment that it is
    /// looked up, the process can have ended and its number can be another's; that is for who can
    /// make numbers go round, and it still has to be of the same user to get anything by it.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        let process = match peer_pidfd(socket) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                pidfd_open(credentials.pid, PidfdFlags::empty())?
            }
            other => other?,
        };
        Ok(Self {
            pid: credentials.pid.as_raw_nonzero().get().cast_unsigned(),
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
            process,
        })
    }

    /// This process itself.
    pub fn this(uid: u32) -> io::Result<Self> {
        let pid = rustix::process::getpid();
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let gid = rustix::process::getegid().as_raw();
        Ok(Self { pid: pid.as_raw_nonzero().get().cast_unsigned(), uid, gid, process })
    }

    /// Whether it may do what only an administrator may.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Its pidfd, once more.
    pub fn process(&self) -> io::Result<Held> {
        Ok(Held { pid: self.pid, process: self.process.try_clone()? })
    }
}

/// A process that is held: as long as it has not ended, its number is its own.
#[derive(Debug)]
pub struct Held {
    pid: u32,
    process: OwnedFd,
}

impl Held {
    /// Holds the process that has this number now; the number must be of a thread group.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or(io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(Self { pid, process: pidfd_open(number, PidfdFlags::empty())? })
    }

    /// Of its thread group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// An error if it has ended. What was read by its number before this said otherwise is about it.
    pub fn still_there(&self) -> io::Result<()> {
        let mut ended = [PollFd::new(&self.process, PollFlags::IN)];
        let none = rustix::time::Timespec::try_from(Duration::ZERO).map_err(io::Error::other)?;
        match poll(&mut ended, Some(&none))? {
            0 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// What it runs, opened once: everything that is said of it is said of this file.
    ///
    /// Opening and reading can take as long as the file's system likes (FUSE, network), so this is
    /// never done by the thread that serves.
    pub fn executable(&self) -> io::Result<(File, Vec<u8>)> {
        let link = format!("/proc/{}/exe", self.pid);
        let path = rustix::fs::readlink(&link, Vec::new())?.into_bytes();
        let file = File::open(&link)?;
        self.still_there()?;
        Ok((file, path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::*;

    #[test]
    fn who_made_a_pair_of_sockets_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(one.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let (_, path) = peer.process().unwrap().executable().unwrap();
        assert_eq!(path, std::env::current_exe().unwrap().into_os_string().into_encoded_bytes());
    }

    #[test]
    fn a_process_that_has_ended_is_not_taken_for_the_next_of_its_number() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let held = Held::open(child.id()).unwrap();
        held.still_there().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(held.still_there().unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert!(held.executable().is_err());
    }

    #[test]
    fn no_process_has_an_impossible_number() {
        for pid in [0, u32::MAX, i32::MAX.cast_unsigned()] {
            assert!(Held::open(pid).is_err(), "{pid}");
        }
    }
}
