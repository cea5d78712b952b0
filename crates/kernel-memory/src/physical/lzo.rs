// SPDX-License-Identifier: Apache-2.0
//! Decompresses LZO1X, by its description in the kernel's Documentation/staging/lzo.rst (6.12),
//! without the runs of zeroes that version 1 of the bitstream added: dumps have version 0.

/// Fills `out` from `stream`; gives how many bytes there were, and nothing if the stream is damaged or
/// holds more.
pub(super) fn decompress(stream: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut unpack = Unpack { rest: stream, out, filled: 0 };
    // Literals that the last instruction copied behind its block: 0 to 3, or 4 for a run of them.
    let mut state = 0;
    if let Some(first) = stream.first().copied().filter(|first| *first > 17) {
        unpack.byte()?;
        let literals = usize::from(first - 17);
        unpack.literals(literals)?;
        state = literals.min(4);
    }
    loop {
        let instruction = unpack.byte()?;
        let bits = usize::from(instruction);
        let (length, distance, next) = match instruction {
            0..16 if state == 0 => {
                let length = 3 + unpack.length(bits, 15)?;
                unpack.literals(length)?;
                state = 4;
                continue;
            }
            0..16 => {
                let distance = (usize::from(unpack.byte()?) << 2) + (bits >> 2);
                match state {
                    4 => (3, distance + 2049, bits & 3),
                    _ => (2, distance + 1, bits & 3),
                }
            }
            16..32 => {
                let length = 2 + unpack.length(bits & 7, 7)?;
                let low = unpack.half()?;
                let distance = 16384 + ((bits & 8) << 11) + (low >> 2);
                if distance == 16384 {
                    return Some(unpack.filled);
                }
                (length, distance, low & 3)
            }
            32..64 => {
                let length = 2 + unpack.length(bits & 31, 31)?;
                let low = unpack.half()?;
                (length, (low >> 2) + 1, low & 3)
            }
            64.. => {
                let distance = (usize::from(unpack.byte()?) << 3) + (bits >> 2 & 7) + 1;
                let length =
                    if instruction < 128 { 3 + (bits >> 5 & 1) } else { 5 + (bits >> 5 & 3) };
                (length, distance, bits & 3)
            }
        };
        unpack.block(length, distance)?;
        unpack.literals(next)?;
        state = next;
    }
}

struct Unpack<'a> {
    rest: &'a [u8],
    out: &'a mut [u8],
    filled: usize,
}

impl Unpack<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn half(&mut self) -> Option<usize> {
        let (low, high) = (self.byte()?, self.byte()?);
        Some(usize::from(u16::from_le_bytes([low, high])))
    }

    /// A length that is in the instruction, or, where that has zero, goes on in bytes: 255 for each
    /// zero, and the first that is none.
    fn length(&mut self, in_instruction: usize, most: usize) -> Option<usize> {
        if in_instruction != 0 {
            return Some(in_instruction);
        }
        let mut length = most;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Some(length + usize::from(last)),
            }
        }
    }

    fn literals(&mut self, length: usize) -> Option<()> {
        let (now, rest) = self.rest.split_at_checked(length)?;
        self.out.get_mut(self.filled..self.filled + length)?.copy_from_slice(now);
        self.rest = rest;
        self.filled += length;
        Some(())
    }

    /// Repeats what stands `distance` bytes back, byte by byte: a block may reach into itself.
    fn block(&mut self, length: usize, distance: usize) -> Option<()> {
        let from = self.filled.checked_sub(distance)?;
        for index in 0..length {
            let byte = *self.out.get(from + index)?;
            *self.out.get_mut(self.filled)? = byte;
            self.filled += 1;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::decompress;

    fn there_and_back(bytes: &[u8]) {
        let stream = lzokay_native::compress(bytes).unwrap();
        let mut out = vec![0; bytes.len()];
        assert_eq!(decompress(&stream, &mut out), Some(bytes.len()));
        assert_eq!(out, bytes);
        // What does not fit is refused, and so is each stream that is cut off.
        assert_eq!(decompress(&stream, &mut vec![0; bytes.len() - 1]), None);
        for length in 0..stream.len() {
            assert_eq!(decompress(&stream[..length], &mut out), None);
        }
    }

    #[test]
    fn what_another_implementation_compressed_comes_back() {
        there_and_back(&[0; 4096]);
        there_and_back(&(0..4096_u32).map(|at| ((at * at) >> 5) as u8).collect::<Vec<_>>());
        let words = b"the kernel's page, the page of the kernel, paged kernels; ".repeat(70);
        there_and_back(&words[..4096.min(words.len())]);
        // Far apart, so that the longest distances occur.
        let mut far: Vec<u8> =
            (0..40_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        far.extend_from_within(..600);
        far.extend_from_within(20_000..20_300);
        there_and_back(&far);
    }

    #[test]
    fn a_distance_beyond_the_beginning_is_refused() {
        // One literal, then a block 8 bytes back.
        assert_eq!(decompress(&[18, b'x', 0x5c, 0, 17, 0, 0], &mut [0; 64]), None);
    }
}
