// SPDX-License-Identifier: Apache-2.0
//! The running kernel's memory through BPF, by either of two paths.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use kernel_memory::{KernelMemory, Piece, RangeVisitor, ReadError};

use crate::error::ProbeError;
use crate::kernel_types;
use crate::window::{DONE, PAGE, REQUESTS, Request, UNREADABLE, WINDOW, Window};

/// The kfunc without which there are no inline loads (6.2 and later).
const CAST: &str = "bpf_rdonly_cast";

/// How much of a long range is read by one call. What a call has read is looked at before the next:
/// this much stays in the second-level cache until then, a whole window does not.
pub(crate) const STEP: u64 = 128 * 1024;

/// How the bytes are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By loads that the JIT emits inline: no function is called that could be hooked. 6.2 and
    /// later.
    Inline,
    /// By `bpf_probe_read_kernel`. Every kernel has it; it is the second path, to be compared.
    Helper,
}

/// The running kernel's memory.
///
/// Every aligned word of eight bytes is read at once; nothing wider is, so what the kernel changes
/// meanwhile shows old words and new. A page that is not mapped is a piece of its own and stops
/// nothing. Any thread may read at any time, also from inside a visitor.
#[derive(Debug)]
pub struct LiveReader {
    path: Path,
    /// Windows that nobody uses now. A walk takes one and gives it back, so that a visitor may
    /// itself read: it then gets another, loaded when it is first needed.
    free: Mutex<Vec<Window>>,
}

impl LiveReader {
    /// Loads the reader. Fails where the kernel has not what the path needs, or refuses.
    pub fn open(path: Path) -> Result<Self, ProbeError> {
        if path == Path::Inline && !kernel_types::has_function(CAST)? {
            return Err(ProbeError::Unsupported {
                what: "reading kernel memory by inline loads",
                lacking: format!(
                    "its BTF has no {CAST} (6.2 and later have it); the helper path still works, \
                     but it can be hooked"
                ),
            });
        }
        let window = Window::load(path)?;
        Ok(Self { path, free: Mutex::new(vec![window]) })
    }

    /// Which path this reader takes.
    pub fn path(&self) -> Path {
        self.path
    }

    fn with_window<T>(
        &self,
        action: impl FnOnce(&mut Window) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut window = match free {
            Some(window) => window,
            None => Window::load(self.path).map_err(|error| self.failed(error))?,
        };
        let outcome = action(&mut window);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(window);
        outcome
    }

    fn failed(&self, reason: impl std::fmt::Display) -> ReadError {
        ReadError::Source { through: self.name(), reason: reason.to_string() }
    }

    fn call(&self, window: &mut Window, count: usize) -> Result<(), ReadError> {
        window.call(count).map_err(|error| self.failed(error))
    }

    /// Walks the part of a range that fits into the window: `start` up to `end`.
    fn visit_batch(
        &self,
        window: &mut Window,
        start: u64,
        end: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let base = start & !(PAGE - 1);
        let mut count = 0;
        for (page, slot) in pages(start, end).zip(window.requests()) {
            let (first, after) = words_around(page);
            *slot = Request {
                address: first,
                position: (first - base) as u32,
                length: (after - first) as u16,
                status: 0,
            };
            count += 1;
        }
        self.call(window, count)?;

        let mut from = start;
        while from < end {
            let status = status_at(window, base, from);
            let mut to = after_page(from).min(end);
            while to < end && status_at(window, base, to) == status {
                to = after_page(to).min(end);
            }
            let piece = match status {
                DONE => {
                    let bytes = window.output().get((from - base) as usize..(to - base) as usize);
                    Piece::Bytes { address: from, bytes: bytes.unwrap_or_default() }
                }
                UNREADABLE => Piece::Unreadable { address: from, length: to - from },
                other => return Err(self.failed(format!("status {other} for {from:#x}"))),
            };
            if visitor(piece).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            from = to;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl KernelMemory for LiveReader {
    fn name(&self) -> &'static str {
        match self.path {
            Path::Inline => "inline load",
            Path::Helper => "helper",
        }
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        // The last page of the address space is left out with ranges that would wrap: nothing is
        // ever mapped there, so that ERR_PTR values fault.
        let Some(end) = start.checked_add(length).filter(|end| *end <= u64::MAX - PAGE) else {
            return visitor_of_nothing(start, length, visitor);
        };
        if length == 0 {
            return Ok(());
        }
        self.with_window(|window| {
            let mut from = start;
            while from < end {
                let base = from & !(PAGE - 1);
                let to = base.saturating_add(STEP).min(end);
                if self.visit_batch(window, from, to, visitor)?.is_break() {
                    break;
                }
                from = to;
            }
            Ok(())
        })
    }

    fn read_many(&self, ranges: &[(u64, u32)]) -> Vec<Result<Vec<u8>, ReadError>> {
        let mut results = Vec::with_capacity(ranges.len());
        let outcome = self.visit_many(ranges, &mut |_, bytes| {
            results.push(bytes.map(<[u8]>::to_vec));
        });
        match outcome {
            Ok(()) => results,
            // Nothing is known of those that were not handed over; better to fail all than some.
            Err(error) => ranges.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn visit_many(
        &self,
        ranges: &[(u64, u32)],
        visitor: &mut RangeVisitor<'_>,
    ) -> Result<(), ReadError> {
        self.with_window(|window| {
            let mut first = 0;
            while let Some(rest) = ranges.get(first..).filter(|rest| !rest.is_empty()) {
                let (taken, requests) = fill(window, rest);
                if taken == 0 {
                    // Longer than a window.
                    self.visit_long(window, first, rest, visitor)?;
                    first += 1;
                    continue;
                }
                if requests > 0 {
                    self.call(window, requests)?;
                }
                let taken = rest.get(..taken).unwrap_or_default();
                self.hand_over(window, first, taken, visitor)?;
                first += taken.len();
            }
            Ok(())
        })
    }
}

impl LiveReader {
    fn unreadable(&self, address: u64) -> ReadError {
        ReadError::Unreadable { address, through: self.name() }
    }

    /// Hands over what a call has read: the same ranges as [`fill`] took, so each stands where it was
    /// put by that.
    fn hand_over(
        &self,
        window: &mut Window,
        first: usize,
        taken: &[(u64, u32)],
        visitor: &mut RangeVisitor<'_>,
    ) -> Result<(), ReadError> {
        let (mut slot, mut filled) = (0, 0);
        for (index, (address, length)) in (first..).zip(taken) {
            let Some(need) = Need::of(*address, *length) else {
                visitor(index, Err(self.unreadable(*address)));
                continue;
            };
            let mut missing = None;
            for page in 0..need.pages {
                match window.requests().get(slot + page).map(|request| request.status) {
                    Some(DONE) => {}
                    Some(UNREADABLE) => {
                        let in_page = (address & !(PAGE - 1)) + PAGE * page as u64;
                        missing = Some(in_page.max(*address));
                        break;
                    }
                    other => {
                        return Err(self.failed(format!("status {other:?} for {address:#x}")));
                    }
                }
            }
            let start = filled + (address % 8) as usize;
            let bytes = window.output().get(start..start + *length as usize);
            match missing {
                Some(missing) => visitor(index, Err(self.unreadable(missing))),
                None => visitor(index, Ok(bytes.unwrap_or_default())),
            }
            slot += need.pages;
            filled += need.bytes;
        }
        Ok(())
    }

    /// Reads the first of these ranges, which does not fit into a window, into memory of its own.
    fn visit_long(
        &self,
        window: &mut Window,
        index: usize,
        ranges: &[(u64, u32)],
        visitor: &mut RangeVisitor<'_>,
    ) -> Result<(), ReadError> {
        let Some((start, length)) = ranges.first().copied() else { return Ok(()) };
        let end = start.saturating_add(length.into());
        let mut all = Vec::with_capacity(length as usize);
        let mut missing = None;
        let mut from = start;
        while from < end && missing.is_none() {
            let to = (from & !(PAGE - 1)).saturating_add(STEP).min(end);
            let _ = self.visit_batch(window, from, to, &mut |piece| {
                match piece {
                    Piece::Bytes { bytes, .. } => all.extend_from_slice(bytes),
                    Piece::Unreadable { address, .. } => {
                        missing = Some(address);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
            from = to;
        }
        match missing {
            Some(missing) => visitor(index, Err(self.unreadable(missing))),
            None => visitor(index, Ok(&all)),
        }
        Ok(())
    }
}

/// What a range takes of a window.
struct Need {
    /// Pages that it lies in, each of which is a request.
    pages: usize,
    /// The bytes of the aligned words that cover it. Those of its pages stand one after the other, as
    /// pages end where words end.
    bytes: usize,
}

impl Need {
    /// None for a range that wraps around the end of the address space, where nothing is.
    fn of(start: u64, length: u32) -> Option<Self> {
        let end = start.checked_add(length.into()).filter(|end| *end <= u64::MAX - PAGE)?;
        if length == 0 {
            return Some(Self { pages: 0, bytes: 0 });
        }
        let pages = ((end - 1) / PAGE - start / PAGE + 1) as usize;
        let (first, after) = words_around((start, end));
        Some(Self { pages, bytes: (after - first) as usize })
    }
}

/// Writes the requests for as many of these ranges as go into one call, and gives how many ranges
/// and requests these are. No more than one step of a long range is read at once, unless a range is
/// longer by itself.
fn fill(window: &mut Window, ranges: &[(u64, u32)]) -> (usize, usize) {
    let (mut taken, mut slot, mut filled) = (0, 0, 0);
    for (address, length) in ranges {
        let Some(need) = Need::of(*address, *length) else {
            taken += 1;
            continue;
        };
        let most = if slot == 0 { WINDOW - PAGE as usize } else { STEP as usize };
        if filled + need.bytes > most || slot + need.pages > REQUESTS {
            break;
        }
        for page in pages(*address, *address + u64::from(*length)) {
            let (first, after) = words_around(page);
            if let Some(request) = window.requests().get_mut(slot) {
                let length = (after - first) as u16;
                *request = Request { address: first, position: filled as u32, length, status: 0 };
            }
            slot += 1;
            filled += (after - first) as usize;
        }
        taken += 1;
    }
    (taken, slot)
}

/// The start of the page after the one that `address` is in.
fn after_page(address: u64) -> u64 {
    (address & !(PAGE - 1)).saturating_add(PAGE)
}

/// Splits `start..end` at the borders of pages.
fn pages(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    std::iter::successors((start < end).then_some(start), move |from| {
        let next = after_page(*from);
        (next < end).then_some(next)
    })
    .map(move |from| (from, after_page(from).min(end)))
}

/// The aligned words that cover a part of a page: the first and the one after the last.
fn words_around((from, to): (u64, u64)) -> (u64, u64) {
    (from & !7, to.wrapping_add(7) & !7)
}

fn status_at(window: &mut Window, base: u64, address: u64) -> u16 {
    let page = ((address - base) / PAGE) as usize;
    window.requests().get(page).map_or(0, |request| request.status)
}

/// A range that wraps around the end of the address space holds nothing.
fn visitor_of_nothing(
    address: u64,
    length: u64,
    visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let _ = visitor(Piece::Unreadable { address, length });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_split_at_the_borders_of_pages() {
        let split: Vec<_> = pages(0x1ffd, 0x3001).collect();
        assert_eq!(split, [(0x1ffd, 0x2000), (0x2000, 0x3000), (0x3000, 0x3001)]);
        assert_eq!(pages(0x1000, 0x1000).count(), 0);
        assert_eq!(pages(0x1000, 0x2000).count(), 1);
    }

    #[test]
    fn a_part_of_a_page_is_covered_by_whole_words() {
        assert_eq!(words_around((0x1001, 0x1002)), (0x1000, 0x1008));
        assert_eq!(words_around((0x1ffd, 0x2000)), (0x1ff8, 0x2000));
        assert_eq!(words_around((0x1000, 0x1010)), (0x1000, 0x1010));
    }
}
