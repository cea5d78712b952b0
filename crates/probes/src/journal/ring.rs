// SPDX-License-Identifier: Apache-2.0
//! The ring that perf writes for one CPU.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::libbpf_sys;

use super::record::{HEADER, Header};
use crate::mapping::Mapping;

/// Bytes of a page, as the kernel's ring counts them.
pub(crate) const PAGE: usize = 4096;

/// Where the fields of `struct perf_event_mmap_page` are that say how far both sides are: the
/// first fields behind 1 KiB (include/uapi/linux/perf_event.h, "align to 1k").
const HEAD: usize = 1024;
const TAIL: usize = 1032;

/// What both sides of a ring share, apart from where it lies, so that it can be tested on a vector.
///
/// Gives every whole record between `tail` and `head` to `each`, and `head` as the new tail. A
/// record may go over the end of the ring and on at its start; it is put together first. Gives the
/// number of times that nothing sensible was found, whereupon the rest is skipped.
pub(crate) fn walk(data: &[u8], head: u64, tail: u64, each: &mut dyn FnMut(&[u8])) -> u64 {
    let size = data.len() as u64;
    if size == 0 || head.wrapping_sub(tail) > size {
        return u64::from(head != tail);
    }
    let mut at = tail;
    let mut joined = Vec::new();
    while at != head {
        let left = head.wrapping_sub(at) as usize;
        let header = slice(data, at, HEADER, &mut joined).and_then(Header::parse);
        let Some(length) =
            header.map(|header| header.size).filter(|length| *length >= HEADER && *length <= left)
        else {
            return 1;
        };
        match slice(data, at, length, &mut joined) {
            Some(record) => each(record),
            None => return 1,
        }
        at = at.wrapping_add(length as u64);
    }
    0
}

/// `length` bytes from position `at` of a ring; those that go over its end are joined in `joined`.
fn slice<'a>(data: &'a [u8], at: u64, length: usize, joined: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let start = (at % data.len() as u64) as usize;
    let (_, from_start) = data.split_at_checked(start)?;
    if let Some(whole) = from_start.get(..length) {
        return Some(whole);
    }
    joined.clear();
    joined.extend_from_slice(from_start);
    joined.extend_from_slice(data.get(..length.checked_sub(from_start.len())?)?);
    Some(joined)
}

/// The longest record that there can be: its size is a `u16`.
const LONGEST: u64 = 1 << 16;

/// A perf event on one CPU with its ring.
#[derive(Debug)]
pub(crate) struct Ring {
    event: OwnedFd,
    mapping: Mapping,
    losses: Losses,
}

/// How many records did not fit, by both ways in which the kernel says so.
///
/// Its record of that comes only with the next one that fits (`__perf_output_begin`,
/// kernel/events/ring_buffer.c), which may be much later than the loss. The event's own count is right
/// at once (PERF_FORMAT_LOST, 6.0 and later), but to read it the kernel interrupts the CPU, so it is
/// asked only where something may have been lost.
#[derive(Debug, Default)]
struct Losses {
    by_records: u64,
    by_event: u64,
    told: u64,
}

impl Losses {
    /// Those that were not given before.
    fn untold(&mut self) -> u64 {
        let all = self.by_records.max(self.by_event);
        all.saturating_sub(std::mem::replace(&mut self.told, all))
    }
}

impl Ring {
    /// Opens an event that counts nothing and only carries records of changes of kernel text, by
    /// any process that runs on `cpu`. `data` is the size of the ring in bytes: a power of two of
    /// pages.
    pub(crate) fn open(cpu: u32, data: usize) -> io::Result<Self> {
        use std::os::fd::FromRawFd;

        let mut attributes = libbpf_sys::perf_event_attr {
            type_: libbpf_sys::PERF_TYPE_SOFTWARE,
            size: size_of::<libbpf_sys::perf_event_attr>() as u32,
            config: libbpf_sys::PERF_COUNT_SW_DUMMY.into(),
            sample_type: (libbpf_sys::PERF_SAMPLE_TID | libbpf_sys::PERF_SAMPLE_TIME).into(),
            read_format: (libbpf_sys::PERF_FORMAT_TOTAL_TIME_ENABLED
                | libbpf_sys::PERF_FORMAT_LOST)
                .into(),
            clockid: libc::CLOCK_MONOTONIC,
            ..Default::default()
        };
        attributes.set_sample_id_all(1);
        attributes.set_use_clockid(1);
        attributes.set_ksymbol(1);
        attributes.set_text_poke(1);
        // Wake at the first byte: a poke must be seen at once, and whoever drains a burst is awake
        // already.
        attributes.set_watermark(1);
        attributes.__bindgen_anon_2.wakeup_watermark = 1;
        let (every_process, no_group) = (-1, -1);
        // SAFETY: perf_event_open(2); `attributes` is as long as its `size` says.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                every_process,
                cpu as libc::c_int,
                no_group,
                libbpf_sys::PERF_FLAG_FD_CLOEXEC as libc::c_ulong,
            )
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        let event = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
        // Writable, so that the tail can be moved on: the kernel then overwrites nothing unread.
        let mapping = Mapping::new(&event, PAGE + data, true)?;
        Ok(Self { event, mapping, losses: Losses::default() })
    }

    /// Gives each record since the last call to `each`, and how many were lost since then: those that
    /// did not fit, and the gaps (see [`walk`]). `each` says of a record how many it says were lost.
    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(&[u8]) -> u64) -> u64 {
        // Everything up to the head is visible once the head is (perf_output_put_handle,
        // kernel/events/ring_buffer.c).
        let head = self.position(HEAD).load(Ordering::Acquire);
        let tail = self.position(TAIL).load(Ordering::Relaxed);
        if head == tail {
            return 0;
        }
        let length = self.mapping.length() - PAGE;
        // SAFETY: the mapping has `length` bytes behind its first page. The kernel writes only
        // outside of tail..head, and `walk` looks at nothing else.
        let data =
            unsafe { std::slice::from_raw_parts(self.mapping.start().as_ptr().add(PAGE), length) };
        let mut by_records = 0;
        let gaps = walk(data, head, tail, &mut |record| by_records += each(record));
        self.position(TAIL).store(head, Ordering::Release);
        self.losses.by_records += by_records;
        // Before this, whatever did not fit had less room than this.
        let filled = self.position(HEAD).load(Ordering::Acquire).wrapping_sub(tail);
        let mut unknown = 0;
        if filled.saturating_add(LONGEST) > length as u64 {
            match self.lost() {
                Ok(lost) => self.losses.by_event = lost,
                Err(_) => unknown = 1,
            }
        }
        gaps + unknown + self.losses.untold()
    }

    /// How many records the kernel could not write since the event was opened.
    fn lost(&self) -> io::Result<u64> {
        let [_, _, lost] = self.read()?;
        Ok(lost)
    }

    /// For how long the event was on, in nanoseconds: once perf has taken it away, that grows no more.
    pub(crate) fn time_on(&self) -> io::Result<u64> {
        let [_, time, _] = self.read()?;
        Ok(time)
    }

    /// What is read of an event with PERF_FORMAT_TOTAL_TIME_ENABLED and PERF_FORMAT_LOST: its value, for how
    /// long it was on, and how many records were lost.
    fn read(&self) -> io::Result<[u64; 3]> {
        let mut bytes = [0; 24];
        if rustix::io::read(&self.event, &mut bytes)? != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        words.try_into().map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both offsets are aligned words in the first page of the mapping, which both sides
        // use atomically.
        unsafe { AtomicU64::from_ptr(self.mapping.start().as_ptr().add(offset).cast()) }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::a_poke;
    use super::super::record::{Record, parse_record};
    use super::*;

    /// Writes `record` into a ring at `head` as the kernel would.
    fn write(ring: &mut [u8], head: &mut u64, record: &[u8]) {
        for byte in record {
            let at = (*head % ring.len() as u64) as usize;
            ring[at] = *byte;
            *head += 1;
        }
    }

    #[test]
    fn records_that_go_over_the_end_of_the_ring_come_out_whole() {
        let mut ring = vec![0; 256];
        let (mut head, mut seen) = (u64::MAX - 4000, 0_u64);
        head &= !7;
        for number in 0..1000_u64 {
            let tail = head;
            for length in [number % 17, number % 5] {
                let bytes = vec![number as u8; length as usize];
                write_wrapping(&mut ring, &mut head, &a_poke(number, &bytes, &bytes));
            }
            let gaps = walk(&ring, head, tail, &mut |record| {
                let Ok(Record::TextPoke { address, old, new, .. }) = parse_record(record) else {
                    panic!("{record:x?}");
                };
                assert_eq!((address, &old), (number, &new));
                assert!(old.iter().all(|byte| *byte == number as u8));
                seen += 1;
            });
            assert_eq!(gaps, 0);
        }
        assert_eq!(seen, 2000);
    }

    fn write_wrapping(ring: &mut [u8], head: &mut u64, record: &[u8]) {
        for byte in record {
            let at = (*head % ring.len() as u64) as usize;
            ring[at] = *byte;
            *head = head.wrapping_add(1);
        }
    }

    #[test]
    fn a_record_of_no_length_or_too_much_is_a_gap_and_ends_the_walk() {
        for size in [0_u16, 7, 1000] {
            let mut ring = vec![0; 128];
            let mut head = 0;
            write(&mut ring, &mut head, &a_poke(1, &[1], &[2]));
            let bad = head as usize;
            write(&mut ring, &mut head, &a_poke(2, &[1], &[2]));
            ring[bad + 6..bad + 8].copy_from_slice(&size.to_ne_bytes());
            let mut seen = 0;
            assert_eq!(walk(&ring, head, 0, &mut |_| seen += 1), 1);
            assert_eq!(seen, 1);
        }
    }

    #[test]
    fn what_is_lost_is_told_once_by_whichever_way_is_first() {
        let mut losses = Losses { by_event: 5, ..Losses::default() };
        assert_eq!(losses.untold(), 5);
        // The record of the same comes later.
        losses.by_records = 5;
        assert_eq!(losses.untold(), 0);
        losses.by_records = 7;
        assert_eq!((losses.untold(), losses.untold()), (2, 0));
    }

    #[test]
    fn a_head_that_is_out_of_reach_is_a_gap() {
        assert_eq!(walk(&[0; 64], 65, 0, &mut |_| panic!("nothing is whole")), 1);
        assert_eq!(walk(&[], 0, 0, &mut |_| panic!("nothing is there")), 0);
    }
}
