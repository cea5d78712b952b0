// SPDX-License-Identifier: Apache-2.0
//! The guest's memory, seen from outside while it runs.
//!
//! It lies in a memfd, which QEMU maps shared, so nothing stays behind however the lab ends. Below the
//! PCI hole of the q35 machine, which begins at 2 GiB (hw/i386/pc_q35.c, QEMU 7.2), an offset in the
//! file is a physical address; the lab's guests are smaller.

use std::fs::File;
use std::os::fd::AsFd;

use memmap2::Mmap;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::error::{Error, Result};

/// The memory of a guest, mapped for reading.
#[derive(Debug)]
pub struct Ram {
    map: Mmap,
}

impl Ram {
    /// Maps a file that QEMU has as the guest's memory.
    pub(crate) fn map(file: impl AsFd) -> Result<Self> {
        let file = file.as_fd().try_clone_to_owned().map_err(Error::system("sharing memory"))?;
        // SAFETY: the guest changes the bytes while they are read. They are handed out only as
        // copies, and whoever reads them expects anything. Nobody makes the file shorter: QEMU gives
        // it its size and holds it.
        let map = unsafe { Mmap::map(&File::from(file)) };
        Ok(Self { map: map.map_err(Error::system("mapping the guest's memory"))? })
    }

    /// How many bytes the guest has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.map.len() as u64
    }

    /// Copies bytes at a physical address.
    #[must_use]
    pub fn read(&self, physical: u64, length: usize) -> Option<Vec<u8>> {
        let start = usize::try_from(physical).ok()?;
        Some(self.map.get(start..start.checked_add(length)?)?.to_vec())
    }
}

/// An anonymous file of a name that only serves to tell it from others.
pub(crate) fn anonymous(name: &str) -> Result<File> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC);
    Ok(File::from(file.map_err(Error::system("making an anonymous file"))?))
}
