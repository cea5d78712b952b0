// SPDX-License-Identifier: Apache-2.0
//! What a product links: its session with Ringfence, its events, its verdicts.
//!
//! ```no_run
//! use sdk::abi::{Class, Event, EventType};
//! use sdk::{Session, Subscription};
//!
//! let mut session = Session::open("com.example.sensor")?;
//! session.subscribe(&[Subscription::new(EventType::ProcessExec, [Class::Notify])])?;
//! let mut events = session.events();
//! while let Some(event) = events.next(None)? {
//!     if let Event::ProcessExec(exec) = event.record.event() {
//!         println!("{}", String::from_utf8_lossy(exec.path()));
//!     }
//! }
//! # Ok::<(), sdk::SessionError>(())
//! ```
//!
//! Events come straight from the kernel through a [`Ring`] that this process maps; the daemon takes no
//! part in it. A record is looked at where it lies. A task that waits for a verdict waits until
//! [`Delivered::answer`] or its deadline, so answer before doing anything else.
//!
//! No thread is started and no runtime is needed. [`Ring`] and [`Verdicts`] have descriptors to be polled
//! by whoever has one.
//!
//! [`simulated`] fills a ring without root, to try a product with.

mod ring;
mod session;
pub mod simulated;

pub use abi;
pub use ring::{Received, Ring, RingError, Waited};
pub use session::*;
