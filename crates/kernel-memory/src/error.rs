// SPDX-License-Identifier: Apache-2.0
//! Why a question about a structure in kernel memory has no answer.

use crate::ReadError;

/// Why a symbol, a field or a list of the kernel could not be read.
///
/// The text of each is made for people: it names the type, the field and the address.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum AccessError {
    /// The symbol table does not have it. Without CONFIG_KALLSYMS_ALL it has no data symbols.
    #[error("the kernel's symbol table has no {0}")]
    NoSymbol(String),
    /// The kernel's BTF does not have the type: another version, or another configuration.
    #[error("the kernel's BTF has no type {0}")]
    NoType(String),
    /// No enumeration in the kernel's BTF has the name.
    #[error("the kernel's BTF has no enumerator {0}")]
    NoEnumerator(String),
    /// The type has no such member.
    #[error("{type_name} has no field {field} in this kernel's BTF")]
    NoField {
        /// The type, as C names it.
        type_name: String,
        /// The field, as it was asked for.
        field: String,
    },
    /// The field is of another kind than what was asked for.
    #[error("{type_name}{} at {address:#x} is not {wanted}", dotted(field))]
    NotA {
        /// The type that the path began in.
        type_name: String,
        /// The field; empty for the object itself.
        field: String,
        /// Where it is.
        address: u64,
        /// What it had to be: `an integer`, `a pointer`…
        wanted: &'static str,
    },
    /// A value is too large for the type in which it was asked for.
    #[error(
        "{type_name}{} at {address:#x} is {value:#x}, which does not fit {bits} bits",
        dotted(field)
    )]
    TooLarge {
        /// The type that the path began in.
        type_name: String,
        /// The field; empty for the object itself.
        field: String,
        /// Where it is.
        address: u64,
        /// What stands there.
        value: u64,
        /// The bits asked for.
        bits: u32,
    },
    /// A null pointer on the way along a path with `->`.
    #[error("{type_name}{} at {address:#x} is a null pointer", dotted(field))]
    Null {
        /// The type that the path began in.
        type_name: String,
        /// The pointer.
        field: String,
        /// Where it is.
        address: u64,
    },
    /// Memory could not be read.
    #[error("cannot read {what} at {address:#x}: {cause}")]
    Unreadable {
        /// Type and field.
        what: String,
        /// Where it is.
        address: u64,
        /// What the source of memory said.
        cause: ReadError,
    },
    /// A list or tree does not end, or its nodes contradict each other. On a running kernel this
    /// also happens when it changes during the walk: ask again before drawing conclusions.
    #[error("{what} at {start:#x} is inconsistent at {at:#x}: {reason}")]
    Inconsistent {
        /// Which list or tree.
        what: String,
        /// Its head or root.
        start: u64,
        /// The node where the walk ended.
        at: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn dotted(field: &str) -> String {
    match field {
        "" => String::new(),
        field => format!(".{field}"),
    }
}
