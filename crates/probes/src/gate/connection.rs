// SPDX-License-Identifier: Apache-2.0
//! The FUSE file system of the gate: mounted nowhere.
//!
//! A file system that was made by fsopen and fsmount has a mount but no place in any mount namespace.
//! Whoever has its descriptor can open and execute what is on it; nobody else can name it, see it in
//! /proc/mounts, or mount something over it. So the daemon needs no namespace of its own for this,
//! whose view would then differ from everybody's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::ProbeError;
use crate::privilege;

/// What all of it is for, in errors.
pub(super) const WHAT: &str = "opening the gate (a FUSE file system)";

/// The file system and its two ends.
#[derive(Debug)]
pub(super) struct Connection {
    /// /dev/fuse: requests are read, answers written. Closing it ends every wait.
    pub(super) requests: OwnedFd,
    /// The mount, and with it the root directory.
    pub(super) mount: OwnedFd,
    /// What ends every wait when something is written to it.
    pub(super) abort: OwnedFd,
    /// super_block.s_dev.
    pub(super) device: u64,
}

impl Connection {
    /// Makes the file system. Its first request, INIT, waits to be answered then.
    pub(super) fn open() -> Result<Self, ProbeError> {
        let failed = |error: rustix::io::Errno| {
            ProbeError::refused(WHAT, &privilege::ADMINISTRATION, &error.into(), "")
        };
        let requests = requests()?;
        let mount = mount(&requests).map_err(failed)?;
        // Without asking: nobody answers yet.
        let quietly = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let root = rustix::fs::statx(&mount, "", quietly, StatxFlags::empty()).map_err(failed)?;
        let device = u64::from(root.stx_dev_major) << 20 | u64::from(root.stx_dev_minor);
        let abort = abort(device).map_err(failed)?;
        Ok(Self { requests, mount, abort, device })
    }
}

fn requests() -> Result<OwnedFd, ProbeError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO => {
            ProbeError::Unsupported {
                what: WHAT,
                lacking:
                    "there is no /dev/fuse: CONFIG_FUSE_FS is off, or its module is not loaded \
                          (modprobe fuse)"
                        .into(),
            }
        }
        _ => ProbeError::file("/dev/fuse", &error.into()),
    })
}

/// What is mounted: files of root, and all users' tasks may ask.
fn mount(requests: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", "ringfence-gate")?;
    fsconfig_set_string(context, "fd", requests.as_raw_fd().to_string())?;
    fsconfig_set_string(context, "rootmode", "40000")?;
    fsconfig_set_string(context, "user_id", "0")?;
    fsconfig_set_string(context, "group_id", "0")?;
    fsconfig_set_flag(context, "allow_other")?;
    fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The file of the control file system (fs/fuse/control.c) that aborts this connection. That has a mount
/// of its own here too, which the open file keeps.
fn abort(device: u64) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let none = MountAttrFlags::empty();
    let control = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, none)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(control, format!("{device}/abort"), flags, Mode::empty())
}

/// Tries all of it, for [`support`](super::support): what is made is undone as it is dropped.
pub(super) fn try_out() -> Result<(), ProbeError> {
    Connection::open().map(drop)
}

/// What a read from /dev/fuse gave.
pub(super) enum Read {
    /// A request of so many bytes.
    Request(usize),
    /// None now.
    Nothing,
    /// The connection was aborted.
    Aborted,
}

impl Connection {
    /// Reads one request.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<Read, ProbeError> {
        use rustix::io::Errno;

        loop {
            match rustix::io::read(&self.requests, &mut *buffer) {
                Ok(0) | Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(Read::Aborted),
                Ok(read) => return Ok(Read::Request(read)),
                Err(Errno::AGAIN) => return Ok(Read::Nothing),
                // ENOENT: the request was taken back while it was read.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(error) => return Err(system("reading a question", error.into())),
            }
        }
    }

    /// Writes an answer.
    pub(super) fn write(&self, answer: &[u8]) -> Result<(), ProbeError> {
        use rustix::io::Errno;

        match rustix::io::write(&self.requests, answer) {
            // ENOENT: nobody waits for it any more, as after an abort.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED | Errno::PERM) => Ok(()),
            Err(error) => Err(system("answering a question", error.into())),
        }
    }
}

fn system(what: &'static str, error: io::Error) -> ProbeError {
    ProbeError::Failed { what, reason: error.to_string() }
}
