// SPDX-License-Identifier: Apache-2.0
//! Pages of thunks for indirect branches (`its_allocate_thunk`, alternative.c).
//!
//! On processors with the ITS bug an indirect branch must not stand in the lower half of a cache
//! line. The kernel gives each site that does a thunk of its own, on pages that it allocates while
//! it patches. Which thunk is where in its page follows from the order of the sites; only the
//! addresses of the pages have to be learned from memory.

use super::code::Code;
use super::machine::{Machine, Retpoline};
use super::nops::INT3;
use super::retpolines::Through;

const PAGE: u64 = 4096;

/// Where a site's thunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The address of the site.
    pub site: u64,
    /// How many pages were allocated before the thunk's.
    pub page: usize,
    /// The offset of the thunk in its page.
    pub offset: u64,
}

/// The pages of thunks of the kernel, or of one module.
#[derive(Clone, Debug, Default)]
pub struct ItsPages {
    addresses: Vec<u64>,
    contents: Vec<Vec<u8>>,
    offset: u64,
}

impl ItsPages {
    /// With the addresses of the pages in the order in which they were allocated.
    pub fn new(addresses: Vec<u64>) -> Self {
        Self { addresses, ..Self::default() }
    }

    /// What each page holds, with its address.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let contents = self.contents.iter().map(Vec::as_slice);
        self.addresses.iter().copied().zip(contents)
    }

    fn place(&mut self, register: u8) -> (usize, u64) {
        let size = 3 + u64::from(register / 8);
        if self.contents.is_empty() || self.offset + size > PAGE {
            self.contents.push(vec![INT3; PAGE as usize]);
            self.offset = 32;
        }
        // To the upper half of a cache line.
        if (self.offset + size - 1) % 64 < 32 {
            self.offset = ((self.offset - 1) | 0x3f) + 33;
        }
        let offset = self.offset;
        self.offset += size;
        let page = self.contents.len() - 1;
        let mut thunk = Vec::new();
        if register >= 8 {
            thunk.push(0x41);
        }
        thunk.extend([0xff, 0xe0 + register % 8, INT3]);
        let content = self.contents.get_mut(page);
        let slot = content.and_then(|page| page.get_mut(offset as usize..(offset + size) as usize));
        if let Some(slot) = slot {
            slot.copy_from_slice(&thunk);
        }
        (page, offset)
    }

    /// The address of a new thunk for a register; nothing where the page's is not known.
    pub(super) fn allocate(&mut self, register: u8) -> Option<u64> {
        let (page, offset) = self.place(register);
        Some(self.addresses.get(page)?.wrapping_add(offset))
    }
}

/// Where the thunk of each site will be. The code is as it was before retpolines were patched.
pub fn plan(code: &impl Code, sites: impl IntoIterator<Item = u64>, machine: &Machine) -> Vec<Use> {
    let mut pages = ItsPages::default();
    if !machine.its || machine.retpoline == Retpoline::Thunk {
        return Vec::new();
    }
    let lfence = machine.retpoline == Retpoline::Lfence;
    let sites = sites.into_iter();
    sites
        .filter_map(|site| {
            let through = Through::at(code, site, machine.indirect_thunks)?;
            let register = through.lower_half(site, lfence)?;
            let (page, offset) = pages.place(register);
            Some(Use { site, page, offset })
        })
        .collect()
}
