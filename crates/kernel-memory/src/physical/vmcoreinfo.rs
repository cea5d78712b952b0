// SPDX-License-Identifier: Apache-2.0
//! What a kernel says of itself for whoever looks at a dump of it: VMCOREINFO, lines of
//! `NAME=VALUE` in a page of its memory and in a note of dumps (Documentation/admin-guide/kdump/
//! vmcoreinfo.rst, kernel/vmcore_info.c, arch/x86/kernel/vmcore_info_64.c, Linux 6.12).
//!
//! It is the word of the guest. Whoever uses it holds it against the image and, where there are any,
//! against the registers of the processors.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::PhysicalMemory;
use crate::page_tables::Levels;
use crate::{PAGE_SIZE, Piece, ReadError};

/// How the text begins.
const FIRST: &[u8] = b"OSRELEASE=";

/// `VMCOREINFO_BYTES`: it is a page at most.
const LIMIT: usize = PAGE_SIZE as usize;

/// More pages than this that begin so are somebody's attempt to keep a search busy.
const MOST: usize = 64;

/// Where the kernel's own page tables and text are mapped (`__START_KERNEL_map`).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// The text, and what is needed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmCoreInfo {
    /// What `uname -r` gives.
    pub release: String,
    /// The build id in hexadecimal; empty where the kernel does not say.
    pub build_id: String,
    /// How far KASLR moved the kernel's virtual addresses.
    pub slide: u64,
    /// What is added to a virtual address of the kernel, less `__START_KERNEL_map`, for the physical
    /// one.
    pub physical_base: u64,
    /// The physical address of the root of the kernel's own page tables.
    pub root: u64,
    /// How many levels these have.
    pub levels: Levels,
    /// The bits of entries that are no part of the address.
    pub encryption: u64,
}

impl VmCoreInfo {
    /// Reads the text; nothing if it is not that of an x86-64 kernel.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.split(|byte| *byte == 0).next()?;
        let text = std::str::from_utf8(text.get(..text.len().min(LIMIT))?).ok()?;
        let lines: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once('=')).collect();
        let hexadecimal = |name: &str| u64::from_str_radix(lines.get(name)?, 16).ok();
        // VMCOREINFO_NUMBER prints `%ld`, and phys_base is below zero where the kernel lies lower
        // than it was linked to.
        let number = |name: &str| Some(lines.get(name)?.parse::<i64>().ok()?.cast_unsigned());
        let physical_base = number("NUMBER(phys_base)")?;
        let root = ["SYMBOL(init_top_pgt)", "SYMBOL(swapper_pg_dir)"];
        let root = root.into_iter().find_map(hexadecimal)?;
        let levels = match number("NUMBER(pgtable_l5_enabled)") {
            Some(1) => Levels::Five,
            _ => Levels::Four,
        };
        Some(Self {
            release: (*lines.get("OSRELEASE")?).to_owned(),
            build_id: lines.get("BUILD-ID").copied().unwrap_or_default().to_owned(),
            slide: hexadecimal("KERNELOFFSET")?,
            physical_base,
            root: root.checked_sub(START_KERNEL_MAP)?.wrapping_add(physical_base),
            levels,
            encryption: number("NUMBER(sme_mask)").unwrap_or(0),
        })
    }

    /// All that memory holds, by physical address. The kernel keeps the text in a page of its own
    /// (`crash_save_vmcoreinfo_init`, kernel/vmcore_info.c), so only the beginnings of pages are
    /// looked at. A guest's programs may have put more such pages into their memory.
    ///
    /// # Errors
    /// When the source fails.
    pub fn search(memory: &dyn PhysicalMemory) -> Result<Vec<(u64, Self)>, ReadError> {
        let mut found = Vec::new();
        for range in memory.ranges() {
            let mut page = range.start.next_multiple_of(PAGE_SIZE);
            while page < range.end && found.len() < MOST {
                if let Some(info) = Self::at(memory, page)? {
                    found.push((page, info));
                }
                page += PAGE_SIZE;
            }
        }
        Ok(found)
    }

    /// The text in the page at this address, if one is there.
    fn at(memory: &dyn PhysicalMemory, page: u64) -> Result<Option<Self>, ReadError> {
        let mut begins = false;
        memory.visit(page, FIRST.len() as u64, &mut |piece| {
            begins = matches!(piece, Piece::Bytes { bytes, .. } if bytes == FIRST);
            ControlFlow::Break(())
        })?;
        if !begins {
            return Ok(None);
        }
        let mut text = vec![0; LIMIT];
        Ok(if memory.read(page, &mut text) { Self::parse(&text) } else { None })
    }
}
