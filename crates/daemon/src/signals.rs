// SPDX-License-Identifier: Apache-2.0
//! Signals as something to wait for beside sockets: end, and read the grants again.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// SIGTERM or SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// A descriptor that becomes readable when a signal has come.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// From now on SIGINT, SIGTERM and SIGHUP are seen through the descriptor only, by this thread
    /// and those that it starts.
    pub fn catch() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills the set that it is given and cannot fail on a valid pointer.
        let mut set: libc::sigset_t = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the set is initialised and the numbers are those of signals.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: the set is initialised; the old mask is not wanted.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next one that has come.
    pub fn take(&self) -> io::Result<Option<Wanted>> {
        let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut record) {
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            read => read?,
        };
        // Its first field is the number, in 32 bits (include/uapi/linux/signalfd.h).
        let number = record.first_chunk().copied().map_or(0, i32::from_ne_bytes);
        Ok(Some(if number == libc::SIGHUP { Wanted::Reload } else { Wanted::End }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
