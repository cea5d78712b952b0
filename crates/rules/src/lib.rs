// SPDX-License-Identifier: Apache-2.0
//! Rules that the kernel decides by.
//!
//! A client writes rules ([`RuleSet::from_toml`], docs/rules.md), they are compiled into one map
//! ([`compile()`]), and bpf/lib/rules.h decides by that map, on the record that is being built.
//! [`evaluate()`] says the same by going through the rules one by one: it is what the compiled form
//! and the kernel are tested against, and what [`explain()`] is made of.
//!
//! ```
//! use rules::{Context, RuleSet};
//!
//! let set = RuleSet::from_toml(
//!     r#"
//!     [[rule]]
//!     id = 1
//!     event = "process_exec"
//!     action = "deny"
//!     file.path = "/tmp"
//!     "#,
//! )?;
//! assert_eq!(set.rules[0].id, 1);
//! # Ok::<(), rules::Refused>(())
//! ```
//!
//! Bytes in, values out: nothing here does I/O.

pub mod abi;
pub mod collection;
mod compile;
mod error;
pub mod evaluate;
pub mod events;
mod explain;
mod hash;
mod index;
pub mod model;
mod names;
mod read;
pub mod record;
mod source;

pub use collection::{Algorithm, Collection};
pub use compile::{Bindings, Compiled, compile};
pub use error::{Place, Problem, Refused};
pub use evaluate::{Context, Decision, Outcome, evaluate};
pub use explain::{Explanation, Step, Verdict, explain};
pub use model::{Action, Condition, Rule, RuleSet};
pub use record::Record;
