// SPDX-License-Identifier: Apache-2.0
//! Why an image could not be read: what was expected, at which offset, and what to do.

use std::borrow::Cow;
use std::fmt;

/// What to match on when an image is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageErrorKind {
    /// The file is something else than a Linux kernel.
    NotAKernel,
    /// It is a Linux kernel, but not for x86-64.
    WrongArchitecture,
    /// The file ends before what its headers promise.
    Truncated,
    /// A value contradicts the format or another value of the same file.
    Malformed,
    /// The format is known, but not one that is read here.
    Unsupported,
    /// A size is beyond the limit that is set here, so nothing was allocated for it.
    TooLarge,
    /// The compressed kernel inside the boot image does not decompress.
    Decompression,
    /// The kernel has no symbol table that could be found, so its tables cannot be either.
    NoSymbols,
}

/// Which bytes an offset counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as it was given.
    File,
    /// The vmlinux ELF: the decompressed payload of a bzImage, or the file itself.
    Elf,
    /// A module's ELF: the decompressed `.ko`, or the file itself.
    Module,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File => "the file",
            Self::Elf => "the decompressed kernel",
            Self::Module => "the decompressed module",
        })
    }
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset:#x} of {place}: {problem}; {}", self.advice())]
pub struct ImageError {
    kind: ImageErrorKind,
    place: Place,
    offset: u64,
    problem: Cow<'static, str>,
}

impl ImageError {
    pub(crate) fn new(
        kind: ImageErrorKind,
        place: Place,
        offset: u64,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, place, offset, problem: problem.into() }
    }

    /// A value in the ELF that cannot be.
    pub(crate) fn malformed(offset: u64, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ImageErrorKind::Malformed, Place::Elf, offset, problem)
    }

    /// The ELF ends before `what`.
    pub(crate) fn truncated(offset: u64, what: impl fmt::Display) -> Self {
        let problem = format!("{what} expected here, but the ELF ends before");
        Self::new(ImageErrorKind::Truncated, Place::Elf, offset, problem)
    }

    /// The same error, with its offset counted in other bytes.
    pub(crate) fn in_place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ImageErrorKind {
        self.kind
    }

    /// Which bytes [`Self::offset`] counts in.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Where the value is that was not as expected, in bytes from the start of [`Self::place`].
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the user can do about it.
    pub fn advice(&self) -> &'static str {
        match self.kind {
            ImageErrorKind::NotAKernel if self.place == Place::Module => {
                "give a kernel module, a file *.ko, *.ko.xz, *.ko.zst or *.ko.gz below \
                 /lib/modules/RELEASE"
            }
            ImageErrorKind::Unsupported if self.place == Place::Module => {
                "decompress the module and give the result"
            }
            ImageErrorKind::NotAKernel => {
                "give the kernel's own file, as a rule /boot/vmlinuz-RELEASE or \
                 /usr/lib/modules/RELEASE/vmlinuz"
            }
            ImageErrorKind::WrongArchitecture => {
                "only x86-64 kernels can be read; give the image of an x86-64 machine"
            }
            ImageErrorKind::Truncated => {
                "compare the file with its package (dpkg --verify, rpm -V) and install it again if \
                 they differ"
            }
            ImageErrorKind::Malformed | ImageErrorKind::Decompression => {
                "compare the file with its package (dpkg --verify, rpm -V); if they agree this is a \
                 kernel format that is not known yet, please report it"
            }
            ImageErrorKind::Unsupported => {
                "extract the kernel with the kernel's scripts/extract-vmlinux and give the result"
            }
            ImageErrorKind::NoSymbols => {
                "the kernel must be built with CONFIG_KALLSYMS=y, as distributions do; if this one \
                 is, its format is not known yet, please report it"
            }
            ImageErrorKind::TooLarge => {
                "no real kernel is that large; compare the file with its package (dpkg --verify, \
                 rpm -V)"
            }
        }
    }
}
