// SPDX-License-Identifier: Apache-2.0
//! Many small places of memory, read in few larger ranges.

use kernel_memory::{KernelMemory, ReadError};

/// Places this close are read as one range: reading on costs less than starting anew.
const NEAR: u64 = 256;

/// No more than this in one range, so that one unreadable page costs little.
const LONG: u64 = 4096;

/// Reads `places`, which are address and length in order of address, and hands over each that
/// could be read, with its index.
pub(crate) fn read_each(
    memory: &dyn KernelMemory,
    places: &[(u64, u32)],
    found: &mut dyn FnMut(usize, &[u8]),
) {
    let mut ranges: Vec<(u64, u32)> = Vec::new();
    let mut range_of: Vec<usize> = Vec::with_capacity(places.len());
    for (address, length) in places {
        let end = address.saturating_add(u64::from(*length));
        match ranges.last_mut() {
            Some((start, long))
                if *address >= *start
                    && *address <= start.saturating_add(u64::from(*long) + NEAR)
                    && end - *start <= LONG =>
            {
                *long = (*long).max((end - *start) as u32);
            }
            _ => ranges.push((*address, *length)),
        }
        range_of.push(ranges.len() - 1);
    }
    let read = memory.read_many(&ranges);
    for (index, ((address, length), range)) in places.iter().zip(range_of).enumerate() {
        let Some((start, _)) = ranges.get(range) else { continue };
        let offset = (address - start) as usize;
        match read.get(range) {
            Some(Ok(bytes)) => {
                if let Some(bytes) = bytes.get(offset..offset + *length as usize) {
                    found(index, bytes);
                }
            }
            // One of its neighbours may be unreadable; by itself it may be readable still.
            Some(Err(ReadError::Unreadable { .. })) => {
                let mut bytes = vec![0; *length as usize];
                if memory.read(*address, &mut bytes).is_ok() {
                    found(index, &bytes);
                }
            }
            Some(Err(ReadError::Source { .. })) | None => {}
        }
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
        read_each(&Counting, &places, &mut |index, bytes| seen.push((index, bytes.to_vec())));
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
