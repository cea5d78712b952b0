// SPDX-License-Identifier: Apache-2.0
//! Two things that the kernel changes one after the other, until they agree.

use std::time::Duration;

use crate::check::Missing;

/// The kernel changes a key and then its sites, or the other way round; in between they disagree.
const PAUSE: Duration = Duration::from_millis(2);

/// How often what disagrees is read.
const READINGS: u32 = 8;

/// What still disagreed when it was read last.
pub(super) struct Settled<T> {
    pub(super) item: T,
    pub(super) readings: u32,
}

/// Asks `disagreeing` for those of the items that disagree, and then again for these after a pause,
/// until none is left or they have been read often enough.
pub(super) fn settle<T>(
    items: Vec<T>,
    mut disagreeing: impl FnMut(&[T]) -> Result<Vec<T>, Missing>,
) -> Result<Vec<Settled<T>>, Missing> {
    let mut left = disagreeing(&items)?;
    drop(items);
    let mut readings = 1;
    while !left.is_empty() && readings < READINGS {
        std::thread::sleep(PAUSE);
        left = disagreeing(&left)?;
        readings += 1;
    }
    Ok(left.into_iter().map(|item| Settled { item, readings }).collect())
}
