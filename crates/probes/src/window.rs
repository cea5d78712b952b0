// SPDX-License-Identifier: Apache-2.0
//! One loaded copy of the kernel reader with its request array and output window.
//!
//! The layouts are those of bpf/lib/reader_abi.h.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::error::ProbeError;
use crate::mapping::Mapping;
use crate::object::{self, Kind, Own};
use crate::reader::Path;
use crate::skeletons::kernel_reader::KernelReaderSkelBuilder;
use crate::test_run::test_run;

/// `READER_PAGE`.
pub(crate) const PAGE: u64 = 4096;
/// `READER_WINDOW`.
pub(crate) const WINDOW: usize = 1024 * 1024;
/// `READER_REQUESTS`.
pub(crate) const REQUESTS: usize = 4096;

/// `enum reader_status`: the words are in the window.
pub(crate) const DONE: u16 = 1;
/// `enum reader_status`: nothing readable is mapped there.
pub(crate) const UNREADABLE: u16 = 2;

/// `struct reader_request`: one stretch of one page.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Request {
    /// Kernel virtual address, a multiple of 8.
    pub(crate) address: u64,
    /// Where its bytes go in the window: a multiple of 8, at most `WINDOW - PAGE`.
    pub(crate) position: u32,
    /// Bytes, a multiple of 8, at most [`PAGE`], all in one page.
    pub(crate) length: u16,
    /// `enum reader_status`, written by the program.
    pub(crate) status: u16,
}

/// `struct reader_call`: the context of a call.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Call {
    pub(crate) count: u32,
    pub(crate) reserved: u32,
}

/// A program that reads, with its two arrays. Whoever holds it `mut` has the only use of them.
#[derive(Debug)]
pub(crate) struct Window {
    program: OwnedFd,
    requests: Mapping,
    output: Mapping,
    _own: Own,
}

impl Window {
    /// Loads the program for `path`.
    pub(crate) fn load(path: Path) -> Result<Self, ProbeError> {
        let what = match path {
            Path::Inline => "loading the kernel reader (inline loads)",
            Path::Helper => "loading the kernel reader (helper)",
        };
        let mut storage = MaybeUninit::uninit();
        let skeleton = object::with_libbpf(what, || {
            // It uses the number of a type, so the types are all the kernel has.
            let mut open = KernelReaderSkelBuilder::default().open(&mut storage)?;
            open.progs.read_inline.set_autoload(path == Path::Inline);
            open.progs.read_helper.set_autoload(path == Path::Helper);
            open.load()
        })?;
        let program = match path {
            Path::Inline => skeleton.progs.read_inline.as_fd(),
            Path::Helper => skeleton.progs.read_helper.as_fd(),
        };
        let mut own = Own::default();
        own.add(Kind::Program, program)?;
        own.add(Kind::Map, skeleton.maps.requests.as_fd())?;
        own.add(Kind::Map, skeleton.maps.window.as_fd())?;
        let failed =
            |error: io::Error| ProbeError::Failed { what, reason: format!("mapping: {error}") };
        let length = REQUESTS * size_of::<Request>();
        Ok(Self {
            program: program.try_clone_to_owned().map_err(failed)?,
            requests: Mapping::new(skeleton.maps.requests.as_fd(), length, true).map_err(failed)?,
            output: Mapping::new(skeleton.maps.window.as_fd(), WINDOW, false).map_err(failed)?,
            _own: own,
        })
    }

    /// The requests of the next call; after it, their statuses.
    pub(crate) fn requests(&mut self) -> &mut [Request] {
        // SAFETY: the mapping holds REQUESTS of them, page-aligned, and any bits are a value. The
        // program writes there only during `call`, which borrows `self` as this does.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.requests.start().cast::<Request>().as_ptr(),
                REQUESTS,
            )
        }
    }

    /// Has the program go through the first `count` requests.
    pub(crate) fn call(&mut self, count: usize) -> io::Result<()> {
        let mut context = Call { count: count.min(REQUESTS) as u32, reserved: 0 };
        let done = test_run(self.program.as_fd(), &mut context)?;
        if done != context.count {
            return Err(io::Error::other(format!(
                "the program went through {} of {} requests",
                done.cast_signed(),
                context.count
            )));
        }
        Ok(())
    }

    /// What the last call read.
    pub(crate) fn output(&self) -> &[u8] {
        // SAFETY: the mapping holds WINDOW bytes. The program writes there only during `call`,
        // which needs `self` unshared, so nothing changes while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.output.start().as_ptr(), self.output.length()) }
    }
}
