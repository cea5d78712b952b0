// SPDX-License-Identifier: Apache-2.0
//! Looking types and enumerators up by name.

use super::{Btf, Enumerator, Kind, TypeId, u32_at};
use crate::name_index::NameIndex;

/// The kinds in the index of names. Integers are in it for `int` and `long unsigned int`.
fn is_indexed(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Int
            | Kind::Struct
            | Kind::Union
            | Kind::Enum
            | Kind::Enum64
            | Kind::Typedef
            | Kind::Function
            | Kind::Variable
            | Kind::DataSection
    )
}

impl Btf {
    pub(super) fn build_index(&mut self) {
        let mut types = Vec::new();
        let mut enumerators = Vec::new();
        for (position, offset) in self.records.iter().enumerate() {
            let Some(record) = self.record_at(*offset as usize) else { continue };
            if record.name != 0 && is_indexed(record.kind) {
                types.push((self.name_bytes(record.name), position as u32 + 1));
            }
            let width = match record.kind {
                Kind::Enum => 8,
                Kind::Enum64 => 12,
                _ => continue,
            };
            for entry in 0..record.count as usize {
                let at = record.entries() + width * entry;
                let name = u32_at(&self.bytes, at).unwrap_or(0);
                enumerators.push((self.name_bytes(name), at as u32));
            }
        }
        let types = NameIndex::build(types.into_iter());
        let enumerators = NameIndex::build(enumerators.into_iter());
        self.by_name = types;
        self.enumerators = enumerators;
    }

    /// All types with this name, of whatever kind, in order of their numbers.
    ///
    /// Forward declarations, parameters and tags are not among them. A name may occur more than
    /// once for one kind: files of the kernel may each define a `struct entry` of their own.
    pub fn all_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Kind, TypeId)> + 'a {
        self.by_name.candidates(name.as_bytes()).filter_map(move |id| {
            let record = self.record(TypeId(id))?;
            self.name_is(record.name, name.as_bytes()).then_some((record.kind, TypeId(id)))
        })
    }

    /// The first type with this kind and name.
    pub fn find(&self, kind: Kind, name: &str) -> Option<TypeId> {
        self.all_named(name).find(|found| found.0 == kind).map(|found| found.1)
    }

    /// The first structure, else union, else enumeration, else typedef, else integer with this
    /// name. `struct `, `union ` and `enum ` before the name ask for that kind alone.
    pub fn find_type(&self, name: &str) -> Option<TypeId> {
        self.memo.type_named(name, || self.look_up_type(name))
    }

    fn look_up_type(&self, name: &str) -> Option<TypeId> {
        if let Some(name) = name.strip_prefix("struct ") {
            return self.find(Kind::Struct, name);
        }
        if let Some(name) = name.strip_prefix("union ") {
            return self.find(Kind::Union, name);
        }
        if let Some(name) = name.strip_prefix("enum ") {
            return self.find_enum(name);
        }
        self.find(Kind::Struct, name)
            .or_else(|| self.find(Kind::Union, name))
            .or_else(|| self.find_enum(name))
            .or_else(|| self.find(Kind::Typedef, name))
            .or_else(|| self.find(Kind::Int, name))
    }

    /// The first enumeration with this name, of either width.
    pub fn find_enum(&self, name: &str) -> Option<TypeId> {
        self.find(Kind::Enum, name).or_else(|| self.find(Kind::Enum64, name))
    }

    /// The first function with this name.
    pub fn find_function(&self, name: &str) -> Option<TypeId> {
        self.find(Kind::Function, name)
    }

    /// The value of an enumerator, whichever enumeration has it: `BPF_LINK_TYPE_TRACING`.
    ///
    /// Names of enumerators are global in C; where two files use one name for two values, the
    /// first in the BTF is given.
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        let is_named = |at: &u32| {
            u32_at(&self.bytes, *at as usize).is_some_and(|at| self.name_is(at, name.as_bytes()))
        };
        let at = self.enumerators.candidates(name.as_bytes()).find(is_named)?;
        // The entry lies within the last record that begins before it.
        let id = self.records.partition_point(|record| *record <= at);
        let found = self.enumerators(TypeId(id as u32)).find(|found| found.name == name);
        found.map(|Enumerator { value, .. }| value)
    }
}
