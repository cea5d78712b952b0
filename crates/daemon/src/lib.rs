// SPDX-License-Identifier: Apache-2.0
//! `ringfenced`: serves the security API to its clients.
//!
//! It is the control plane only. It admits clients by their grants, gives each its ring, and tells
//! the kernel side who wants what; events go from the kernel to the clients without it. What is
//! decided is decided in `broker`, what the kernel is told is told by `probes`; here sockets are
//! served, processes are identified and the two are put together.
//!
//! In reading order: [`server`] (one thread waits for everything), [`control`] (what each method
//! does), [`identity`] and [`measure`] (who is there), [`kernel`] (what is wanted of the kernel
//! side), [`varlink`] (how it is said).

pub mod cgroup;
pub mod clock;
pub mod connection;
pub mod control;
pub mod descriptors;
pub mod grants;
pub mod guard;
pub mod identity;
pub mod kept;
pub mod kernel;
pub mod lifecycle;
pub mod log;
pub mod measure;
pub mod memory;
pub mod process;
pub mod server;
pub mod sessions;
pub mod settings;
pub mod signals;
pub mod varlink;
pub mod verdicts;
