// SPDX-License-Identifier: Apache-2.0
//! A reader of a client's ring, as small as one can be: what a client without any privilege does.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const PAGE: usize = 4096;
const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;

/// A mapped ring.
pub(crate) struct Reader {
    consumer: *mut u8,
    producer: *const u8,
    bytes: usize,
}

// SAFETY: the mappings belong to this value alone and are tied to no thread.
unsafe impl Send for Reader {}

impl Reader {
    /// Maps the ring behind a descriptor: a page to write, and then a page and twice the data to read.
    pub(crate) fn map(ring: impl AsFd, bytes: usize) -> io::Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let consumer = unsafe { mmap(ptr::null_mut(), PAGE, both, MapFlags::SHARED, &ring, 0) }?;
        let (length, read) = (PAGE + 2 * bytes, ProtFlags::READ);
        let offset = PAGE as u64;
        // SAFETY: as above.
        let producer =
            unsafe { mmap(ptr::null_mut(), length, read, MapFlags::SHARED, &ring, offset) }?;
        Ok(Self { consumer: consumer.cast(), producer: producer.cast_const().cast(), bytes })
    }

    fn consumer(&self) -> &AtomicU64 {
        // SAFETY: the first word of a page that is mapped as long as self is.
        unsafe { AtomicU64::from_ptr(self.consumer.cast()) }
    }

    /// Where the kernel has come to.
    pub(crate) fn produced(&self) -> u64 {
        // SAFETY: the first word of a mapped page; it is only read.
        unsafe { AtomicU64::from_ptr(self.producer.cast_mut().cast()) }.load(Ordering::Acquire)
    }

    /// All whole records since the last time.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let mut position = self.consumer().load(Ordering::Acquire);
        while position < self.produced() {
            // SAFETY: data is mapped twice in a row, so an entry that begins in the first half is whole.
            let entry = unsafe { self.producer.add(PAGE + (position as usize & (self.bytes - 1))) };
            // SAFETY: entries are aligned to eight bytes; the length is their first word.
            let length = unsafe { AtomicU32::from_ptr(entry.cast_mut().cast()) };
            let length = length.load(Ordering::Acquire);
            if length & BUSY != 0 {
                break;
            }
            let size = (length & !DISCARD) as usize;
            if length & DISCARD == 0 {
                // SAFETY: as many bytes as the kernel says, which it does not touch until they are
                // consumed.
                records.push(unsafe { std::slice::from_raw_parts(entry.add(8), size) }.to_vec());
            }
            position += (size as u64 + 8).next_multiple_of(8);
            self.consumer().store(position, Ordering::Release);
        }
        records
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and nothing borrowed from them is left.
        unsafe {
            let _ = munmap(self.consumer.cast(), PAGE);
            let _ = munmap(self.producer.cast_mut().cast(), PAGE + 2 * self.bytes);
        }
    }
}

/// Waits until one of the rings can be read; gives whether one can.
pub(crate) fn wait<T: AsFd>(rings: &[T], limit: Duration) -> bool {
    let mut ready: Vec<_> =
        rings.iter().map(|ring| PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN)).collect();
    let limit =
        Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    poll(&mut ready, Some(&limit)).unwrap() > 0
}

/// The number of a descriptor, once it is kept open over an exec.
pub(crate) fn inheritable(descriptor: impl AsFd) -> i32 {
    rustix::io::fcntl_setfd(descriptor.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    descriptor.as_fd().as_raw_fd()
}
