// SPDX-License-Identifier: Apache-2.0
//! A kernel: memory, symbols and types together.

use kernel_image::Symbols;
use kernel_image::btf::{Btf, TypeId};

use crate::{AccessError, KernelMemory, Object};

/// A kernel that can be asked for objects by name and type.
///
/// ```no_run
/// # fn names(kernel: kernel_memory::Kernel<'_>) -> Result<(), kernel_memory::AccessError> {
/// let init = kernel.object("task_struct", kernel.symbol("init_task")?)?;
/// for task in kernel.list(init.field("tasks")?.address(), "task_struct", "tasks") {
///     let task = task?;
///     println!("{} {}", task.u32("tgid")?, task.string("comm")?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// Where bytes come from.
    pub memory: &'a dyn KernelMemory,
    /// Addresses of names, as running.
    pub symbols: &'a Symbols,
    /// Layouts of types.
    pub types: &'a Btf,
}

impl std::fmt::Debug for Kernel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("memory", &self.memory.name())
            .field("symbols", &self.symbols.len())
            .field("types", &self.types.len())
            .finish()
    }
}

impl<'a> Kernel<'a> {
    /// The address of a symbol; of several with one name, the lowest.
    pub fn symbol(&self, name: &str) -> Result<u64, AccessError> {
        self.symbols.address_of(name).ok_or_else(|| AccessError::NoSymbol(name.to_owned()))
    }

    /// A type by name: a structure, else a union, enumeration, typedef or integer. `struct x`,
    /// `union x` and `enum x` ask for that kind alone.
    pub fn type_named(&self, name: &str) -> Result<TypeId, AccessError> {
        self.types.find_type(name).ok_or_else(|| AccessError::NoType(name.to_owned()))
    }

    /// The object of this type at this address. Nothing is read yet.
    pub fn object(&self, type_name: &str, address: u64) -> Result<Object<'a>, AccessError> {
        Ok(self.object_of(self.type_named(type_name)?, address))
    }

    /// The object of this type at this address, by the number of the type.
    pub fn object_of(&self, type_id: TypeId, address: u64) -> Object<'a> {
        Object::new(*self, type_id, address)
    }

    /// The value of an enumerator, such as `BPF_LINK_TYPE_TRACING`.
    pub fn enumerator(&self, name: &str) -> Result<i64, AccessError> {
        self.types.enumerator(name).ok_or_else(|| AccessError::NoEnumerator(name.to_owned()))
    }

    /// The offset of a member within a type, in bytes.
    pub fn offset_of(&self, type_name: &str, member: &str) -> Result<u64, AccessError> {
        self.object(type_name, 0)?.offset_of(member)
    }

    /// The size of a type in bytes.
    pub fn size_of(&self, type_name: &str) -> Result<u64, AccessError> {
        self.object(type_name, 0)?.size()
    }

    /// Fills `buffer` from `address`; `what` names it in the error.
    pub fn read_into(
        &self,
        what: &str,
        address: u64,
        buffer: &mut [u8],
    ) -> Result<(), AccessError> {
        self.memory.read(address, buffer).map_err(|cause| AccessError::Unreadable {
            what: what.to_owned(),
            address,
            cause,
        })
    }

    /// `length` bytes from `address`.
    pub fn bytes_at(&self, address: u64, length: usize) -> Result<Vec<u8>, AccessError> {
        let mut bytes = vec![0; length];
        self.read_into("bytes", address, &mut bytes)?;
        Ok(bytes)
    }

    fn array_at<const N: usize>(&self, what: &str, address: u64) -> Result<[u8; N], AccessError> {
        let mut bytes = [0; N];
        self.read_into(what, address, &mut bytes)?;
        Ok(bytes)
    }

    /// The byte at `address`.
    pub fn u8_at(&self, address: u64) -> Result<u8, AccessError> {
        Ok(u8::from_le_bytes(self.array_at("a byte", address)?))
    }

    /// Two bytes at `address`.
    pub fn u16_at(&self, address: u64) -> Result<u16, AccessError> {
        Ok(u16::from_le_bytes(self.array_at("two bytes", address)?))
    }

    /// Four bytes at `address`.
    pub fn u32_at(&self, address: u64) -> Result<u32, AccessError> {
        Ok(u32::from_le_bytes(self.array_at("four bytes", address)?))
    }

    /// Eight bytes at `address`.
    pub fn u64_at(&self, address: u64) -> Result<u64, AccessError> {
        Ok(u64::from_le_bytes(self.array_at("eight bytes", address)?))
    }

    /// The string at `address`, up to its NUL and at most `limit` bytes; bytes that are not UTF-8
    /// are replaced. Nothing beyond the page in which it ends is read.
    pub fn string_at(&self, address: u64, limit: usize) -> Result<String, AccessError> {
        self.string_named("a string", address, limit)
    }

    /// As [`Kernel::string_at`]; `what` names it in the error.
    pub(crate) fn string_named(
        &self,
        what: &str,
        address: u64,
        limit: usize,
    ) -> Result<String, AccessError> {
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < limit {
            // Most strings are short, and a chunk must not reach into the next page.
            let in_page = (crate::PAGE_SIZE - at % crate::PAGE_SIZE) as usize;
            let mut chunk = [0; 64];
            let length = chunk.len().min(in_page).min(limit - text.len());
            let chunk = chunk.get_mut(..length).unwrap_or_default();
            self.read_into(what, at, chunk)?;
            match chunk.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(chunk.get(..end).unwrap_or_default());
                    break;
                }
                None => text.extend_from_slice(chunk),
            }
            at = at.wrapping_add(length as u64);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The address of a per-CPU variable on one CPU, from its address or offset as the symbol table
    /// has it: `__per_cpu_offset[cpu]` is added (include/asm-generic/percpu.h), which holds for
    /// zero-based per-CPU sections (x86-64 up to 6.14) and for linear ones (6.15 and later).
    pub fn per_cpu(&self, variable: u64, cpu: u32) -> Result<u64, AccessError> {
        let offsets = self.symbol("__per_cpu_offset")?;
        let offset = self.u64_at(offsets.wrapping_add(8 * u64::from(cpu)))?;
        Ok(variable.wrapping_add(offset))
    }
}
