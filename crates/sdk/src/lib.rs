// SPDX-License-Identifier: Apache-2.0
//! What a product links.

mod ring;
pub mod simulated;

pub use abi;
pub use ring::{Received, Ring, RingError, Waited};
