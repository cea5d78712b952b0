// SPDX-License-Identifier: Apache-2.0
//! What BTF says about one type, as values.

/// The number of a type within its BTF. 0 is `void`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

impl TypeId {
    /// `void`, which has no record.
    pub const VOID: Self = Self(0);
}

/// The kind of a type: `BTF_KIND_*` of include/uapi/linux/btf.h, values 0 to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// No type: the target of `void *`.
    Void = 0,
    /// An integer, `char` and `_Bool` included.
    Int = 1,
    /// A pointer.
    Pointer = 2,
    /// An array with a fixed count; a flexible array has count 0.
    Array = 3,
    /// A structure.
    Struct = 4,
    /// A union.
    Union = 5,
    /// An enumeration of up to 32 bits.
    Enum = 6,
    /// A structure or union that is declared but not defined.
    Forward = 7,
    /// A typedef.
    Typedef = 8,
    /// `volatile`.
    Volatile = 9,
    /// `const`.
    Const = 10,
    /// `restrict`.
    Restrict = 11,
    /// A function with a name.
    Function = 12,
    /// The signature of a function.
    Prototype = 13,
    /// A global variable; only per-CPU variables have one in kernels up to 6.18.
    Variable = 14,
    /// A section that holds variables, such as `.data..percpu`.
    DataSection = 15,
    /// A floating-point number.
    Float = 16,
    /// `__attribute__((btf_decl_tag))`.
    DeclarationTag = 17,
    /// `__attribute__((btf_type_tag))`, such as `__rcu` and `__user`.
    TypeTag = 18,
    /// An enumeration of 64 bits.
    Enum64 = 19,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Void,
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Forward,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Function,
            13 => Self::Prototype,
            14 => Self::Variable,
            15 => Self::DataSection,
            16 => Self::Float,
            17 => Self::DeclarationTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Whether the type only names or qualifies another one: typedef, const, volatile, restrict,
    /// type tag.
    pub fn is_transparent(self) -> bool {
        matches!(
            self,
            Self::Typedef | Self::Const | Self::Volatile | Self::Restrict | Self::TypeTag
        )
    }

    /// Whether it has members: a structure or a union.
    pub fn is_composite(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// Whether the third word of a record is the number of a type (`type` of `struct btf_type`, and not
    /// `size`).
    pub(super) fn refers(self) -> bool {
        matches!(
            self,
            Self::Pointer
                | Self::Typedef
                | Self::Volatile
                | Self::Const
                | Self::Restrict
                | Self::Function
                | Self::Prototype
                | Self::Variable
                | Self::DeclarationTag
                | Self::TypeTag
        )
    }

    /// What stands this many bytes behind the 12 that all records have.
    pub(super) fn word(self, at: usize) -> Word {
        match (self, at) {
            (Self::Array, 0 | 4) => Word::Type,
            (Self::Struct | Self::Union, _) => Word::of_entry(at % 12),
            (Self::Prototype, _) => Word::of_entry(at % 8),
            (Self::Enum, _) if at.is_multiple_of(8) => Word::Name,
            (Self::Enum64, _) if at.is_multiple_of(12) => Word::Name,
            (Self::DataSection, _) if at.is_multiple_of(12) => Word::Type,
            _ => Word::Other,
        }
    }

    /// Bytes of a record of this kind behind the 12 bytes that all have, with `count` entries
    /// (include/uapi/linux/btf.h: `btf_array`, `btf_member`, `btf_enum`, `btf_param`, …).
    pub(super) fn trailer(self, count: u32) -> usize {
        let count = count as usize;
        match self {
            Self::Int | Self::Variable | Self::DeclarationTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::DataSection | Self::Enum64 => 12 * count,
            Self::Enum | Self::Prototype => 8 * count,
            _ => 0,
        }
    }
}

/// What a word behind a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Where a name is among the strings.
    Name,
    /// The number of a type.
    Type,
    /// Anything else.
    Other,
}

impl Word {
    /// Of a member or a parameter.
    fn of_entry(at: usize) -> Self {
        match at {
            0 => Self::Name,
            4 => Self::Type,
            _ => Self::Other,
        }
    }
}

/// An integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// Bytes that a value takes in memory.
    pub size: u32,
    /// Bits of the value; fewer than `8 * size` only in the old way to describe bit-fields.
    pub bits: u32,
    /// Where these bits begin, counted from the first bit of the value.
    pub bit_offset: u32,
    /// Whether the value has a sign.
    pub signed: bool,
    /// Whether it is `_Bool`.
    pub boolean: bool,
}

/// An array type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// The type of the elements.
    pub element: TypeId,
    /// How many there are; 0 for a flexible array.
    pub count: u32,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name; empty for an anonymous structure or union.
    pub name: &'a str,
    /// Its type.
    pub type_id: TypeId,
    /// Where it begins, in bits from the start of the structure.
    pub bit_offset: u64,
    /// Its width in bits if it is a bit-field, 0 otherwise.
    pub bit_size: u32,
}

/// An enumerator, or a value that an enumeration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value. Unsigned 64-bit values above `i64::MAX` keep their bits.
    pub value: i64,
}

/// A parameter of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name; may be empty.
    pub name: &'a str,
    /// Its type; `void` in the last place stands for `...`.
    pub type_id: TypeId,
}

/// A variable within a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its value.
    pub type_id: TypeId,
    /// Its offset in the section, in bytes.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// A place within a structure, as a path of names leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The type of what stands there.
    pub type_id: TypeId,
    /// Where it begins, in bits from the start of the structure.
    pub bit_offset: u64,
    /// Its width in bits if it is a bit-field, 0 otherwise.
    pub bit_size: u32,
}
