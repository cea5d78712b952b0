// SPDX-License-Identifier: Apache-2.0
//! Many small places of memory, read in few larger ranges.

use kernel_memory::{KernelMemory, ReadError};

/// Places this close are read as one range: reading on costs less than starting anew.
const NEAR: u64 = 256;

/// No more than this in one range, so that one unreadable page costs little.
const LONG: u64 = 4096;

/// Places that are read again and again: which ranges they are in is found out once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    ranges: Vec<(u64, u32)>,
    /// In order, so that those of one range follow one another.
    places: Vec<InRange>,
}

/// A place within a range.
#[derive(Clone, Copy, Debug)]
struct InRange {
    range: u32,
    offset: u32,
    length: u32,
}

impl Places {
    /// `places` are address and length, in order of address.
    pub(crate) fn of(places: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let mut this = Self::default();
        for (address, length) in places {
            let end = address.saturating_add(u64::from(length));
            let start = match this.ranges.last_mut() {
                Some((start, long))
                    if address >= *start
                        && address <= start.saturating_add(u64::from(*long) + NEAR)
                        && end - *start <= LONG =>
                {
                    *long = (*long).max((end - *start) as u32);
                    *start
                }
                _ => {
                    this.ranges.push((address, length));
                    address
                }
            };
            let range = (this.ranges.len() - 1) as u32;
            this.places.push(InRange { range, offset: (address - start) as u32, length });
        }
        this
    }

    /// Reads all and hands over each that could be read, with its index. Those that had to be read by
    /// themselves, because a neighbour is unreadable, come after the others.
    pub(crate) fn visit(
        &self,
        memory: &dyn KernelMemory,
        found: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), ReadError> {
        let mut next = 0;
        let mut alone = Vec::new();
        memory.visit_many(&self.ranges, &mut |range, bytes| {
            while let Some(place) = self.places.get(next).filter(|one| one.range as usize == range)
            {
                let offset = place.offset as usize;
                match bytes.as_ref() {
                    Ok(bytes) => {
                        if let Some(bytes) = bytes.get(offset..offset + place.length as usize) {
                            found(next, bytes);
                        }
                    }
                    Err(_) => alone.push(next),
                }
                next += 1;
            }
        })?;
        for index in alone {
            let Some(place) = self.places.get(index) else { continue };
            let Some((start, _)) = self.ranges.get(place.range as usize) else { continue };
            let mut bytes = vec![0; place.length as usize];
            match memory.read(start.wrapping_add(place.offset.into()), &mut bytes) {
                Ok(()) => found(index, &bytes),
                Err(ReadError::Unreadable { .. }) => {}
                Err(error @ ReadError::Source { .. }) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use kernel_memory::Piece;

    use super::*;

    /// Every byte is the low byte of its address; one page is not there.
    struct Counting;

    impl KernelMemory for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn visit(
            &self,
            start: u64,
            length: u64,
            visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
        ) -> Result<(), ReadError> {
            for address in start..start + length {
                let piece = if address >> 12 == 2 {
                    Piece::Unreadable { address, length: 1 }
                } else {
                    Piece::Bytes { address, bytes: &[address as u8] }
                };
                if visitor(piece).is_break() {
                    break;
                }
            }
            Ok(())
        }
    }

    #[test]
    fn each_place_gets_its_own_bytes_and_the_unreadable_none() {
        let places = [(0x1010, 2), (0x1010, 5), (0x1020, 4), (0x1ffe, 2), (0x2000, 4), (0x3001, 1)];
        let mut seen = Vec::new();
        let batch = Places::of(places);
        assert_eq!((batch.places.len(), batch.ranges.len()), (6, 3));
        batch.visit(&Counting, &mut |index, bytes| seen.push((index, bytes.to_vec()))).unwrap();
        seen.sort();
        let expected: Vec<(usize, Vec<u8>)> = [0, 1, 2, 3, 5]
            .map(|index| {
                let (address, length) = places[index];
                let bytes = (address..address + u64::from(length)).map(|at| at as u8).collect();
                (index, bytes)
            })
            .to_vec();
        assert_eq!(seen, expected);
    }
}
