// SPDX-License-Identifier: Apache-2.0
//! The records of the security API: `api/ringfence.h` as Rust types, a decoder that trusts nothing,
//! and a builder for records of one's own.
//!
//! The header file is the contract and stays the only one. What is written here a second time, so
//! that it reads as Rust, is held to it by `tests/layout.rs`: that test has clang compile the header
//! and compares every field with the types of the object (BTF), and every constant by its name. A test of
//! the crate `probes` compares them with the objects that are loaded.
//!
//! ```
//! use abi::{Event, EventType, ProcessExec, Record, RecordBuilder};
//!
//! let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
//! builder.part.file.path = builder.path(b"/usr/bin/true");
//! let buffer = builder.finish();
//!
//! let record = Record::parse(buffer.as_bytes())?;
//! if let Event::ProcessExec(exec) = record.event() {
//!     assert_eq!(exec.path(), b"/usr/bin/true");
//! }
//! # Ok::<(), abi::RecordError>(())
//! ```
//!
//! # Why native integers
//!
//! The layout is little-endian and so is every machine that this is built for; whoever builds it for
//! another is refused below. Native integers need an aligned record, which those in a ring are: an
//! entry begins at a multiple of 8. Types without alignment would cost a call at each field that a
//! product reads.
//!
//! # How parts grow
//!
//! A Rust structure has the fields that its part had when this ABI began, so all of them are there in
//! every record that parses. Fields that come later become a structure of their own that follows the
//! first and is asked for; what follows the part in a record made by somebody newer is
//! [`View::rest`].

mod builder;
mod constants;
mod event;
mod names;
mod record;
mod structures;
mod view;

pub use builder::{RecordBuffer, RecordBuilder};
pub use constants::*;
pub use event::{Event, Part};
pub use names::{Class, Classes, EventType, Outcome};
pub use record::{Record, RecordError};
pub use structures::*;
pub use view::{Arguments, View};

#[cfg(not(target_endian = "little"))]
compile_error!("the records of Ringfence are little-endian, and read in place");
