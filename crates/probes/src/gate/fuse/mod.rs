// SPDX-License-Identifier: Apache-2.0
//! As much of the FUSE protocol as a file system with one file needs.
//!
//! By hand and not by a library, because what is wanted of it is unusual: a request is kept unanswered
//! while others are served, whoever waits is told from the header, and no code path may leave a
//! request without an answer. Layouts are those of include/uapi/linux/fuse.h, protocol 7.31, which
//! kernels from 5.4 on speak.

mod reply;
mod request;

pub(crate) use reply::{FILE, Served, answer, entry, failed, init, open, size_of_value};
pub(crate) use request::Limits;
pub use request::{FuseError, FuseOperation, FuseRequest};
