// SPDX-License-Identifier: Apache-2.0
//! Varlink, as far as a service needs it: messages are JSON objects that end with a zero byte, calls
//! are answered in their order, descriptors go along with a reply. See <https://varlink.org>.
//!
//! It is synchronous on purpose. The daemon has one thread, clients that may be hostile, and nothing
//! to wait for but its sockets; so a message is bytes in ([`Incoming`]), a [`Call`], an answer and
//! bytes out ([`Outgoing`]), each bounded, and whoever owns the sockets decides when.

mod buffers;
mod message;
mod service;

pub use buffers::{Incoming, Outgoing, TooLong};
pub use message::{Call, Malformed, error, reply};
pub use service::{Interface, SERVICE, ServiceError, ServiceInfo};
