// SPDX-License-Identifier: Apache-2.0
//! Calling a BPF program of type syscall.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::libbpf_sys;

/// A structure that is handed to a program and back.
///
/// # Safety
/// Every bit pattern must be a value of the type, and the type must have no padding.
pub(crate) unsafe trait Context {}
// SAFETY: two u32.
unsafe impl Context for crate::window::Call {}
// SAFETY: one u64.
unsafe impl Context for crate::views::records::CallerRecord {}

/// Runs `program` once with `context`, which the kernel copies in and out; gives what it returns.
///
/// By libbpf and not by libbpf-rs, whose call allocates; the reader calls this for each small read.
pub(crate) fn test_run<T: Context>(program: BorrowedFd<'_>, context: &mut T) -> io::Result<u32> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
        ctx_in: (&raw mut *context).cast(),
        ctx_size_in: size_of::<T>() as u32,
        ..Default::default()
    };
    // SAFETY: `options` and the context live through the call. The kernel reads the context and
    // writes it back to the same place, no longer than it is; any bits are a value of it.
    let result =
        unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(options.retval) }
}
