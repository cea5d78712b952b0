// SPDX-License-Identifier: Apache-2.0
//! Where the loader puts the sections that must not change.
//!
//! `layout_sections` (kernel/module/main.c) goes through the section headers once for each kind of
//! memory, and puts each section at the next offset that its alignment allows. Code comes first,
//! then what is neither code nor writable. Until 6.3 both lie in one piece (`core_layout`), each part
//! from a page's start; since 6.4 each kind has memory of its own (`mem[MOD_TEXT]`,
//! `mem[MOD_RODATA]`), from a page's start as well. So offsets within their parts are the same in
//! all versions from 6.1 to 7.3.
//!
//! A running kernel tells where the sections are (/sys/module/NAME/sections); this is what that is
//! held against.

use crate::module::file::{ModuleFile, ModuleSection};

/// A part of a module's memory that holds the same from the end of loading to the unloading, but
/// for what the kernel itself patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Code.
    Text,
    /// Read-only data.
    Rodata,
}

impl ModuleSection {
    /// Which of the two parts the loader puts it into, if it is one of them.
    pub fn part(&self) -> Option<Part> {
        if !self.is_loaded() || self.is_init() {
            None
        } else if self.is_executable() {
            Some(Part::Text)
        } else {
            (!self.is_writable()).then_some(Part::Rodata)
        }
    }
}

/// A section's place in its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The section's number.
    pub section: u16,
    /// Bytes from the start of the part.
    pub offset: u64,
}

impl ModuleFile {
    /// Where the loader puts the sections of a part, in order of address, and the size of all.
    /// Nothing if they do not fit into the address space.
    pub fn layout(&self, part: Part) -> Option<(Vec<Placed>, u64)> {
        let mut placed = Vec::new();
        let mut end: u64 = 0;
        let sections = (0..).zip(self.sections()).filter(|(_, one)| one.part() == Some(part));
        for (section, ModuleSection { size, alignment, .. }) in sections {
            let offset = end.checked_next_multiple_of(*alignment)?;
            end = offset.checked_add(*size)?;
            placed.push(Placed { section, offset });
        }
        Some((placed, end))
    }
}
