// SPDX-License-Identifier: Apache-2.0
//! Alternatives: of the kernel itself, and of the vDSO images that it carries in its read-only data.
//!
//! `struct alt_instr`, arch/x86/include/asm/alternative.h: 12 bytes in 6.1; 14, with flags of their own,
//! in 6.12 and later.

use crate::error::ImageError;
use crate::little_endian::{u8_at, u16_at, u64_at};
use crate::tables::place::{Entry, Source, Table};
use crate::tables::{TableBounds, TableKind, Tables};

/// Instructions that are replaced on CPUs with (or without) a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alternative {
    /// Address of the original instructions.
    pub address: u64,
    /// Address of the replacement, in `.altinstr_replacement`.
    pub replacement: u64,
    /// The feature: 32 × the word plus the bit of arch/x86/include/asm/cpufeatures.h.
    pub feature: u16,
    /// Replaced when the feature is *absent* (`ALT_FLAG_NOT`).
    pub unless: bool,
    /// The replacement is a direct call instead of one through memory (`ALT_FLAG_DIRECT_CALL`,
    /// from 6.8).
    pub direct_call: bool,
    /// Length of the original in bytes, with its padding of nops. All of it may change: nops are
    /// optimised even where the alternative is not taken.
    pub length: u8,
    /// Length of the replacement in bytes; the rest is filled with nops.
    pub replacement_length: u8,
}

/// Code for user space that the kernel maps into each process and patches in its own read-only data
/// while booting (`init_vdso_image`, arch/x86/entry/vdso/vma.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdsoImage {
    /// The symbol of its `struct vdso_image`.
    pub name: &'static str,
    /// Address of the image.
    pub address: u64,
    /// Size in bytes, a multiple of the page size.
    pub size: u64,
    /// Its own alternatives: addresses within the image as part of the kernel.
    pub alternatives: Vec<Alternative>,
}

pub(super) fn decode(source: &Source<'_>, tables: &mut Tables) -> Result<(), ImageError> {
    // Nothing states the size of an entry, but with the wrong one the second already leads nowhere.
    let kernel = |entry_size| -> Result<Option<(Table<'_>, Vec<Alternative>)>, ImageError> {
        let symbols = ("__alt_instructions", "__alt_instructions_end");
        let table =
            source.table(TableKind::Alternatives, ".altinstructions", symbols, entry_size)?;
        let Some(table) = table else { return Ok(None) };
        let is_code = |address, length| source.code_at(address, length).is_some();
        let list = table.entries(|entry| alternative(entry, is_code))?;
        Ok(Some((table, list)))
    };
    let Some((table, list)) = kernel(14).or_else(|error| kernel(12).map_err(|_| error))? else {
        return Ok(());
    };
    let entry_size = table.bounds.entry_size;
    tables.alternatives = list;
    tables.bounds.push(table.bounds);
    // The first names are those of 6.1 to 6.18, the others those of 7.3.
    let names = ["vdso_image_64", "vdso_image_x32", "vdso_image_32"];
    for name in names.into_iter().chain(["vdso64_image", "vdsox32_image", "vdso32_image"]) {
        if let Some(address) = source.symbols.address_of(name) {
            tables.vdso_images.push(vdso_image(source, name, address, entry_size)?);
        }
    }
    Ok(())
}

/// `struct vdso_image` starts with the image's address and size and the place and size of its
/// alternatives within, in all versions (arch/x86/include/asm/vdso.h, 6.1 to 7.3).
fn vdso_image(
    source: &Source<'_>,
    name: &'static str,
    at: u64,
    entry_size: u64,
) -> Result<VdsoImage, ImageError> {
    let (offset, _) = source.headers.offset_of(at).unwrap_or_default();
    let wrong = |what| {
        ImageError::malformed(
            offset,
            format!("{what} expected in {name}, which is not in the image"),
        )
    };
    let fields = source.bytes_at(at, 32).ok_or_else(|| wrong("a struct vdso_image"))?;
    let field = |index: u64| u64_at(fields, 8 * index).unwrap_or_default();
    let (address, size, start, length) = (field(0), field(1), field(2), field(3));
    source.bytes_at(address, size).ok_or_else(|| wrong("the address and size of a vDSO"))?;
    let mut image = VdsoImage { name, address, size, alternatives: Vec::new() };
    if length == 0 {
        return Ok(image);
    }
    let within = |at: u64, length: u64| {
        let into = at.checked_sub(address);
        into.and_then(|into| into.checked_add(length)).is_some_and(|end| end <= size)
    };
    let at = address.wrapping_add(start);
    let bytes = Some(()).filter(|()| within(at, length)).and_then(|()| source.bytes_at(at, length));
    let bytes = bytes.ok_or_else(|| wrong("the place of a vDSO's alternatives"))?;
    let (offset, _) = source.headers.offset_of(at).unwrap_or_default();
    let table = TableKind::Alternatives;
    let bounds =
        TableBounds { table, name: name.to_owned(), address: at, size: length, entry_size };
    image.alternatives =
        Table { bounds, bytes, offset }.entries(|entry| alternative(entry, within))?;
    Ok(image)
}

fn alternative(
    entry: &Entry<'_>,
    is_code: impl Fn(u64, u64) -> bool,
) -> Result<Alternative, ImageError> {
    let with_flags = entry.bytes.len() == 14;
    let lengths = if with_flags { 12 } else { 10 };
    let feature = u16_at(entry.bytes, 8).unwrap_or_default();
    // Without flags of their own, the top bit of the feature is ALTINSTR_FLAG_INV.
    let flags =
        if with_flags { u16_at(entry.bytes, 10).unwrap_or_default() } else { feature >> 15 };
    let alternative = Alternative {
        address: entry.relative(0),
        replacement: entry.relative(4),
        feature: if with_flags { feature } else { feature & 0x7fff },
        unless: flags & 1 != 0,
        direct_call: flags & 2 != 0,
        length: u8_at(entry.bytes, lengths).unwrap_or_default(),
        replacement_length: u8_at(entry.bytes, lengths + 1).unwrap_or_default(),
    };
    let length = u64::from(alternative.length);
    if length == 0 || !is_code(alternative.address, length) {
        return Err(entry.error("instructions to replace", alternative.address, None));
    }
    let replacement = u64::from(alternative.replacement_length);
    if replacement > length || (replacement > 0 && !is_code(alternative.replacement, replacement)) {
        return Err(entry.error("a replacement that fits", alternative.replacement, None));
    }
    Ok(alternative)
}
