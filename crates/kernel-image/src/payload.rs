// SPDX-License-Identifier: Apache-2.0
//! From the file to the vmlinux ELF inside.
//!
//! A bzImage is real-mode setup code with a header, then protected-mode code that carries the
//! compressed kernel. The header's fields are described in Documentation/arch/x86/boot.rst (6.12;
//! Documentation/x86/boot.rst before 6.4); the fields used here exist since boot protocol 2.08
//! (2008). The payload is the compressed ELF followed by its size before compression as a
//! little-endian u32 (scripts/Makefile.lib `size_append`, read by
//! arch/x86/boot/compressed/mkpiggy.c); a gzip stream ends in just that number by itself.
//!
//! That size is what limits the memory used here, not what the compressed stream says of itself.

use std::fmt;
use std::io::{self, Read};

use crate::error::{ImageError, ImageErrorKind, Place};
use crate::little_endian::{slice, u8_at, u16_at, u32_at};

/// The largest kernel that is decompressed. Debian's largest of 2026 has 66 MB.
pub const LARGEST_KERNEL: u64 = 512 << 20;

/// The dictionary of Linux's own xz call (scripts/xz_wrap.sh, 6.1: `dict=128MiB`) and the window of
/// `zstd -22 --ultra`, and some room, in KiB: a stream that asks for more is refused.
const LARGEST_WINDOW_KIB: u32 = 160 << 10;

/// One block of the LZ4 legacy frame format holds at most this much, before compression
/// (LZ4_Frame_format.md, "Legacy frame").
const LZ4_LEGACY_BLOCK: u64 = 8 << 20;

/// How the kernel was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: the file is a vmlinux ELF.
    None,
    /// gzip, the kernel's default.
    Gzip,
    /// xz with the x86 branch filter.
    Xz,
    /// Zstandard.
    Zstd,
    /// LZ4 in its legacy frame.
    Lz4,
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        })
    }
}

/// A kernel out of its wrapping.
#[derive(Debug)]
pub struct Payload {
    /// How it was compressed.
    pub compression: Compression,
    /// The vmlinux ELF and, after it, the relocation lists where the kernel has them.
    pub elf: Vec<u8>,
}

/// Takes the vmlinux ELF out of a bzImage, or copies the file if it is an ELF.
///
/// # Errors
/// When the file is no x86-64 kernel, is cut short, or does not decompress to the size it states.
pub fn unpack(file: &[u8]) -> Result<Payload, ImageError> {
    if file.starts_with(b"\x7fELF") {
        limit(file.len() as u64, 0)?;
        return Ok(Payload { compression: Compression::None, elf: file.to_vec() });
    }
    let (offset, payload) = payload_of(file)?;
    let (stream, size) = split_size(offset, payload)?;
    limit(size, offset + stream.len() as u64)?;
    let (compression, result) = decompress(offset, stream, size)?;
    let elf = result.map_err(|source| {
        let problem =
            format!("the {compression} stream that starts here does not decompress: {source}");
        at(ImageErrorKind::Decompression, offset, problem)
    })?;
    if elf.len() as u64 != size {
        let problem = format!(
            "the {compression} stream that starts here gives {} bytes where the image states {size}",
            elf.len()
        );
        return Err(at(ImageErrorKind::Decompression, offset, problem));
    }
    Ok(Payload { compression, elf })
}

fn at(
    kind: ImageErrorKind,
    offset: u64,
    problem: impl Into<std::borrow::Cow<'static, str>>,
) -> ImageError {
    ImageError::new(kind, Place::File, offset, problem)
}

fn limit(size: u64, offset: u64) -> Result<(), ImageError> {
    if size <= LARGEST_KERNEL {
        return Ok(());
    }
    let problem =
        format!("a kernel of {size} bytes, more than the {LARGEST_KERNEL} that are allowed");
    Err(at(ImageErrorKind::TooLarge, offset, problem))
}

/// The payload of a bzImage and its offset in the file.
fn payload_of(file: &[u8]) -> Result<(u64, &[u8]), ImageError> {
    let truncated = |offset, what| {
        let problem = format!("{what} expected here, but the file ends before");
        at(ImageErrorKind::Truncated, offset, problem)
    };
    if slice(file, 0x202, 4) != Some(b"HdrS") {
        return Err(not_a_boot_image(file));
    }
    let protocol =
        u16_at(file, 0x206).ok_or_else(|| truncated(0x206, "the boot protocol version"))?;
    if protocol < 0x208 {
        let problem = format!(
            "boot protocol {}.{:02} says nothing of the payload; 2.08 or later expected",
            protocol >> 8,
            protocol & 0xff
        );
        return Err(at(ImageErrorKind::Unsupported, 0x206, problem));
    }
    // XLF_KERNEL_64: the kernel has a 64-bit entry point (protocol 2.12, Linux 3.8).
    let flags = u16_at(file, 0x236).ok_or_else(|| truncated(0x236, "the load flags"))?;
    if protocol < 0x20c || flags & 1 == 0 {
        let problem = "the load flags have no 64-bit entry point: a kernel for 32-bit x86";
        return Err(at(ImageErrorKind::WrongArchitecture, 0x236, problem));
    }
    // Zero stands for four, for the sake of very old boot loaders.
    let setup_sectors = match u8_at(file, 0x1f1) {
        Some(0) | None => 4,
        Some(sectors) => u64::from(sectors),
    };
    let offset = u32_at(file, 0x248).ok_or_else(|| truncated(0x248, "the payload's offset"))?;
    let length = u32_at(file, 0x24c).ok_or_else(|| truncated(0x24c, "the payload's length"))?;
    let start = (setup_sectors + 1) * 512 + u64::from(offset);
    let payload = slice(file, start, u64::from(length)).ok_or_else(|| {
        let problem = format!(
            "a payload of {length} bytes from offset {start:#x} expected, but the file has {} bytes",
            file.len()
        );
        at(ImageErrorKind::Truncated, 0x248, problem)
    })?;
    Ok((start, payload))
}

/// Names what the file is, as far as its first bytes tell.
fn not_a_boot_image(file: &[u8]) -> ImageError {
    use ImageErrorKind::{NotAKernel, Truncated, WrongArchitecture};
    // Documentation/arch/arm64/booting.rst and Documentation/arch/riscv/boot-image-header.rst.
    match slice(file, 0x38, 4) {
        Some(b"ARM\x64") => return at(WrongArchitecture, 0x38, "a kernel for 64-bit ARM"),
        Some(b"RSC\x05") => return at(WrongArchitecture, 0x38, "a kernel for RISC-V"),
        _ => {}
    }
    if u32_at(file, 0x24) == Some(0x016f_2818) {
        return at(WrongArchitecture, 0x24, "a kernel for 32-bit ARM");
    }
    if file.is_empty() {
        return at(NotAKernel, 0, "the file is empty");
    }
    if file.starts_with(b"MZ") && file.len() < 0x206 {
        return at(
            Truncated,
            file.len() as u64,
            "the boot header expected, but the file ends before",
        );
    }
    for (magic, what) in [
        (&b"\x1f\x8b"[..], "a gzip file, perhaps a compressed kernel of another architecture"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"\xfd7zXZ", "an xz file"),
        (b"!<arch>\n", "an ar archive, such as a Debian package"),
        (b"\xed\xab\xee\xdb", "an RPM package"),
        (b"070701", "a cpio archive, such as an initial RAM disk"),
        (b"MZ", "an EFI program that is not a kernel by itself, perhaps a unified kernel image"),
    ] {
        if file.starts_with(magic) {
            return at(NotAKernel, 0, format!("this is {what}"));
        }
    }
    let found = slice(file, 0x202, 4).unwrap_or_default();
    let problem =
        format!("\"HdrS\", the mark of a Linux boot header, expected, {found:02x?} found");
    at(NotAKernel, 0x202, problem)
}

/// Splits the stated size from the end of the payload.
fn split_size(offset: u64, payload: &[u8]) -> Result<(&[u8], u64), ImageError> {
    let Some((stream, size)) = payload.split_last_chunk::<4>() else {
        let problem = format!("a payload of {} bytes is none", payload.len());
        return Err(at(ImageErrorKind::Malformed, offset, problem));
    };
    // gzip's own trailer is that number, so there it belongs to the stream as well.
    let stream = if payload.starts_with(b"\x1f\x8b") { payload } else { stream };
    Ok((stream, u64::from(u32::from_le_bytes(*size))))
}

/// Decompresses, after having found out how. The inner error lacks the offset, which the caller
/// knows.
fn decompress(
    offset: u64,
    stream: &[u8],
    size: u64,
) -> Result<(Compression, io::Result<Vec<u8>>), ImageError> {
    Ok(match stream {
        [0x1f, 0x8b, ..] => {
            (Compression::Gzip, read(flate2::read::GzDecoder::new(stream), stream, size))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let decoder = lzma_rust2::XzReader::new_mem_limit(stream, false, LARGEST_WINDOW_KIB);
            (Compression::Xz, read(decoder, stream, size))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => (Compression::Zstd, zstd(stream, size)),
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => (Compression::Lz4, lz4(blocks, size)),
        [0x7f, b'E', b'L', b'F', ..] => (Compression::None, Ok(stream.to_vec())),
        _ => {
            let found = stream.get(..6).unwrap_or(stream);
            let what = match found {
                [b'B', b'Z', b'h', ..] => "bzip2",
                [0x5d, 0, 0, ..] => "lzma",
                [0x89, b'L', b'Z', b'O', ..] => "lzo",
                _ => {
                    let problem = format!(
                        "the start of a gzip, xz, zstd or lz4 stream expected, {found:02x?} found"
                    );
                    return Err(at(ImageErrorKind::Malformed, offset, problem));
                }
            };
            let problem = format!("a kernel compressed with {what}, which is not read here");
            return Err(at(ImageErrorKind::Unsupported, offset, problem));
        }
    })
}

/// The bytes of a file that may be compressed as a whole, of at most `most` bytes before that: a
/// module. Its size is stated nowhere, so what it decompresses to is limited instead.
pub(crate) fn decompress_file(
    file: &[u8],
    most: u64,
) -> Result<(Compression, Vec<u8>), ImageError> {
    let refuse = |kind, problem: String| ImageError::new(kind, Place::Module, 0, problem);
    let known = matches!(
        file,
        [0x1f, 0x8b, ..]
            | [0xfd, b'7', b'z', b'X', b'Z', 0, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0x7f, b'E', b'L', b'F', ..]
    );
    if !known {
        let found = file.get(..6).unwrap_or(file);
        let problem = format!("an ELF, or one in gzip, xz or zstd, expected, {found:02x?} found");
        return Err(refuse(ImageErrorKind::NotAKernel, problem));
    }
    let (compression, result) = decompress(0, file, most)?;
    let elf = result.map_err(|source| {
        let problem = format!("the {compression} stream does not decompress: {source}");
        refuse(ImageErrorKind::Decompression, problem)
    })?;
    if elf.len() as u64 > most {
        let problem = format!("a module of more than the {most} bytes that are allowed");
        return Err(refuse(ImageErrorKind::TooLarge, problem));
    }
    Ok((compression, elf))
}

/// Room to start with: what is stated, unless the stream is far too small to hold that much.
fn room(stream: &[u8], size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX).min(stream.len().saturating_mul(16))
}

fn read(decoder: impl Read, stream: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let mut output = Vec::with_capacity(room(stream, size));
    // One byte more than allowed shows a stream that goes on.
    decoder.take(size + 1).read_to_end(&mut output)?;
    Ok(output)
}

fn zstd(stream: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(stream).map_err(io::Error::other)?;
    read(decoder, stream, size)
}

/// The legacy frame: blocks of a u32 length and that many bytes, to the end of the stream.
fn lz4(mut blocks: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let mut output = Vec::with_capacity(room(blocks, size));
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        let Some(block) = slice(rest, 0, u64::from(length)) else {
            let problem = format!("a block of {length} bytes where {} are left", rest.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        };
        let start = output.len();
        let left = size.saturating_sub(start as u64).min(LZ4_LEGACY_BLOCK);
        // A block holds at most 255 bytes for each of its own, so a short one gets little room.
        let most = left.min(u64::from(length) * 255);
        output.resize(start + usize::try_from(most).unwrap_or(0), 0);
        let target = output.get_mut(start..).unwrap_or_default();
        let written = lz4_flex::block::decompress_into(block, target).map_err(io::Error::other)?;
        output.truncate(start + written);
        blocks = slice(rest, u64::from(length), (rest.len() as u64) - u64::from(length))
            .unwrap_or_default();
    }
    Ok(output)
}

/// The version text of a bzImage, from its setup code: what `file` prints. `None` for an ELF.
pub fn boot_version(file: &[u8]) -> Option<&str> {
    if slice(file, 0x202, 4) != Some(b"HdrS") {
        return None;
    }
    let start = u64::from(u16_at(file, 0x20e)?) + 0x200;
    let text = file.get(usize::try_from(start).ok()?..)?;
    let text = text.get(..text.len().min(256))?;
    std::str::from_utf8(text.split(|byte| *byte == 0).next()?).ok()
}
