// SPDX-License-Identifier: Apache-2.0
//! The lists of addresses that the boot code changes when it moves the kernel (KASLR).
//!
//! They follow the ELF and are read from the end backwards, as `handle_relocations` does
//! (arch/x86/boot/compressed/misc.c): 32-bit addresses, sign-extended, each list ended by a zero.
//! Last in the file are the places of 32-bit values; before them, up to 6.14, places of 32-bit
//! values that are *lowered* (offsets from per-CPU data, which was linked at zero); before them
//! places of 64-bit values. Nothing says how many lists there are: it follows from where the ELF
//! ends.

use crate::error::{ImageError, ImageErrorKind, Place};

/// Where the boot code adds the slide of KASLR, or subtracts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relocations {
    words: Vec<u32>,
    inverse_words: Vec<u32>,
    quads: Vec<u32>,
}

/// How a place is relocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relocation {
    Add32,
    Subtract32,
    Add64,
}

impl Relocation {
    pub(crate) fn width(self) -> u64 {
        match self {
            Self::Add32 | Self::Subtract32 => 4,
            Self::Add64 => 8,
        }
    }
}

impl Relocations {
    /// Reads the lists from what follows the ELF; `start` is its offset, for errors. No bytes are
    /// no relocations: a debug vmlinux has none.
    pub fn parse(tail: &[u8], start: u64) -> Result<Self, ImageError> {
        if tail.is_empty() {
            return Ok(Self::default());
        }
        if !tail.len().is_multiple_of(4) {
            let problem = format!(
                "relocation lists of four-byte entries expected after the ELF, {} bytes found",
                tail.len()
            );
            return Err(ImageError::malformed(start, problem));
        }
        let mut rest = tail;
        let words = list_at_end(&mut rest, start, "32-bit")?;
        let second = list_at_end(&mut rest, start, "64-bit")?;
        let (inverse_words, quads) = if rest.is_empty() {
            (Vec::new(), second)
        } else {
            (second, list_at_end(&mut rest, start, "64-bit")?)
        };
        if !rest.is_empty() {
            let problem = format!(
                "two or three relocation lists expected between the ELF and the end, {} bytes are \
                 left over",
                rest.len()
            );
            return Err(ImageError::malformed(start, problem));
        }
        Ok(Self { words, inverse_words, quads })
    }

    /// Whether there are none, as in a vmlinux that was not taken from a boot image.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.inverse_words.is_empty() && self.quads.is_empty()
    }

    /// Addresses of the 32-bit values that the slide is added to, in order.
    pub fn words(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.words.iter().map(|address| extend(*address))
    }

    /// Addresses of the 32-bit values that the slide is subtracted from, in order (up to 6.14).
    pub fn inverse_words(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.inverse_words.iter().map(|address| extend(*address))
    }

    /// Addresses of the 64-bit values that the slide is added to, in order.
    pub fn quads(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.quads.iter().map(|address| extend(*address))
    }

    /// All places that touch `start..end`, list by list.
    pub(crate) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Relocation)> {
        let lists = [
            (&self.words, Relocation::Add32),
            (&self.inverse_words, Relocation::Subtract32),
            (&self.quads, Relocation::Add64),
        ];
        lists.into_iter().flat_map(move |(list, kind)| {
            let first = start.saturating_sub(kind.width() - 1);
            let from = list.partition_point(|address| extend(*address) < first);
            let to = list.partition_point(|address| extend(*address) < end);
            list.get(from..to)
                .unwrap_or_default()
                .iter()
                .map(move |address| (extend(*address), kind))
        })
    }

    /// The first place that is not wholly within the loaded kernel.
    pub(crate) fn outside(&self, lowest: u64, end: u64) -> Option<u64> {
        self.within(0, u64::MAX)
            .find(|(address, kind)| *address < lowest || address.saturating_add(kind.width()) > end)
            .map(|(address, _)| address)
    }
}

/// The lists hold the low halves of addresses at the very top of the address space.
fn extend(address: u32) -> u64 {
    i64::from(address as i32) as u64
}

/// Takes one list from the end of `rest`: entries, last one first, then a zero.
fn list_at_end(rest: &mut &[u8], start: u64, what: &str) -> Result<Vec<u32>, ImageError> {
    let mut list = Vec::new();
    loop {
        let Some((before, entry)) = rest.split_last_chunk::<4>() else {
            let problem = format!("the zero before the {what} relocations expected, not found");
            return Err(ImageError::new(ImageErrorKind::Malformed, Place::Elf, start, problem));
        };
        *rest = before;
        match u32::from_le_bytes(*entry) {
            0 => break,
            address => list.push(address),
        }
    }
    // The tool that writes them sorts them, but nothing depends on its doing so.
    list.sort_unstable();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn three_lists_are_told_from_two_by_where_the_elf_ends() {
        let two = Relocations::parse(&bytes(&[0, 0x8100_0010, 0, 0x8100_0020]), 0).unwrap();
        assert_eq!(two.quads().collect::<Vec<_>>(), [0xffff_ffff_8100_0010]);
        assert_eq!(two.inverse_words().len(), 0);
        let three = Relocations::parse(&bytes(&[0, 0x8100_0010, 0, 0, 0x8100_0020]), 0).unwrap();
        assert_eq!(three.inverse_words().len(), 0);
        assert_eq!(three, two);
        let words = [0, 0x8100_0010, 0, 0x8100_0030, 0, 0x8100_0020];
        let three = Relocations::parse(&bytes(&words), 0).unwrap();
        assert_eq!(three.inverse_words().collect::<Vec<_>>(), [0xffff_ffff_8100_0030]);
        assert_eq!(three.words().collect::<Vec<_>>(), [0xffff_ffff_8100_0020]);
    }

    #[test]
    fn lists_that_do_not_end_where_the_elf_ends_are_refused() {
        for words in [&[0x8100_0010][..], &[0, 0x8100_0010], &[1, 0, 2, 0, 3, 0, 4], &[0, 0, 0, 0]]
        {
            let error = Relocations::parse(&bytes(words), 0x1234).unwrap_err();
            assert_eq!(
                (error.kind(), error.offset()),
                (ImageErrorKind::Malformed, 0x1234),
                "{words:?}"
            );
        }
        assert!(Relocations::parse(&[0; 5], 0).unwrap_err().to_string().contains("5 bytes"));
    }

    #[test]
    fn places_that_only_reach_into_a_range_belong_to_it() {
        let words = [0, 0x8100_0010, 0, 0x8100_0020];
        let lists = Relocations::parse(&bytes(&words), 0).unwrap();
        let base = 0xffff_ffff_8100_0000;
        let found = |start: u64, end: u64| lists.within(base + start, base + end).count();
        assert_eq!((found(0x17, 0x18), found(0x18, 0x20)), (1, 0));
        assert_eq!((found(0, 0x10), found(0, 0x11), found(0x23, 0x24)), (0, 1, 1));
    }
}
