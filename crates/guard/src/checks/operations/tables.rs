// SPDX-License-Identifier: Apache-2.0
//! Tables of operations: structures whose members are pointers to functions.

use kernel_image::btf::{Kind, TypeId};
use kernel_memory::{AccessError, Kernel};

use super::places::{Place, Places};
use super::{Found, Wrong};

/// A type of table: which of its members are pointers to functions.
#[derive(Clone, Debug)]
pub(super) struct TableType {
    pub(super) name: &'static str,
    size: u64,
    /// Name and offset of each.
    functions: Vec<(String, u64)>,
}

impl TableType {
    /// The members by the kernel's types; those of structures within it are left out.
    pub(super) fn of(kernel: &Kernel<'_>, name: &'static str) -> Result<Self, AccessError> {
        let table = kernel.type_named(name)?;
        let types = kernel.types;
        let is_function = |id: TypeId| {
            let target = types.pointee(id).and_then(|target| types.resolved_kind(target));
            target == Some(Kind::Prototype)
        };
        let functions = types
            .members(table)
            .filter(|member| is_function(member.type_id))
            .map(|member| (member.name.to_owned(), member.bit_offset / 8))
            .collect();
        Ok(Self { name, size: kernel.size_of(name)?, functions })
    }

    /// Looks at a table that `what` leads to. In read-only data of the image it is compared already;
    /// anywhere else each of its functions must be one that may be called from there.
    pub(super) fn look(
        &self,
        kernel: &Kernel<'_>,
        places: &Places,
        what: &dyn Fn() -> String,
        table: u64,
        found: &mut Found,
    ) {
        let place = places.of(table);
        if place == Place::Pinned || place == Place::Nobody || !found.tables.insert(table) {
            return;
        }
        let Ok(bytes) = kernel.bytes_at(table, self.size as usize) else { return };
        for (member, offset) in &self.functions {
            let at = *offset as usize;
            let word = bytes.get(at..at + 8).and_then(|word| word.first_chunk());
            let target = word.map_or(0, |word| u64::from_le_bytes(*word));
            if target == 0 {
                continue;
            }
            let Some(objection) = places.objection(kernel, &place, target) else { continue };
            let handler = places.owners.describe(kernel, target);
            let owner = places.owners.of(kernel, target).map(|owner| owner.to_string());
            let of = match &place {
                Place::Module(name) => format!("module {name} or another"),
                _ => "the kernel".to_owned(),
            };
            let wrong = Wrong {
                target,
                what: format!("{member} of {} (struct {})", what(), self.name),
                expected: format!("it leads to a function of {of}"),
                seen: format!("it leads to {handler}, {objection}"),
                technique: "operation replaced",
                owner,
            };
            found.wrong.insert(table.wrapping_add(*offset), wrong);
        }
    }
}
