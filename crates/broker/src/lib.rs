// SPDX-License-Identifier: Apache-2.0
//! Who may ask, who is asked, and what comes of it.
//!
//! A task is about to execute a file, and waits in the kernel. Several security products want a say.
//! Each gets the same time as if it were alone, any of them can refuse, none can hold up the host,
//! and what one does badly must never be felt by another. That is decided here, in [`Broker`], as a
//! pure state machine: it is told what happened and when, and answers with a list of [`Effect`]s. It
//! has no clock, no threads and no I/O, so each order of events that can occur can be tried in a
//! test, and is (`tests/orders.rs` all orders of a few, `tests/storm.rs` random ones of many).
//!
//! In reading order: [`grant`] (what a client may do), [`session`] (what it has), [`verdict`] (the
//! words for questions and answers, and the table of what an answer gets), [`effect`] (what comes
//! out), [`broker`] (how it goes together), [`demotion`], [`cost`], [`mute`].
//!
//! # What always holds
//!
//! - **A question is settled exactly once**, and no later than the greatest deadline of those that
//!   are asked.
//! - **Any deny denies**: by answer, by an earlier answer that is cached, or by what a grant declares
//!   for the case that no answer comes. The others are not waited for.
//! - **Clients do not know of each other.** Deadlines, misses, caches, limits and costs of a client
//!   follow from its grant, its own calls and the questions that it is asked. The one thing that
//!   another can do to it is what it is there for: deny, after which a question needs no more
//!   answers, and is not put to those who have not been asked yet.
//! - **Nothing grows without a bound**: open questions by what grants allow, what is remembered of
//!   old ones and of answers that came too early by [`Settings`].
//! - **A declared failure is the only failure.** Each way of not answering leads to a choice in the
//!   grant, and is counted.
//!
//! # Rejected
//!
//! *Closing all parts of a question with the first deny.* It is simpler, and was the first design.
//! But then a client that denies fast keeps another from ever filling its cache, and hides that a
//! third does not answer at all.
//!
//! *One cache for all.* It is what the field has, and one product that refuses to let anything be
//! cached, or clears it all the time, slows all the others down.
//!
//! *Asking one after another, from the highest altitude.* As many round trips as products; see what
//! fanotify listeners cost. Altitude only says whose errno the caller gets.

pub mod broker;
mod cache;
mod client;
pub mod cost;
pub mod demotion;
pub mod effect;
pub mod event;
pub mod grant;
pub mod mute;
pub mod session;
pub mod slot;
pub mod time;
pub mod verdict;

pub use broker::{Admitted, Broker, ClientStatus, Remembered, Settings};
pub use client::Counts;
pub use effect::{Effect, Masks, Notice};
