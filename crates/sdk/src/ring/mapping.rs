// SPDX-License-Identifier: Apache-2.0
//! The memory of a ring: its two positions and its data, behind functions that cannot reach beyond it.
//!
//! All `unsafe` of this crate that reads memory of others is here.
//!
//! A BPF ring buffer is mapped as kernel/bpf/ringbuf.c lays it out (5.8 and later): the page of the
//! consumer, which alone can be written; the page of the producer; the data; the same data once more,
//! so that an entry that goes over the end can be read in one piece.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::SealFlags;

use super::RingError;

/// Bytes before each entry: its length with two flags, and the kernel's own page offset
/// (`struct bpf_ringbuf_hdr`).
pub(crate) const ENTRY_HEADER: u64 = 8;

/// `BPF_MAP_TYPE_RINGBUF` (uapi/linux/bpf.h, 5.8).
const MAP_TYPE_RINGBUF: &str = "27";

/// The memory of one ring.
#[derive(Debug)]
pub(crate) struct Mapping {
    descriptor: OwnedFd,
    /// One page: where the consumer is.
    consumer: MmapRaw,
    /// The page of the producer, then the data twice.
    rest: MmapRaw,
    /// Where in `rest` the data begins.
    data: usize,
    /// Of the data, in bytes; a power of two.
    size: usize,
}

impl Mapping {
    /// Maps what the descriptor stands for: a BPF ring buffer, or a file laid out as one that nobody
    /// can shorten any more.
    pub(crate) fn of(descriptor: OwnedFd) -> Result<Self, RingError> {
        let page = rustix::param::page_size();
        let size = size_of_ring(descriptor.as_fd(), page)?;
        if !size.is_power_of_two() || size < page || size > 1 << 40 {
            return Err(RingError::NotARing { reason: format!("{size} bytes of data") });
        }
        let failed = |source| RingError::Io { what: "map the ring", source };
        let consumer = MmapOptions::new().len(page).map_raw(&descriptor).map_err(failed)?;
        let rest = MmapOptions::new()
            .offset(page as u64)
            .len(page + 2 * size)
            .map_raw_read_only(&descriptor)
            .map_err(failed)?;
        Ok(Self { descriptor, consumer, rest, data: page, size })
    }

    /// Of the data, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size as u64
    }

    /// Where the consumer is: everything before is given back to the producer.
    pub(crate) fn consumer_position(&self) -> u64 {
        self.consumer().load(Ordering::Relaxed)
    }

    /// Gives everything before a position back to the producer.
    pub(crate) fn set_consumer_position(&self, position: u64) {
        // Whatever was read of the entries before has been read.
        self.consumer().store(position, Ordering::Release);
    }

    fn consumer(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped for as long as self is there, is aligned, and is only ever
        // accessed atomically by this process.
        unsafe { AtomicU64::from_ptr(self.consumer.as_mut_ptr().cast()) }
    }

    /// Where the producer is: everything before has been reserved for entries.
    pub(crate) fn producer_position(&self) -> u64 {
        // SAFETY: the page is mapped for as long as self is there, and is aligned. It cannot be
        // written, for which a relaxed load of 8 bytes is fine (std::sync::atomic, "Atomic accesses
        // to read-only memory").
        let position = unsafe { AtomicU64::from_ptr(self.rest.as_mut_ptr().cast()) };
        let position = position.load(Ordering::Relaxed);
        // The header of each entry before it has been written.
        fence(Ordering::Acquire);
        position
    }

    /// The length and flags of the entry at a position, which is a multiple of 8.
    pub(crate) fn length_word(&self, position: u64) -> u32 {
        let offset = self.data + (position as usize & (self.size - 1));
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: the offset is within the first copy of the data and a multiple of 8, so that four
        // bytes lie within the mapping and are aligned; as to read-only memory see above.
        let word = unsafe { AtomicU32::from_ptr(self.rest.as_mut_ptr().add(offset).cast()) };
        let word = word.load(Ordering::Relaxed);
        // Whoever took BUSY away has written the entry.
        fence(Ordering::Acquire);
        word
    }

    /// The bytes at a position, as many as the ring has at most.
    ///
    /// The producer leaves them alone until the consumer's position has passed them: that is what a
    /// ring promises, and only the kernel (or whoever made a ring in a file) can write them.
    pub(crate) fn bytes(&self, position: u64, length: usize) -> &[u8] {
        let offset = self.data + (position as usize & (self.size - 1));
        let length = length.min(self.size);
        // SAFETY: the offset is within the first copy of the data, and no more is taken than one
        // copy has, so all of it lies within the two. Nobody writes it meanwhile, see above: the
        // reader moves the position on only when no slice is left (Ring::next borrows it mutably).
        unsafe { std::slice::from_raw_parts(self.rest.as_ptr().add(offset), length) }
    }
}

impl AsFd for Mapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// How many bytes of data a ring has, by its descriptor alone.
///
/// Asked of /proc, since bpf(2) refuses to tell the unprivileged before 6.0.
fn size_of_ring(descriptor: BorrowedFd<'_>, page: usize) -> Result<usize, RingError> {
    let mut text = String::new();
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| RingError::Io { what: "ask /proc what the descriptor is", source })?;
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    match (value("map_type"), value("max_entries").and_then(|number| number.parse().ok())) {
        (Some(MAP_TYPE_RINGBUF), Some(bytes)) => Ok(bytes),
        (Some(other), _) => {
            Err(RingError::NotARing { reason: format!("a BPF map of type {other}") })
        }
        (None, _) => size_of_file(descriptor, page),
    }
}

/// The same of a ring in a file. A file that could be shortened would end this process with a signal.
fn size_of_file(descriptor: BorrowedFd<'_>, page: usize) -> Result<usize, RingError> {
    let not_sealed =
        || RingError::NotARing { reason: "neither a BPF map nor a sealed memory file".to_owned() };
    let seals = rustix::fs::fcntl_get_seals(descriptor).map_err(|_| not_sealed())?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(not_sealed());
    }
    let bytes = rustix::fs::fstat(descriptor)
        .map_err(|error| RingError::Io {
            what: "ask for the size of the ring",
            source: error.into(),
        })?
        .st_size;
    let data = usize::try_from(bytes).unwrap_or(0).saturating_sub(2 * page);
    Ok(data / 2)
}
