// SPDX-License-Identifier: Apache-2.0
//! Writing BTF: types out of a kernel's, or made by hand for tests of what reads them.

use std::collections::HashMap;

use super::{MAGIC, TypeId};

/// Collects types and writes them as BTF.
///
/// ```
/// use kernel_image::btf::{Btf, Builder};
///
/// let mut types = Builder::new();
/// let next = types.next_id();
/// let int = types.int("int", 4, true);
/// // A type may refer to one that comes later, as `struct node *next` does here.
/// let pointer = types.pointer(kernel_image::btf::TypeId(next.0 + 2));
/// types.structure("node", 16, &[("next", pointer, 0), ("value", int, 64)]);
/// let types = Btf::parse(&types.finish()).unwrap();
/// assert_eq!(types.offset_of("node", "value"), Some(8));
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    names: HashMap<String, u32>,
    count: u32,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// No types yet.
    pub fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], names: HashMap::new(), count: 0 }
    }

    /// The number that the next type gets.
    pub fn next_id(&self) -> TypeId {
        TypeId(self.count + 1)
    }

    fn word(&mut self, word: u32) {
        self.types.extend_from_slice(&word.to_le_bytes());
    }

    /// Where a name is among the strings, for [`Builder::words`]; nothing is at 0. One that is there
    /// already is not put there again.
    pub fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        if let Some(offset) = self.names.get(name) {
            return *offset;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        self.names.insert(name.to_owned(), offset);
        offset
    }

    /// The first 12 bytes of a record, for kinds that the functions below do not have.
    pub fn record(
        &mut self,
        name: &str,
        kind: u32,
        count: usize,
        flag: bool,
        value: u32,
    ) -> TypeId {
        let id = self.next_id();
        self.count += 1;
        let name = self.name(name);
        self.word(name);
        self.word((u32::from(flag) << 31) | (kind << 24) | count as u32);
        self.word(value);
        id
    }

    /// An integer of `size` bytes.
    pub fn int(&mut self, name: &str, size: u32, signed: bool) -> TypeId {
        let id = self.record(name, 1, 0, false, size);
        self.word((u32::from(signed) << 24) | (8 * size));
        id
    }

    /// A pointer to a type; to `void` for type 0.
    pub fn pointer(&mut self, target: TypeId) -> TypeId {
        self.record("", 2, 0, false, target.0)
    }

    /// An array, indexed by the first type.
    pub fn array(&mut self, element: TypeId, count: u32) -> TypeId {
        let id = self.record("", 3, 0, false, 0);
        for word in [element.0, 1, count] {
            self.word(word);
        }
        id
    }

    fn composite(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        members: &[(&str, TypeId, u32)],
        flag: bool,
    ) -> TypeId {
        let id = self.record(name, kind, members.len(), flag, size);
        for (name, type_id, offset) in members {
            let name = self.name(name);
            for word in [name, type_id.0, *offset] {
                self.word(word);
            }
        }
        id
    }

    /// A structure of `size` bytes with members as (name, type, offset in bits).
    pub fn structure(&mut self, name: &str, size: u32, members: &[(&str, TypeId, u32)]) -> TypeId {
        self.composite(4, name, size, members, false)
    }

    /// A structure with bit-fields: members are (name, type, offset in bits, width in bits or 0).
    pub fn bit_structure(
        &mut self,
        name: &str,
        size: u32,
        members: &[(&str, TypeId, u32, u32)],
    ) -> TypeId {
        let members: Vec<(&str, TypeId, u32)> = members
            .iter()
            .map(|(name, type_id, offset, width)| (*name, *type_id, offset | (width << 24)))
            .collect();
        self.composite(4, name, size, &members, true)
    }

    /// A union of `size` bytes with members as (name, type).
    pub fn union(&mut self, name: &str, size: u32, members: &[(&str, TypeId)]) -> TypeId {
        let members: Vec<(&str, TypeId, u32)> =
            members.iter().map(|(name, type_id)| (*name, *type_id, 0)).collect();
        self.composite(5, name, size, &members, false)
    }

    /// An enumeration of 32 bits with a sign.
    pub fn enumeration(&mut self, name: &str, values: &[(&str, i32)]) -> TypeId {
        let id = self.record(name, 6, values.len(), true, 4);
        for (name, value) in values {
            let name = self.name(name);
            self.word(name);
            self.word(*value as u32);
        }
        id
    }

    /// An enumeration of 64 bits.
    pub fn enumeration_64(&mut self, name: &str, values: &[(&str, u64)]) -> TypeId {
        let id = self.record(name, 19, values.len(), false, 8);
        for (name, value) in values {
            let name = self.name(name);
            for word in [name, *value as u32, (*value >> 32) as u32] {
                self.word(word);
            }
        }
        id
    }

    /// A typedef.
    pub fn typedef(&mut self, name: &str, target: TypeId) -> TypeId {
        self.record(name, 8, 0, false, target.0)
    }

    /// `const`.
    pub fn constant(&mut self, target: TypeId) -> TypeId {
        self.record("", 10, 0, false, target.0)
    }

    /// A function with its signature; the function's number is returned.
    pub fn function(
        &mut self,
        name: &str,
        result: TypeId,
        parameters: &[(&str, TypeId)],
    ) -> TypeId {
        let prototype = self.record("", 13, parameters.len(), false, result.0);
        for (name, type_id) in parameters {
            let name = self.name(name);
            self.word(name);
            self.word(type_id.0);
        }
        self.record(name, 12, 1, false, prototype.0)
    }

    /// A section with its variables as (name, type, offset, size); the section's number is
    /// returned.
    pub fn section(&mut self, name: &str, variables: &[(&str, TypeId, u32, u32)]) -> TypeId {
        let mut entries = Vec::new();
        for (name, type_id, offset, size) in variables {
            let variable = self.record(name, 14, 0, false, type_id.0);
            self.word(1);
            entries.extend([variable.0, *offset, *size]);
        }
        let id = self.record(name, 15, variables.len(), false, 0);
        for word in entries {
            self.word(word);
        }
        id
    }

    /// Further words of the last record, for kinds that the functions above do not have.
    pub fn words(&mut self, words: &[u32]) {
        for word in words {
            self.word(*word);
        }
    }

    /// The BTF: header, types, strings.
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&[1, 0]);
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.types);
        bytes.extend_from_slice(&self.strings);
        bytes
    }
}
