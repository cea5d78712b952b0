// SPDX-License-Identifier: Apache-2.0
//! The anchor: the process whose executable is the file that is asked, and that ends all waits if the
//! daemon does not.
//!
//! It is both in one so that nobody can wait where nobody watches: whoever kills the watchdog has taken
//! away what could be waited for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open};

use super::connection::Connection;
use super::program::{ABORT, BEATS};
use crate::error::ProbeError;

/// What it is called: its file, and so its name.
pub(super) const NAME: &std::ffi::CStr = c"ringfence-gate";

/// How long it may take to be executed. It is read from this process.
pub(super) const START: Duration = Duration::from_secs(5);

/// The anchor. It is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Anchor {
    /// In the pid namespace of this process.
    pub(super) pid: u32,
    /// Readable when it has ended.
    pub(super) process: OwnedFd,
    beats: OwnedFd,
}

/// One that was forked and is about to be executed.
pub(super) struct Starting {
    anchor: Anchor,
    /// Ends when it is executed; else four bytes, which say why not.
    pub(super) outcome: OwnedFd,
}

impl Starting {
    /// Forks. This process must then serve the file system until `outcome` can be read, because that is
    /// where the program is read from.
    pub(super) fn fork(connection: &Connection) -> Result<Self, ProbeError> {
        Self::try_fork(connection).map_err(|error| failed(&error))
    }

    fn try_fork(connection: &Connection) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (beats, its_beats) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let (outcome, its_outcome) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Above the places that they are to take.
        let above = |descriptor: BorrowedFd<'_>| fcntl_dupfd_cloexec(descriptor, 16);
        let handed = Handed {
            beats: above(its_beats.as_fd())?,
            abort: above(connection.abort.as_fd())?,
            mount: above(connection.mount.as_fd())?,
            outcome: above(its_outcome.as_fd())?,
        };
        // SAFETY: the child does nothing but what `become_anchor` says.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            become_anchor(&handed);
        }
        let pid = Pid::from_raw(pid).ok_or_else(io::Error::last_os_error)?;
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(error) => {
                // Without a way to follow it there is none.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                return Err(error.into());
            }
        };
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        Ok(Self { anchor: Anchor { pid, process, beats }, outcome })
    }

    /// The anchor, once `outcome` can be read.
    pub(super) fn finish(self) -> Result<Anchor, ProbeError> {
        let mut said = [0; 4];
        match rustix::io::read(&self.outcome, &mut said) {
            Ok(0) => Ok(self.anchor),
            Ok(_) => Err(failed(&io::Error::from_raw_os_error(i32::from_ne_bytes(said)))),
            Err(error) => Err(failed(&error.into())),
        }
    }
}

impl Anchor {
    /// The daemon is well.
    pub(super) fn beat(&self) {
        // If there is no room it has enough of them; if it is gone its descriptor says so.
        let _ = send(&self.beats, b".", SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // One that has ended cannot be killed and is only waited for.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        let process = WaitId::PidFd(self.process.as_fd());
        while let Err(Errno::INTR) = rustix::process::waitid(process.clone(), WaitIdOptions::EXITED)
        {
        }
    }
}

fn failed(error: &io::Error) -> ProbeError {
    ProbeError::Failed { what: "starting the gate's anchor", reason: error.to_string() }
}

/// What the child takes along.
struct Handed {
    beats: OwnedFd,
    abort: OwnedFd,
    mount: OwnedFd,
    outcome: OwnedFd,
}

/// In the child, to the end of it. Other threads of the parent may have held any lock as it was forked,
/// so nothing is called but system calls: no memory is taken, nothing is printed, nothing dropped.
fn become_anchor(handed: &Handed) -> ! {
    let raw = |descriptor: &OwnedFd| -> RawFd { descriptor.as_raw_fd() };
    let arguments = [NAME.as_ptr(), std::ptr::null()];
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: system calls (of the libc those that POSIX lists as safe after fork), with pointers to what
    // lives on the stack of this function or for ever. The descriptors are open.
    unsafe {
        // Out of reach of the signals that the daemon's session and terminal get, and of all but
        // SIGKILL and SIGSTOP.
        libc::setsid();
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        // Of no file system but its own.
        libc::chdir(c"/".as_ptr());
        spare_from_oom();
        let placed = libc::dup2(raw(&handed.beats), BEATS) >= 0
            && libc::dup2(raw(&handed.abort), ABORT) >= 0;
        if placed {
            libc::syscall(libc::SYS_close_range, 0, BEATS - 1, 0);
            let rest = (ABORT + 1, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            libc::syscall(libc::SYS_close_range, rest.0, rest.1, rest.2);
            let mount = raw(&handed.mount);
            let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
            libc::syscall(libc::SYS_execveat, mount, NAME.as_ptr(), arguments, environment, 0);
        }
        let error = *libc::__errno_location();
        let error = error.to_ne_bytes();
        libc::write(raw(&handed.outcome), error.as_ptr().cast(), error.len());
        libc::_exit(1);
    }
}

/// The process that frees others is the last to be killed for memory, of which it has a few pages.
///
/// # Safety
/// None beyond that of the system calls that it makes.
unsafe fn spare_from_oom() {
    const LEAST: &[u8] = b"-1000";
    // SAFETY: the path and the text live for ever.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if file >= 0 {
            libc::write(file, LEAST.as_ptr().cast(), LEAST.len());
            // Closed by the exec at the latest.
            drop(OwnedFd::from_raw_fd(file));
        }
    }
}
