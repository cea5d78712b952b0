// SPDX-License-Identifier: Apache-2.0
//! From the file to the ELF inside: `.ko`, `.ko.gz`, `.ko.xz`, `.ko.zst`, signed or not.

use crate::error::{ImageError, ImageErrorKind, Place};
use crate::little_endian::slice;
use crate::payload::{self, Compression};

/// The largest module that is read. Debian's largest of 2026, amdgpu, has 26 MB.
const LARGEST_MODULE: u64 = 256 << 20;

/// Stands at the end of a signed module (`MODULE_SIG_STRING`, include/linux/module_signature.h).
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// `struct module_signature`, of which only the last field, the length of the signature before it,
/// is of use here (big-endian).
const SIGNATURE_INFO: u64 = 12;

/// A module out of its wrapping.
pub(super) struct Unpacked {
    pub(super) compression: Compression,
    /// The ELF without its signature.
    pub(super) elf: Vec<u8>,
    /// Whether a signature followed. Whether it is valid is for the kernel to say.
    pub(super) signed: bool,
}

pub(super) fn unpack(file: &[u8]) -> Result<Unpacked, ImageError> {
    let (compression, mut elf) = payload::decompress_file(file, LARGEST_MODULE)?;
    let Some(end) = elf.strip_suffix(SIGNATURE_MARK).map(|rest| rest.len() as u64) else {
        return Ok(Unpacked { compression, elf, signed: false });
    };
    let malformed =
        |problem: String| ImageError::new(ImageErrorKind::Malformed, Place::Module, end, problem);
    let info = end.checked_sub(SIGNATURE_INFO).and_then(|at| slice(&elf, at, SIGNATURE_INFO));
    let length = info.and_then(|info| info.last_chunk::<4>()).map(|four| u32::from_be_bytes(*four));
    let Some(length) = length.map(u64::from) else {
        return Err(malformed("a signature's mark, and nothing before it".to_owned()));
    };
    let Some(kept) = end.checked_sub(SIGNATURE_INFO + length) else {
        return Err(malformed(format!("a signature of {length} bytes is longer than the file")));
    };
    elf.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    Ok(Unpacked { compression, elf, signed: true })
}
