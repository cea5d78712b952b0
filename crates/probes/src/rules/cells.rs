// SPDX-License-Identifier: Apache-2.0
//! A map of cells: a compiled set or collection in the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::{MapHandle, MapType, libbpf_sys};
use rules::abi::{Cell, Counter, Set};

use crate::error::ProbeError;
use crate::mapping::Mapping;
use crate::object::{self, Kind, Own};

/// As `struct rules_cells` in bpf/lib/rules_maps.h: BPF_F_MMAPABLE and BPF_F_INNER_MAP.
const FLAGS: u32 = 1 << 10 | 1 << 12;

/// A map that holds these cells and can be written by programs only.
#[derive(Debug)]
pub(super) struct Cells {
    map: MapHandle,
    mapping: Mapping,
    header: Set,
    _own: Own,
}

impl Cells {
    /// A map of its own, filled.
    pub(super) fn new(name: &'static str, cells: &[Cell]) -> Result<Self, ProbeError> {
        let what = "making a map of the rules";
        let failed = |error: io::Error| ProbeError::Failed { what, reason: error.to_string() };
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: FLAGS,
            ..Default::default()
        };
        let count = u32::try_from(cells.len()).unwrap_or(u32::MAX);
        let map = object::with_libbpf(what, || {
            let size = size_of::<Cell>() as u32;
            MapHandle::create(MapType::Array, Some(name), 4, size, count, &options)
        })?;
        let length = size_of_val(cells);
        let writable = Mapping::new(map.as_fd(), length, true).map_err(failed)?;
        // SAFETY: the mapping has room for all cells and is page-aligned, they are plain bytes, and
        // nobody else knows the map yet.
        unsafe {
            std::ptr::copy_nonoverlapping(
                cells.as_ptr(),
                writable.start().cast::<Cell>().as_ptr(),
                cells.len(),
            );
        }
        drop(writable);
        // Neither this process nor who finds the map by its id writes to it any more.
        object::with_libbpf(what, || map.freeze())?;
        let mapping = Mapping::new(map.as_fd(), length, false).map_err(failed)?;
        let mut own = Own::default();
        own.add(Kind::Map, map.as_fd())?;
        let header = cells.first().copied().unwrap_or_default().into();
        Ok(Self { map, mapping, header, _own: own })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// What a rule of the set did, by its place; of all processors.
    pub(super) fn counter(&self, number: u32) -> Counter {
        let each = self.header.rules.div_ceil(4);
        let mut sum = Counter::default();
        for shard in 0..self.header.shards {
            let cell = self.header.counters_at + shard * each + number / 4;
            let word = cell as usize * 8 + number as usize % 4 * 2;
            sum.matches = sum.matches.wrapping_add(self.word(word));
            sum.denies = sum.denies.wrapping_add(self.word(word + 1));
        }
        sum
    }

    /// A word that programs add to meanwhile.
    fn word(&self, index: usize) -> u64 {
        if (index + 1) * size_of::<u64>() > self.mapping.length() {
            return 0;
        }
        // SAFETY: the index is within the mapping, which is page-aligned and lives as long as `self`.
        // Programs change the word by atomic additions only.
        let word = unsafe { &*self.mapping.start().cast::<AtomicU64>().as_ptr().add(index) };
        word.load(Ordering::Relaxed)
    }
}
