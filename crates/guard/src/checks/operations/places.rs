// SPDX-License-Identifier: Apache-2.0
//! In whose memory an address is, and whether code may be led to from there.

use std::cell::RefCell;
use std::ops::Range;

use kernel_memory::{AddressSet, Kernel};

use crate::check::Missing;
use crate::checks::modules::loaded::{cannot_load, walk_list};
use crate::fields::Fields;
use crate::owners::{Owner, Owners};
use crate::recover::Recovered;

/// Where modules begin with KASLR; the image lies below (Documentation/arch/x86/x86_64/mm.rst).
const END_OF_IMAGE: u64 = 0xffff_ffff_c000_0000;

/// Parts of a module's memory: `struct module_memory mem[]` from 6.4 on, two layouts before
/// (include/linux/module.h).
const PARTS: [(&str, &str); 9] = [
    ("mem[0].base", "mem[0].size"),
    ("mem[1].base", "mem[1].size"),
    ("mem[2].base", "mem[2].size"),
    ("mem[3].base", "mem[3].size"),
    ("mem[4].base", "mem[4].size"),
    ("mem[5].base", "mem[5].size"),
    ("mem[6].base", "mem[6].size"),
    ("core_layout.base", "core_layout.size"),
    ("init_layout.base", "init_layout.size"),
];

/// Who has a place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The image's read-only data, which is compared by itself.
    Pinned,
    /// The image's writable data.
    Image,
    /// This module's memory.
    Module(String),
    /// None of these.
    Nobody,
}

/// All memory that tables of operations can be in, and all code that they can lead to.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) owners: Owners,
    image: Range<u64>,
    pinned: Range<u64>,
    modules: Vec<(Range<u64>, String)>,
    /// Addresses that were found to be functions of the kernel, which they then always are.
    functions: RefCell<AddressSet>,
}

impl Places {
    /// Reads the list of modules. `pinned` is the read-only data that another check compares.
    pub(super) fn gather(
        kernel: &Kernel<'_>,
        recovered: &mut Recovered,
        pinned: Range<u64>,
        functions: AddressSet,
    ) -> Result<Self, Missing> {
        let owners = Owners::gather(kernel, recovered);
        let image = owners.text.end..END_OF_IMAGE;
        let modules = modules(kernel, recovered)?;
        Ok(Self { owners, image, pinned, modules, functions: functions.into() })
    }

    /// The functions of the kernel that are known, for the next look.
    pub(super) fn into_functions(self) -> AddressSet {
        self.functions.into_inner()
    }

    /// For tests.
    #[cfg(test)]
    pub(super) fn of_parts(
        owners: Owners,
        pinned: Range<u64>,
        modules: Vec<(Range<u64>, String)>,
    ) -> Self {
        let image = owners.text.end..END_OF_IMAGE;
        Self { owners, image, pinned, modules, functions: RefCell::default() }
    }

    /// Whether `address` is in the image's read-only data.
    pub(super) fn is_pinned(&self, address: u64) -> bool {
        self.pinned.contains(&address)
    }

    /// Who has `address`.
    pub(super) fn of(&self, address: u64) -> Place {
        if self.is_pinned(address) {
            return Place::Pinned;
        }
        if self.image.contains(&address) {
            return Place::Image;
        }
        let module = self.modules.iter().find(|(range, _)| range.contains(&address));
        module.map_or(Place::Nobody, |(_, name)| Place::Module(name.clone()))
    }

    /// The module that has `address`, in words.
    pub(super) fn owner(&self, address: u64) -> Option<String> {
        match self.of(address) {
            Place::Module(name) => Some(format!("module {name}")),
            _ => None,
        }
    }

    /// Why code at `target` must not be led to from a table that is at `place`; none if it may.
    ///
    /// A table of the image leads to the image's own functions. One of a module may also lead to
    /// those of other modules, which libraries of the kernel are.
    pub(super) fn objection(
        &self,
        kernel: &Kernel<'_>,
        place: &Place,
        target: u64,
    ) -> Option<String> {
        if self.functions.borrow().contains(&target) {
            return None;
        }
        match self.owners.of(kernel, target) {
            Some(Owner::Kernel { offset: 0, .. }) => {
                self.functions.borrow_mut().insert(target);
                None
            }
            Some(Owner::Kernel { symbol, offset }) => {
                Some(format!("in the middle of {symbol} ({offset:#x} bytes in)"))
            }
            Some(Owner::Module(name)) => {
                (!matches!(place, Place::Module(_))).then(|| format!("in module {name}"))
            }
            Some(owner) => Some(format!("in {owner}")),
            None => Some("in no text, module or image that the kernel knows".to_owned()),
        }
    }
}

fn modules(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<Vec<(Range<u64>, String)>, Missing> {
    if cannot_load(kernel).is_some() {
        return Ok(Vec::new());
    }
    let module = kernel.object("module", 0)?;
    let parts: Vec<(&str, &str)> =
        PARTS.into_iter().filter(|(base, size)| module.has(base) && module.has(size)).collect();
    let mut members = vec!["list.next", "name"];
    members.extend(parts.iter().flat_map(|(base, size)| [*base, *size]));
    let fields = Fields::of(kernel, "module", &members)?;
    let mut ranges = Vec::new();
    for record in &walk_list(kernel, recovered, &fields)? {
        for part in 0..parts.len() {
            let (base, size) = (record.value(2 + 2 * part), record.value(3 + 2 * part));
            let size = size & 0xffff_ffff;
            if base != 0 && size != 0 {
                ranges.push((base..base.saturating_add(size), record.text(1)));
            }
        }
    }
    Ok(ranges)
}
