// SPDX-License-Identifier: Apache-2.0
//! Who is at the other end of a socket, as a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A pidfd of the process at the other end of a socket (`SO_PEERPIDFD`, 6.5, include/uapi/asm-generic/socket.h).
///
/// # Errors
/// ENOPROTOOPT before 6.5.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: libc::c_int = -1;
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the value and its length are valid for writing for the time of the call, and the
    // length is that of the value.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made the descriptor for this call, so nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
