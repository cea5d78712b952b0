// SPDX-License-Identifier: Apache-2.0
//! A ring that this process fills itself: to try a product without root and without a kernel that
//! takes part, and to see what a reader does when a producer errs.
//!
//! It is a memory file laid out as a BPF ring buffer is mapped, so that the reader knows no difference.
//! The kernel maps its data twice; here it is written twice.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::ring::{BUSY, DISCARD};

/// Writes a ring as the kernel does.
#[derive(Debug)]
pub struct RingWriter {
    file: OwnedFd,
    memory: MmapRaw,
    page: usize,
    size: usize,
    position: u64,
}

/// A place that is taken and not finished: the reader stops before it.
#[derive(Debug)]
#[must_use = "an entry that is never finished stops the reader for good"]
pub struct Reserved {
    position: u64,
    length: u32,
}

impl RingWriter {
    /// An empty ring.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `size` is not a power of two of at least a page; else the system's.
    pub fn new(size: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        if !size.is_power_of_two() || size < page {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("ringfence-ring", flags)?;
        let whole = 2 * page + 2 * size;
        rustix::fs::ftruncate(&file, whole as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        let memory = MmapOptions::new().len(whole).map_raw(&file)?;
        Ok(Self { file, memory, page, size, position: 0 })
    }

    /// A descriptor to read it by: [`Ring::new`](crate::Ring::new), or to be passed to a client.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Takes a place, as bpf_ringbuf_reserve does. `None` if there is none, and the record is lost.
    pub fn reserve(&mut self, length: usize) -> Option<Reserved> {
        let whole = (length + 8).next_multiple_of(8) as u64;
        let after = self.position + whole;
        // As the kernel has it: a ring is never quite full.
        if after - self.word64(0).load(Ordering::Acquire) > self.size as u64 - 1 {
            return None;
        }
        let reserved = Reserved { position: self.position, length: length as u32 };
        self.set_length(reserved.position, reserved.length | BUSY);
        self.set_producer(after);
        Some(reserved)
    }

    /// Fills the place and finishes the entry. Bytes beyond the place are left out.
    pub fn submit(&mut self, reserved: Reserved, bytes: &[u8]) {
        let kept = bytes.len().min(reserved.length as usize);
        self.put(reserved.position + 8, &bytes[..kept]);
        self.set_length(reserved.position, reserved.length);
    }

    /// Finishes the entry as one that is to be skipped.
    pub fn discard(&mut self, reserved: Reserved) {
        self.set_length(reserved.position, reserved.length | DISCARD);
    }

    /// Writes one entry. False if there was no place.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        let Some(reserved) = self.reserve(bytes.len()) else { return false };
        self.submit(reserved, bytes);
        true
    }

    /// Sets the length word of the entry at a position to anything, which the kernel never does.
    ///
    /// # Safety
    ///
    /// No record of this ring is being looked at: what is behind it may change.
    pub unsafe fn spoil_length(&mut self, position: u64, word: u32) {
        self.set_length(position, word);
    }

    /// Sets the producer's position to anything, which the kernel never does.
    ///
    /// # Safety
    ///
    /// As [`RingWriter::spoil_length`], now and when more is written.
    pub unsafe fn spoil_producer(&mut self, position: u64) {
        self.set_producer(position);
    }

    /// Sets the reader's position, as a client could.
    ///
    /// # Safety
    ///
    /// As [`RingWriter::spoil_length`], now and when more is written.
    pub unsafe fn spoil_consumer(&mut self, position: u64) {
        self.word64(0).store(position, Ordering::Release);
    }

    /// Where the reader is.
    pub fn consumer(&self) -> u64 {
        self.word64(0).load(Ordering::Acquire)
    }

    fn set_length(&mut self, position: u64, word: u32) {
        let offset = position as usize & (self.size - 1) & !7;
        for copy in [0, self.size] {
            let at = 2 * self.page + copy + offset;
            // SAFETY: the offset is within the copy and a multiple of 8; the memory is mapped for as
            // long as self is there.
            let place = unsafe { AtomicU32::from_ptr(self.memory.as_mut_ptr().add(at).cast()) };
            place.store(word, Ordering::Release);
        }
    }

    fn set_producer(&mut self, position: u64) {
        self.word64(self.page).store(position, Ordering::Release);
        self.position = position;
    }

    /// One of the two positions: at 0 or at `page`.
    fn word64(&self, at: usize) -> &AtomicU64 {
        // SAFETY: both places are within the memory, which is mapped for as long as self is there,
        // and are aligned to a page.
        unsafe { AtomicU64::from_ptr(self.memory.as_mut_ptr().add(at).cast()) }
    }

    fn put(&mut self, position: u64, bytes: &[u8]) {
        let offset = position as usize & (self.size - 1);
        let bytes = &bytes[..bytes.len().min(self.size)];
        // Up to the end of the first copy, and what goes over it from its start.
        let (first, second) = bytes.split_at(bytes.len().min(self.size - offset));
        for (at, piece) in [(offset, first), (0, second)] {
            for copy in [0, self.size] {
                let at = 2 * self.page + copy + at;
                // SAFETY: at + piece.len() is at most the end of the copy; nobody else writes, and
                // the reader does not look at a place before its entry is finished.
                unsafe {
                    let to = self.memory.as_mut_ptr().add(at);
                    to.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
                }
            }
        }
    }
}
