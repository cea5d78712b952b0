// SPDX-License-Identifier: Apache-2.0
//! Code that is patched: bytes at addresses.

/// What stands at an address, and putting something there.
pub trait Code {
    /// `length` bytes; nothing where they are not all known. More may be read than written: a module
    /// calls into the kernel.
    fn read(&self, address: u64, length: usize) -> Option<&[u8]>;

    /// Replaces bytes. False, and nothing done, where they are not part of the code.
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool;
}

/// `N` bytes at an address.
pub(super) fn array<const N: usize>(code: &impl Code, address: u64) -> Option<[u8; N]> {
    code.read(address, N)?.try_into().ok()
}

/// Sections at their addresses.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// In order of address; none overlap.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Pieces {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a section. What overlaps one that is there already is not found.
    pub fn add(&mut self, start: u64, bytes: Vec<u8>) {
        let at = self.pieces.partition_point(|piece| piece.0 < start);
        self.pieces.insert(at, (start, bytes));
    }

    /// All sections in order of address.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(start, bytes)| (*start, bytes.as_slice()))
    }

    /// The piece that may hold an address, and the offset in it.
    fn place(&self, address: u64) -> Option<(usize, usize)> {
        let index = self.pieces.partition_point(|piece| piece.0 <= address).checked_sub(1)?;
        let start = self.pieces.get(index)?.0;
        Some((index, usize::try_from(address.checked_sub(start)?).ok()?))
    }
}

impl Code for Pieces {
    fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        let (index, offset) = self.place(address)?;
        self.pieces.get(index)?.1.get(offset..offset.checked_add(length)?)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some((index, offset)) = self.place(address) else { return false };
        let Some((_, piece)) = self.pieces.get_mut(index) else { return false };
        let end = offset.saturating_add(bytes.len());
        let Some(into) = piece.get_mut(offset..end) else { return false };
        into.copy_from_slice(bytes);
        true
    }
}
