// SPDX-License-Identifier: Apache-2.0
//! Kernel virtual memory behind one trait.
//!
//! A [`KernelMemory`] gives bytes by virtual address, wherever they come from: the running kernel
//! through one of several paths, or a file. Everything above it (typed access, page tables, the
//! guard's checks) knows only this trait, so the same check runs live and on a dump.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod address_map;
mod error;
mod fake;
mod kernel;
mod lists;
mod object;
pub mod page_tables;
pub mod physical;
pub mod saved;
#[cfg(test)]
mod tests;
mod trees;
mod xarray;

use std::ops::ControlFlow;

pub use address_map::{AddressMap, AddressSet};
pub use error::AccessError;
pub use fake::FakeMemory;
pub use kernel::Kernel;
pub use object::Object;
pub use page_tables::PageTables;
pub use physical::PhysicalMemory;
pub use saved::SavedImage;

/// Bytes in a page of the smallest size on x86-64.
pub const PAGE_SIZE: u64 = 4096;

/// Why memory could not be read.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// Nothing is mapped there, or the source holds nothing for it.
    #[error("kernel address {address:#x} is not readable through {through}")]
    Unreadable {
        /// The first address that could not be read.
        address: u64,
        /// The name of the source ([`KernelMemory::name`]).
        through: &'static str,
    },
    /// The source itself failed, as when the kernel refuses the reader altogether.
    #[error("{through} failed: {reason}")]
    Source {
        /// The name of the source.
        through: &'static str,
        /// What failed, in words.
        reason: String,
    },
}

/// One step of [`KernelMemory::visit`].
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes that were read.
    Bytes {
        /// The address of the first of them.
        address: u64,
        /// They are valid only during the call: the next piece may reuse the memory.
        bytes: &'a [u8],
    },
    /// A stretch that could not be read, in whole pages but for the ends of the range.
    Unreadable {
        /// Where it starts.
        address: u64,
        /// Its length in bytes.
        length: u64,
    },
}

/// What [`KernelMemory::visit_many`] hands ranges to: the position of each, and its bytes.
pub type RangeVisitor<'v> = dyn FnMut(usize, Result<&[u8], ReadError>) + 'v;

/// A source of kernel virtual memory.
pub trait KernelMemory {
    /// What the source is called in reports: `inline load`, `helper`, `kcore`, `image file`.
    fn name(&self) -> &'static str;

    /// Walks over `length` bytes from `start` in order and hands them over in pieces, without a
    /// copy where the source allows it. Each byte of the range is in exactly one piece. Unreadable
    /// stretches are pieces, not errors; the call fails only where the source does.
    /// `visitor` ends the walk early by [`ControlFlow::Break`].
    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError>;

    /// Fills `buffer` from `address`. Fails, with the first unreadable address, unless all of it
    /// could be read.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let mut missing = None;
        self.visit(address, buffer.len() as u64, &mut |piece| match piece {
            Piece::Bytes { address: at, bytes } => {
                let offset = at.wrapping_sub(address) as usize;
                if let Some(part) = buffer.get_mut(offset..offset + bytes.len()) {
                    part.copy_from_slice(bytes);
                }
                ControlFlow::Continue(())
            }
            Piece::Unreadable { address: at, .. } => {
                missing = Some(at);
                ControlFlow::Break(())
            }
        })?;
        match missing {
            None => Ok(()),
            Some(address) => Err(ReadError::Unreadable { address, through: self.name() }),
        }
    }

    /// Reads many ranges. Sources that can do so in one go override it; results come in the order
    /// of `ranges`, each with its own outcome.
    fn read_many(&self, ranges: &[(u64, u32)]) -> Vec<Result<Vec<u8>, ReadError>> {
        ranges
            .iter()
            .map(|(address, length)| {
                let mut bytes = vec![0; *length as usize];
                self.read(*address, &mut bytes).map(|()| bytes)
            })
            .collect()
    }

    /// Reads many ranges and hands each over with its position in `ranges`, in their order, without a
    /// copy where the source allows it. Sources that can read many in one go override it. Fails only
    /// where the source does; ranges that were not handed over until then are not.
    ///
    /// The bytes are valid only during the call. A visitor had better not read memory itself: a source
    /// may need as much again for that.
    fn visit_many(
        &self,
        ranges: &[(u64, u32)],
        visitor: &mut RangeVisitor<'_>,
    ) -> Result<(), ReadError> {
        let mut buffer = Vec::new();
        for (index, (address, length)) in ranges.iter().enumerate() {
            buffer.clear();
            buffer.resize(*length as usize, 0);
            match self.read(*address, &mut buffer) {
                Ok(()) => visitor(index, Ok(&buffer)),
                Err(error @ ReadError::Unreadable { .. }) => visitor(index, Err(error)),
                Err(error @ ReadError::Source { .. }) => return Err(error),
            }
        }
        Ok(())
    }
}
