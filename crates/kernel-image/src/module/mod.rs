// SPDX-License-Identifier: Apache-2.0
//! A kernel module's file, and what the kernel's loader makes of it.
//!
//! [`ModuleFile`] takes a `.ko` apart: an ELF of relocatable code, perhaps compressed, perhaps with
//! a signature behind it. [`Linked`] is the same module at the addresses where a running kernel
//! has its sections: relocated as `apply_relocate_add` does it, with the tables that the loader
//! sorts in order, and with its self-patching tables decoded. What is not done here is the patching
//! itself, which is that of the kernel's own text.
//!
//! Sources: kernel/module/main.c and arch/x86/kernel/module.c, 6.1 to 7.3.

mod file;
mod layout;
mod link;
mod notes;
mod sorted;
mod unpack;

pub use file::{ModuleFile, ModuleSection, ModuleSymbol, Place};
pub use layout::{Part, Placed};
pub use link::{LinkError, Linked, LinkedSection, Surroundings};
pub use notes::build_id;
