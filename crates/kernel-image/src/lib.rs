// SPDX-License-Identifier: Apache-2.0
//! What a Linux kernel should look like.
//!
//! Bytes in, values out: nothing here reads a file or a running kernel. [`KernelImage::parse`] takes
//! a vmlinuz or vmlinux apart: [`payload`] unwraps and decompresses it, [`elf`] finds the sections,
//! [`relocations`] what KASLR changes, [`kallsyms`] the symbols, and [`tables`] the places where the
//! kernel patches itself. [`btf`] reads its types.
//!
//! Every byte may have been put there by an attacker. Counts and sizes are checked against the
//! bytes that are there before anything is allocated, and what contradicts itself is an
//! [`ImageError`] that names the offset.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod btf;
pub mod elf;
pub mod error;
mod image;
pub mod kallsyms;
mod little_endian;
pub mod module;
mod name_index;
pub mod patching;
pub mod payload;
pub mod relocations;
mod summary;
pub mod symbols;
pub mod tables;

pub use elf::{START_KERNEL_MAP, Section};
pub use error::{ImageError, ImageErrorKind, Place};
pub use image::KernelImage;
pub use payload::Compression;
pub use relocations::Relocations;
pub use summary::{ImageSummary, TableSummary};
pub use symbols::{KallsymsError, Symbol, Symbols, parse_proc_kallsyms};
pub use tables::{Site, TableKind, Tables, When};
