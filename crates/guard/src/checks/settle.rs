// SPDX-License-Identifier: Apache-2.0
//! Two things that the kernel changes one after the other, until they agree.

use std::time::{Duration, Instant};

use crate::check::Missing;
use crate::patience::{Change, IN_VAIN, Waiting};

/// The kernel changes a key and then its sites, or the other way round; in between they disagree.
const PAUSE: Duration = Duration::from_millis(2);

/// How often what disagrees is read.
const READINGS: u32 = 8;

/// What still disagreed when it was read last.
pub(super) struct Settled<T> {
    pub(super) item: T,
    pub(super) readings: u32,
}

/// Those that disagreed to the end.
pub(super) struct Disagreed<T> {
    pub(super) settled: Vec<Settled<T>>,
    /// Those that the kernel is just changing.
    pub(super) left: Vec<T>,
}

/// Asks `disagreeing` for those of the items that disagree, and then again for these after a pause,
/// until none is left or they have been read often enough. What was read while the kernel was
/// changing them does not count: they are left as they are, or, if the look `waits`, read for some time.
pub(super) fn settle<T>(
    items: Vec<T>,
    change: impl Fn() -> Change,
    waits: bool,
    mut disagreeing: impl FnMut(&[T]) -> Result<Vec<T>, Missing>,
) -> Result<Disagreed<T>, Missing> {
    let mut waiting = Waiting::new(Instant::now());
    let mut left = items;
    let (mut readings, mut in_vain, mut first) = (0, 0, true);
    while !left.is_empty() && readings < READINGS {
        if !std::mem::take(&mut first) {
            std::thread::sleep(PAUSE);
        }
        let change = change();
        let counts = change == Change::None || waiting.is_over(Instant::now(), left.len(), change);
        left = disagreeing(&left)?;
        readings += u32::from(counts);
        in_vain += u32::from(!counts);
        if !waits && in_vain >= IN_VAIN {
            return Ok(Disagreed { settled: Vec::new(), left });
        }
    }
    let settled = left.into_iter().map(|item| Settled { item, readings }).collect();
    Ok(Disagreed { settled, left: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_read_while_the_kernel_changes_it_does_not_count() {
        let asked = Cell::new(0);
        let count = |after: u32, waits: bool| {
            asked.set(0);
            let change = || if asked.get() < 20 { Change::Own } else { Change::None };
            let disagreed = settle(vec![()], change, waits, |open| {
                asked.set(asked.get() + 1);
                Ok(if asked.get() > after { Vec::new() } else { open.to_vec() })
            });
            disagreed.map(|all| (all.settled.len(), all.left.len())).unwrap()
        };
        assert_eq!(count(25, true), (0, 0), "they agree after all");
        assert_eq!(count(100, true), (1, 0));
        assert_eq!(asked.get(), 20 + READINGS);
        assert_eq!(count(1, false), (0, 0));
        assert_eq!(count(100, false), (0, 1), "the next look will tell");
        assert_eq!(asked.get(), IN_VAIN);
    }
}
