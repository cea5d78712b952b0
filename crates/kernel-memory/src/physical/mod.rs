// SPDX-License-Identifier: Apache-2.0
//! Physical memory of a machine that is looked at from outside: the memory of a guest while it runs,
//! or a dump.
//!
//! A [`PhysicalMemory`] gives bytes by physical address. There is a file here for each format, which
//! reads its headers and nothing else: [`raw`] (a guest's memory as QEMU shares it, or a copy),
//! [`elf_core`], [`lime`], and [`kdump`] with [`flattened`] below it. On top of it [`Translated`] is
//! [`crate::KernelMemory`] by the page tables that lie in that memory, and [`vmcoreinfo`] and
//! [`find`] tell where in it the kernel is.
//!
//! Whoever made the file, or runs in the guest, decides over each byte. Counts are bounded by what
//! the file holds before memory is taken, and an error names the offset.

pub mod elf_core;
mod extents;
pub mod find;
pub mod flattened;
pub mod kdump;
pub mod lime;
mod lzo;
mod notes;
pub mod raw;
mod translated;
pub mod vmcoreinfo;

use std::ops::{ControlFlow, Range};

pub use extents::{Extent, Extents, Stretches};
pub use notes::{Note, QemuProcessor, qemu_processors};
pub use translated::Translated;

use crate::{Piece, ReadError};

/// A source of physical memory.
pub trait PhysicalMemory {
    /// What the source is called in reports: `guest RAM`, `ELF core`.
    fn name(&self) -> &'static str;

    /// The addresses that it has memory for, in order.
    fn ranges(&self) -> Vec<Range<u64>>;

    /// As [`crate::KernelMemory::visit`], with physical addresses.
    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError>;

    /// Fills `buffer` from `address`; tells whether all of it could be read.
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let mut filled = 0;
        let visited = self.visit(address, buffer.len() as u64, &mut |piece| {
            let Piece::Bytes { bytes, .. } = piece else { return ControlFlow::Break(()) };
            if let Some(part) = buffer.get_mut(filled..filled + bytes.len()) {
                part.copy_from_slice(bytes);
                filled += bytes.len();
            }
            ControlFlow::Continue(())
        });
        visited.is_ok() && filled == buffer.len()
    }
}

/// The bytes of a file, however they are had.
///
/// A file that nobody changes is one slice, and anything that is one implements this. The memory of a
/// guest that runs is not: its bytes have to be copied before they are looked at.
pub trait FileBytes {
    /// How many there are.
    fn length(&self) -> u64;

    /// Hands over `length` bytes from `offset` in order, in pieces. What is beyond the end is left
    /// out. Gives what `take` gave last.
    fn pieces(
        &self,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()>;
}

impl<T: AsRef<[u8]>> FileBytes for T {
    fn length(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn pieces(
        &self,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let bytes = self.as_ref();
        let end = offset.saturating_add(length).min(bytes.len() as u64);
        match bytes.get(offset as usize..end as usize) {
            Some(bytes) if !bytes.is_empty() => take(bytes),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Why bytes are not a dump of physical memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It ends within something.
    #[error("the file is cut off: it ends within {what} at offset {offset:#x}")]
    Truncated {
        /// What is missing.
        what: &'static str,
        /// Where what is missing begins.
        offset: u64,
    },
    /// Something in it is not as the format has it.
    #[error("at offset {offset:#x} of the file: {problem}")]
    Malformed {
        /// Where.
        offset: u64,
        /// What was expected and what was found.
        problem: String,
    },
}

impl FormatError {
    fn malformed(offset: u64, problem: impl Into<String>) -> Self {
        Self::Malformed { offset, problem: problem.into() }
    }
}

/// `N` bytes at an offset of a slice.
fn array<const N: usize>(bytes: &[u8], offset: u64) -> Option<[u8; N]> {
    bytes.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], offset: u64) -> Option<u16> {
    Some(u16::from_le_bytes(array(bytes, offset)?))
}

fn u32_at(bytes: &[u8], offset: u64) -> Option<u32> {
    Some(u32::from_le_bytes(array(bytes, offset)?))
}

fn u64_at(bytes: &[u8], offset: u64) -> Option<u64> {
    Some(u64::from_le_bytes(array(bytes, offset)?))
}
