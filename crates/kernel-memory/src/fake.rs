// SPDX-License-Identifier: Apache-2.0
//! Kernel memory that a test makes up.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::{KernelMemory, PAGE_SIZE, Piece, ReadError};

const PAGE: usize = PAGE_SIZE as usize;

/// Kernel memory that a test makes up: pages at any addresses, zero until written, unreadable where
/// nothing was written.
#[derive(Clone, Debug, Default)]
pub struct FakeMemory {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl FakeMemory {
    /// Memory in which nothing is readable.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes bytes, and makes the pages under them readable.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let mut at = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = (at % PAGE_SIZE) as usize;
            let (part, after) = rest.split_at(rest.len().min(PAGE - offset));
            let page = self.pages.entry(at - at % PAGE_SIZE);
            let page = page.or_insert_with(|| Box::new([0; PAGE]));
            if let Some(to) = page.get_mut(offset..offset + part.len()) {
                to.copy_from_slice(part);
            }
            at = at.wrapping_add(part.len() as u64);
            rest = after;
        }
    }

    /// Writes eight bytes.
    pub fn write_u64(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    /// Writes four bytes.
    pub fn write_u32(&mut self, address: u64, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    /// Makes the page with this address unreadable.
    pub fn remove_page(&mut self, address: u64) {
        self.pages.remove(&(address - address % PAGE_SIZE));
    }
}

impl KernelMemory for FakeMemory {
    fn name(&self) -> &'static str {
        "made-up memory"
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut at = start;
        let mut left = length;
        while left > 0 {
            let offset = at % PAGE_SIZE;
            let length = left.min(PAGE_SIZE - offset);
            let page = self.pages.get(&(at - offset));
            let bytes = page.and_then(|page| page.get(offset as usize..(offset + length) as usize));
            let piece = match bytes {
                Some(bytes) => Piece::Bytes { address: at, bytes },
                None => Piece::Unreadable { address: at, length },
            };
            if visitor(piece).is_break() {
                break;
            }
            at = at.wrapping_add(length);
            left -= length;
        }
        Ok(())
    }
}
