// SPDX-License-Identifier: Apache-2.0
//! Two things that the kernel changes one after the other, until they agree.

use std::time::{Duration, Instant};

use crate::check::Missing;
use crate::confirm::UPDATE;

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
/// until none is left or they have been read often enough. What was read while the kernel was `busy`
/// with changing them does not count, for some time.
pub(super) fn settle<T>(
    items: Vec<T>,
    busy: impl Fn() -> bool,
    mut disagreeing: impl FnMut(&[T]) -> Result<Vec<T>, Missing>,
) -> Result<Vec<Settled<T>>, Missing> {
    let began = Instant::now();
    let mut left = items;
    let (mut readings, mut first) = (0, true);
    while !left.is_empty() && readings < READINGS {
        if !std::mem::take(&mut first) {
            std::thread::sleep(PAUSE);
        }
        let counts = !busy() || began.elapsed() > UPDATE;
        left = disagreeing(&left)?;
        readings += u32::from(counts);
    }
    Ok(left.into_iter().map(|item| Settled { item, readings }).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_read_while_the_kernel_changes_it_does_not_count() {
        let asked = Cell::new(0);
        let count = |after: u32| {
            asked.set(0);
            let busy = || asked.get() < 20;
            let left = settle(vec![()], busy, |open| {
                asked.set(asked.get() + 1);
                Ok(if asked.get() > after { Vec::new() } else { open.to_vec() })
            });
            left.unwrap().len()
        };
        assert_eq!(count(25), 0, "they agree after all");
        assert_eq!(count(100), 1);
        assert_eq!(asked.get(), 20 + READINGS);
    }
}
