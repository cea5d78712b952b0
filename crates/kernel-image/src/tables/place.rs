// SPDX-License-Identifier: Apache-2.0
//! Where a table is in the image, and reading its entries.

use crate::elf::Elf;
use crate::error::{ImageError, ImageErrorKind, Place};
use crate::little_endian::{i32_at, slice};
use crate::symbols::Symbols;
use crate::tables::{TableBounds, TableKind};

/// What tables are decoded from.
pub(crate) struct Source<'a> {
    pub(crate) elf: &'a [u8],
    pub(crate) headers: &'a Elf,
    pub(crate) symbols: &'a Symbols,
}

/// A table's bytes and where they are.
pub(super) struct Table<'a> {
    pub(super) bounds: TableBounds,
    pub(super) bytes: &'a [u8],
    /// Offset in the ELF, for errors.
    pub(super) offset: u64,
}

impl<'a> Source<'a> {
    /// The bytes at an address; nothing where the image has none.
    pub(crate) fn bytes_at(&self, address: u64, length: u64) -> Option<&'a [u8]> {
        let (offset, left) = self.headers.offset_of(address)?;
        if length > left {
            return None;
        }
        slice(self.elf, offset, length)
    }

    /// The code at an address: nothing where there is no executable section.
    pub(super) fn code_at(&self, address: u64, length: u64) -> Option<&'a [u8]> {
        let code =
            |section: &crate::Section| section.is_executable() && section.contains(address, length);
        if !self.headers.sections.iter().any(code) {
            return None;
        }
        self.bytes_at(address, length)
    }

    /// The table in the section of this name or, where there is none, between these symbols.
    pub(super) fn table(
        &self,
        table: TableKind,
        section: &str,
        symbols: (&str, &str),
        entry_size: u64,
    ) -> Result<Option<Table<'a>>, ImageError> {
        let (name, address, size) = if let Some(section) = self.headers.section(section) {
            (section.name.as_str(), section.address, section.size)
        } else {
            let (start, stop) = symbols;
            let Some(address) = self.symbols.address_of(start) else { return Ok(None) };
            let size = self.symbols.address_of(stop).and_then(|stop| stop.checked_sub(address));
            let Some(size) = size else {
                let offset = self.headers.offset_of(address).map_or(0, |(offset, _)| offset);
                let problem = format!("{start} is at {address:#x}, and {stop} expected after it");
                return Err(ImageError::malformed(offset, problem));
            };
            (start, address, size)
        };
        let Some((offset, _)) = self.headers.offset_of(address).filter(|_| size > 0) else {
            return if size == 0 { Ok(None) } else { Err(outside(name, address)) };
        };
        let bytes = self.bytes_at(address, size).ok_or_else(|| {
            ImageError::truncated(offset, format!("table {name} of {size} bytes"))
        })?;
        let bounds = TableBounds { table, name: name.to_owned(), address, size, entry_size };
        Ok(Some(Table { bounds, bytes, offset }))
    }
}

fn outside(name: &str, address: u64) -> ImageError {
    let problem =
        format!("table {name} expected at address {address:#x}, which is not in the image");
    ImageError::new(ImageErrorKind::Malformed, Place::Elf, 0, problem)
}

impl Table<'_> {
    /// Decodes each entry with `decode`, which gets the entry's bytes and address.
    pub(super) fn entries<T>(
        &self,
        mut decode: impl FnMut(&Entry<'_>) -> Result<T, ImageError>,
    ) -> Result<Vec<T>, ImageError> {
        let size = self.bounds.entry_size;
        if !self.bounds.size.is_multiple_of(size) {
            let problem = format!(
                "table {} of {} bytes, which is no multiple of the {size} bytes of an entry",
                self.bounds.name, self.bounds.size
            );
            return Err(ImageError::malformed(self.offset, problem));
        }
        let mut list = Vec::with_capacity(self.bytes.len() / size as usize);
        for (index, bytes) in self.bytes.chunks_exact(size as usize).enumerate() {
            let into = index as u64 * size;
            list.push(decode(&Entry {
                bytes,
                address: self.bounds.address + into,
                offset: self.offset + into,
                table: &self.bounds.name,
            })?);
        }
        Ok(list)
    }
}

/// One entry of a table.
pub(super) struct Entry<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) address: u64,
    offset: u64,
    table: &'a str,
}

impl Entry<'_> {
    /// The address that the i32 at `at` of the entry is the distance to, from itself.
    pub(super) fn relative(&self, at: u64) -> u64 {
        let distance = i32_at(self.bytes, at).unwrap_or_default();
        self.address.wrapping_add(at).wrapping_add(i64::from(distance) as u64)
    }

    /// That this entry is not what it should be.
    pub(super) fn error(&self, expected: &str, address: u64, found: Option<&[u8]>) -> ImageError {
        let found = match found {
            Some(bytes) => format!("{bytes:02x?}"),
            None => "no code".to_owned(),
        };
        let problem = format!(
            "{expected} at {address:#x} expected by this entry of {}, {found} found",
            self.table
        );
        ImageError::malformed(self.offset, problem)
    }

    /// The address the i32 at the entry's start leads to, if the code there is what `is` wants.
    pub(super) fn code(
        &self,
        source: &Source<'_>,
        length: u64,
        expected: &str,
        is: impl Fn(&[u8]) -> bool,
    ) -> Result<u64, ImageError> {
        let address = self.relative(0);
        match source.code_at(address, length) {
            Some(code) if is(code) => Ok(address),
            found => Err(self.error(expected, address, found)),
        }
    }
}
