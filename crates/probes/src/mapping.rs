// SPDX-License-Identifier: Apache-2.0
//! Memory shared with the kernel, as maps and perf rings give it.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping of a descriptor.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is plain memory at a fixed place, tied to no thread; who may touch it when is
// decided by the borrows of the owner's methods.
unsafe impl Send for Mapping {}
// SAFETY: as above; the shared methods only give pointers.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes of `descriptor`, to be read or also written.
    pub(crate) fn new(descriptor: impl AsFd, length: usize, writable: bool) -> io::Result<Self> {
        let mut protection = ProtFlags::READ;
        if writable {
            protection |= ProtFlags::WRITE;
        }
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start =
            unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, descriptor, 0) }?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped page zero"))?;
        Ok(Self { start, length })
    }

    /// Where it starts.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole, and nothing borrowed from it outlives `self`.
        // A failure would leave it mapped, which harms nobody.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
