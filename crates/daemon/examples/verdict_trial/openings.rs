// SPDX-License-Identifier: Apache-2.0
//! Ways to open a file: each gives the errno that it failed with.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use io_uring::{IoUring, opcode, types};

use crate::deeds::{Came, came, ended, text};

pub(crate) fn opened(path: &str, write: bool) -> Came {
    ended(File::options().read(!write).write(write).open(path))
}

/// Opens a file for reading with no call of the open family.
pub(crate) fn opened_by_ring(path: &str) -> anyhow::Result<Came> {
    let path = CString::new(path)?;
    let mut ring = IoUring::new(1)?;
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
    // SAFETY: the path lives until the entry is completed, which is waited for.
    unsafe { ring.submission().push(&entry)? };
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().context("nothing was completed")?.result();
    if done < 0 {
        return Ok(Err(-done));
    }
    // SAFETY: a descriptor that was just made for us.
    drop(unsafe { OwnedFd::from_raw_fd(done) });
    Ok(Ok(()))
}

/// Opens by openat2, for reading.
pub(crate) fn opened_as_said(path: &str) -> anyhow::Result<Came> {
    let path = text(path)?;
    // struct open_how: flags, mode, resolve.
    let how = [libc::O_CLOEXEC as u64, 0, 0];
    // SAFETY: a path that ends, and as many bytes as are said to be there.
    closed(unsafe {
        let how = (how.as_ptr(), size_of_val(&how));
        libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.0, how.1)
    })
}

/// Opens by open(2) itself, with any flags.
pub(crate) fn opened_with(path: &str, flags: i32) -> anyhow::Result<Came> {
    let path = text(path)?;
    // SAFETY: a path that ends.
    closed(i64::from(unsafe { libc::open(path.as_ptr(), flags) }))
}

/// Opens by a handle, for reading. That is found before, for which nothing is opened but a directory above.
pub(crate) fn opened_by_handle(path: &str) -> anyhow::Result<Came> {
    let mount = File::open("/tried")?;
    let path = text(path)?;
    // struct file_handle: how many bytes there are, the type, 128 bytes.
    let (mut handle, mut mount_id) = ([0_u32; 34], 0_i32);
    handle[0] = 128;
    // SAFETY: a path that ends, and room for what is written.
    let named = unsafe {
        let (handle, id) = (handle.as_mut_ptr(), &raw mut mount_id);
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), handle, id, 0)
    };
    came(named).map_err(io::Error::from_raw_os_error).context("no handle")?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a handle of the kernel's.
    closed(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), handle.as_ptr(), flags)
    })
}

/// Opens what a descriptor stands for that can be neither read nor written.
pub(crate) fn opened_again(path: &str) -> anyhow::Result<Came> {
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_PATH).open(path)?;
    Ok(opened(&format!("/proc/self/fd/{}", file.as_raw_fd()), false))
}

/// What came of a call that gives a descriptor, which is closed.
fn closed(descriptor: i64) -> anyhow::Result<Came> {
    let came = came(descriptor);
    if came.is_ok() {
        // SAFETY: a descriptor that was just made for us.
        drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(descriptor)?) });
    }
    Ok(came)
}
