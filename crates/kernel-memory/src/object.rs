// SPDX-License-Identifier: Apache-2.0
//! An object in kernel memory: an address with a type.

use kernel_image::btf::{Kind, Place, TypeId};

use crate::{AccessError, Kernel};

/// The longest string that is followed through a `char *`. The kernel's names are shorter: 512 for
/// a symbol (`KSYM_NAME_LEN`), 4096 for a path (`PATH_MAX`).
const STRING_LIMIT: usize = 4096;

/// The largest object that is read at once. The largest structures of Linux 6.18 have some hundred
/// kilobytes.
const OBJECT_LIMIT: u64 = 16 << 20;

/// Structures around one value are looked through to this depth: `refcount_t` has two.
const WRAPPER_DEPTH: u32 = 8;

/// An object in kernel memory: an address with a type. Copying it copies no memory; each question
/// reads anew.
///
/// Fields are named by paths as in C: `a.b[3].c` within the object, `mm->pgd` through a pointer.
/// Members of anonymous structures and unions are found as in C.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    kernel: Kernel<'a>,
    type_id: TypeId,
    address: u64,
    /// For a bit-field: the first bit within the byte at `address`, and the width.
    bits: Option<(u32, u32)>,
}

impl std::fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:#x}", self.type_name(), self.address)
    }
}

impl PartialEq for Object<'_> {
    /// Whether both stand at the same address with the same type.
    fn eq(&self, other: &Self) -> bool {
        (self.address, self.type_id, self.bits) == (other.address, other.type_id, other.bits)
    }
}

impl<'a> Object<'a> {
    pub(crate) fn new(kernel: Kernel<'a>, type_id: TypeId, address: u64) -> Self {
        Self { kernel, type_id, address, bits: None }
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The kernel that it belongs to.
    pub fn kernel(&self) -> Kernel<'a> {
        self.kernel
    }

    /// Its type in the kernel's BTF.
    pub fn type_id(&self) -> TypeId {
        self.type_id
    }

    /// Its type as C names it, such as `struct task_struct`.
    pub fn type_name(&self) -> String {
        self.kernel.types.describe(self.type_id)
    }

    /// Its size in bytes.
    pub fn size(&self) -> Result<u64, AccessError> {
        let size = self.kernel.types.size(self.type_id);
        size.ok_or_else(|| self.not_a("", "of a known size"))
    }

    /// The same address with another type.
    pub fn cast(&self, type_name: &str) -> Result<Object<'a>, AccessError> {
        self.kernel.object(type_name, self.address)
    }

    /// The object of type `type_name` whose `member` this is.
    pub fn container_of(&self, type_name: &str, member: &str) -> Result<Object<'a>, AccessError> {
        let offset = self.kernel.offset_of(type_name, member)?;
        self.kernel.object(type_name, self.address.wrapping_sub(offset))
    }

    fn not_a(&self, field: &str, wanted: &'static str) -> AccessError {
        AccessError::NotA {
            type_name: self.type_name(),
            field: field.to_owned(),
            address: self.address,
            wanted,
        }
    }

    /// The object's field in words, for errors: `struct task_struct.comm`.
    fn label(&self, path: &str) -> String {
        match path {
            "" => self.type_name(),
            path => format!("{}.{path}", self.type_name()),
        }
    }

    fn no_field(&self, field: &str) -> AccessError {
        AccessError::NoField { type_name: self.type_name(), field: field.to_owned() }
    }

    fn place(&self, path: &str) -> Result<Place, AccessError> {
        self.kernel.types.place(self.type_id, path).ok_or_else(|| self.no_field(path))
    }

    fn at(&self, place: Place) -> Object<'a> {
        let bit = (place.bit_offset % 8) as u32;
        let bits = (place.bit_size != 0).then_some((bit, place.bit_size));
        let address = self.address.wrapping_add(place.bit_offset / 8);
        Object { kernel: self.kernel, type_id: place.type_id, address, bits }
    }

    /// Whether this kernel's type has such a field. Paths through pointers are not asked for here.
    pub fn has(&self, path: &str) -> bool {
        self.kernel.types.place(self.type_id, path).is_some()
    }

    /// The offset of a field in bytes.
    pub fn offset_of(&self, path: &str) -> Result<u64, AccessError> {
        Ok(self.place(path)?.bit_offset / 8)
    }

    /// The offset of a field of `length` bytes, all of which lie within the type: for readers of
    /// whole objects.
    pub(crate) fn offset_within(&self, path: &str, length: u64) -> Result<usize, AccessError> {
        let offset = self.offset_of(path)?;
        match offset.checked_add(length).filter(|end| *end <= self.size().unwrap_or(0)) {
            Some(_) => Ok(offset as usize),
            None => Err(self.not_a(path, "within its type")),
        }
    }

    /// A field as an object. Memory is read only where the path has `->`.
    pub fn field(&self, path: &str) -> Result<Object<'a>, AccessError> {
        let mut object = *self;
        let mut rest = path;
        while let Some((before, after)) = rest.split_once("->") {
            let target = object.pointer(before)?;
            object = target.ok_or_else(|| AccessError::Null {
                type_name: object.type_name(),
                field: before.to_owned(),
                address: object.address,
            })?;
            rest = after;
        }
        match rest {
            "" => Ok(object),
            rest => Ok(object.at(object.place(rest)?)),
        }
    }

    /// What a field points to, with the type that the kernel declares; `None` for a null pointer.
    /// An empty path stands for the object itself.
    pub fn pointer(&self, path: &str) -> Result<Option<Object<'a>>, AccessError> {
        let field = self.field(path)?;
        let target = self.kernel.types.pointee(field.type_id);
        let target = target.ok_or_else(|| self.not_a(path, "a pointer"))?;
        let address = field.raw(self, path)?.0;
        Ok((address != 0).then(|| Object::new(self.kernel, target, address)))
    }

    /// How many elements a field has that is an array; 0 for a flexible array.
    pub fn count(&self, path: &str) -> Result<u32, AccessError> {
        let field = self.field(path)?;
        let array = self.kernel.types.array(field.type_id);
        Ok(array.ok_or_else(|| self.not_a(path, "an array"))?.count)
    }

    /// One element of a field that is an array. The index is not compared with the declared count,
    /// because arrays at the end of structures are longer than declared.
    pub fn element(&self, path: &str, index: u64) -> Result<Object<'a>, AccessError> {
        let field = self.field(path)?;
        let types = self.kernel.types;
        let array = types.array(field.type_id).ok_or_else(|| self.not_a(path, "an array"))?;
        let size = types
            .size(array.element)
            .ok_or_else(|| self.not_a(path, "an array of elements with a size"))?;
        let address = field.address.wrapping_add(size.wrapping_mul(index));
        Ok(Object::new(self.kernel, array.element, address))
    }

    /// Looks through structures that hold nothing but one value: `atomic_t`, `refcount_t`,
    /// `kuid_t`, `pgd_t`.
    fn unwrapped(&self) -> Object<'a> {
        let mut object = *self;
        for _ in 0..WRAPPER_DEPTH {
            let mut members = self.kernel.types.members(object.type_id);
            let (Some(member), None) = (members.next(), members.next()) else { break };
            if member.bit_offset != 0 || member.bit_size != 0 {
                break;
            }
            object.type_id = member.type_id;
        }
        object
    }

    /// The value, zero-extended, its width in bits and whether it has a sign. `origin` and `path`
    /// name it in errors.
    fn raw(&self, origin: &Object<'_>, path: &str) -> Result<(u64, u32, bool), AccessError> {
        let types = self.kernel.types;
        let object = self.unwrapped();
        let kind = types.resolved_kind(object.type_id);
        let size = match kind {
            Some(Kind::Int | Kind::Enum | Kind::Enum64 | Kind::Pointer) => {
                types.size(object.type_id).filter(|size| (1..=8).contains(size))
            }
            _ => None,
        };
        let size = size.ok_or_else(|| AccessError::NotA {
            type_name: origin.type_name(),
            field: path.to_owned(),
            address: self.address,
            wanted: "an integer of at most 64 bits",
        })?;
        let (first, width) = match (object.bits, types.int(object.type_id)) {
            (Some(bits), _) => bits,
            // The old way to describe bit-fields, without kind_flag.
            (None, Some(int)) if u64::from(int.bits) < 8 * size && !int.boolean => {
                (int.bit_offset, int.bits)
            }
            (None, _) => (0, 8 * size as u32),
        };
        let width = width.min(64);
        let length = (first + width).div_ceil(8) as usize;
        let mut bytes = [0; 16];
        let part = bytes.get_mut(..length).unwrap_or_default();
        self.kernel.memory.read(self.address, part).map_err(|cause| AccessError::Unreadable {
            what: origin.label(path),
            address: self.address,
            cause,
        })?;
        let value = (u128::from_le_bytes(bytes) >> first) as u64;
        let value = if width < 64 { value & ((1 << width) - 1) } else { value };
        Ok((value, width, types.is_signed(object.type_id)))
    }

    /// An integer, enumeration, pointer or bit-field of any width, zero-extended. A structure
    /// around one such value (`atomic_t`, `kuid_t`) counts as the value. An empty path stands for
    /// the object itself.
    pub fn u64(&self, path: &str) -> Result<u64, AccessError> {
        Ok(self.field(path)?.raw(self, path)?.0)
    }

    /// As [`Object::u64`], sign-extended where the type has a sign.
    pub fn i64(&self, path: &str) -> Result<i64, AccessError> {
        let (value, width, signed) = self.field(path)?.raw(self, path)?;
        let unused = 64 - width.clamp(1, 64);
        Ok(if signed { ((value << unused) as i64) >> unused } else { value as i64 })
    }

    fn narrow(&self, path: &str, bits: u32) -> Result<u64, AccessError> {
        let field = self.field(path)?;
        let value = field.raw(self, path)?.0;
        if value >> bits == 0 {
            return Ok(value);
        }
        Err(AccessError::TooLarge {
            type_name: self.type_name(),
            field: path.to_owned(),
            address: field.address,
            value,
            bits,
        })
    }

    /// As [`Object::u64`], for values that fit 32 bits.
    pub fn u32(&self, path: &str) -> Result<u32, AccessError> {
        Ok(self.narrow(path, 32)? as u32)
    }

    /// As [`Object::u64`], for values that fit 16 bits.
    pub fn u16(&self, path: &str) -> Result<u16, AccessError> {
        Ok(self.narrow(path, 16)? as u16)
    }

    /// As [`Object::u64`], for values that fit 8 bits.
    pub fn u8(&self, path: &str) -> Result<u8, AccessError> {
        Ok(self.narrow(path, 8)? as u8)
    }

    /// Whether an integer is not zero.
    pub fn bool(&self, path: &str) -> Result<bool, AccessError> {
        Ok(self.u64(path)? != 0)
    }

    /// The bytes of a field, as many as its type has.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, AccessError> {
        let field = self.field(path)?;
        let size = field.size()?;
        if size > OBJECT_LIMIT {
            return Err(self.not_a(path, "of at most 16 MiB"));
        }
        let mut bytes = vec![0; size as usize];
        self.kernel.memory.read(field.address, &mut bytes).map_err(|cause| {
            AccessError::Unreadable { what: self.label(path), address: field.address, cause }
        })?;
        Ok(bytes)
    }

    /// A string: of an array of characters up to its NUL, or what a `char *` points to, which is
    /// empty for a null pointer. Bytes that are not UTF-8 are replaced.
    pub fn string(&self, path: &str) -> Result<String, AccessError> {
        let field = self.field(path)?;
        let types = self.kernel.types;
        let is_character = |id| types.size(id) == Some(1) && types.int(id).is_some();
        let from = match (types.array(field.type_id), types.pointee(field.type_id)) {
            (Some(array), _) if is_character(array.element) && array.count > 0 => {
                let mut bytes = self.bytes(path)?;
                let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                bytes.truncate(length);
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            (Some(array), _) if is_character(array.element) => field.address,
            (_, Some(target)) if is_character(target) => match self.pointer(path)? {
                Some(target) => target.address,
                None => return Ok(String::new()),
            },
            _ => return Err(self.not_a(path, "a string")),
        };
        self.kernel.string_named(&self.label(path), from, STRING_LIMIT)
    }
}
