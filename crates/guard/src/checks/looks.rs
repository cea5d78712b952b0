// SPDX-License-Identifier: Apache-2.0
//! Telling a lasting difference from a race.
//!
//! Tasks and BPF objects come and go while two views of them are compared. A difference counts only
//! if each of several looks shows it, with pauses between them: what comes or goes during one look
//! has come or gone by the next, and what takes its number is told apart by its key.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::check::Missing;

/// How often a difference must be seen.
pub const LOOKS: u32 = 4;

/// How often a walk over something that changes meanwhile is tried.
const ATTEMPTS: u32 = 8;

/// Walks until a walk comes to its end.
///
/// Memory is read while the kernel works on it: a tree or list that is changed in the middle of a
/// walk may lead nowhere, which says nothing about it. What fails each time is an error.
pub fn settled<T, E>(mut walk: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut outcome = walk();
    for _ in 1..ATTEMPTS {
        if outcome.is_ok() {
            break;
        }
        outcome = walk();
    }
    outcome
}

/// What differs in each of [`LOOKS`] looks.
///
/// `look` compares the views once and gives the keys that differ. It is called again, after
/// `pause`, only while something remains that differed each time, so a quiet system costs one look.
pub fn lasting<K: Ord>(
    pause: Duration,
    mut look: impl FnMut() -> Result<BTreeSet<K>, Missing>,
) -> Result<BTreeSet<K>, Missing> {
    let mut lasting = look()?;
    for _ in 1..LOOKS {
        if lasting.is_empty() {
            break;
        }
        std::thread::sleep(pause);
        let again = look()?;
        lasting.retain(|key| again.contains(key));
    }
    Ok(lasting)
}

/// What is left of `differing` after `within` at the most, looked at again and again while something of it
/// is `doubtful`: such a difference is legitimate for as long as the kernel waits for all processors.
pub fn outlasting<K: Ord>(
    mut differing: BTreeSet<K>,
    within: Duration,
    doubtful: impl Fn(&K) -> bool,
    mut look: impl FnMut() -> Result<BTreeSet<K>, Missing>,
) -> Result<BTreeSet<K>, Missing> {
    const LOOKS: u32 = 20;
    let began = Instant::now();
    while differing.iter().any(&doubtful) && began.elapsed() < within {
        std::thread::sleep(within / LOOKS);
        let again = look()?;
        differing.retain(|key| again.contains(key));
    }
    Ok(differing)
}

/// What memory holds before and after another view was taken, and that view does not show.
///
/// What came or went while the view was taken is in only one of the two and cannot be missed.
pub fn missing_from<K: Ord + Clone>(
    before: &BTreeSet<K>,
    view: impl Fn(&K) -> bool,
    after: &BTreeSet<K>,
) -> BTreeSet<K> {
    before.intersection(after).filter(|key| !view(key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_once_is_a_race() {
        let mut rounds = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2]), BTreeSet::from([4])];
        rounds.reverse();
        let found = lasting(Duration::ZERO, || Ok(rounds.pop().unwrap_or_default())).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn what_differs_in_each_look_lasts() {
        let mut looks = 0;
        let found = lasting(Duration::ZERO, || {
            looks += 1;
            Ok(BTreeSet::from([7, 100 + looks]))
        });
        assert_eq!((found.unwrap(), looks), (BTreeSet::from([7]), LOOKS));
    }

    #[test]
    fn what_is_doubtful_is_given_time_and_what_is_not_is_not() {
        let within = Duration::from_millis(40);
        let mut looks = 0;
        let left = outlasting(
            BTreeSet::from([1, 2]),
            within,
            |key| *key == 1,
            || {
                looks += 1;
                Ok(if looks < 3 { BTreeSet::from([1, 2]) } else { BTreeSet::from([2]) })
            },
        );
        assert_eq!((left.unwrap(), looks), (BTreeSet::from([2]), 3));
        let stays = || Ok(BTreeSet::from([1]));
        let began = Instant::now();
        let left = outlasting(BTreeSet::from([1]), within, |_| true, stays).unwrap();
        assert!(began.elapsed() >= within && left.contains(&1));
        let never = || panic!("nothing is doubtful");
        assert_eq!(outlasting(BTreeSet::from([1]), within, |_| false, never).unwrap().len(), 1);
    }

    #[test]
    fn a_walk_that_fails_now_and_then_succeeds_and_one_that_always_fails_does_not() {
        let mut walks = 0;
        let outcome = settled(|| {
            walks += 1;
            if walks == 3 { Ok(walks) } else { Err(walks) }
        });
        assert_eq!(outcome, Ok(3));
        assert_eq!(settled(|| Err::<(), _>("broken")), Err("broken"));
    }

    #[test]
    fn a_quiet_system_costs_one_look() {
        let mut looks = 0;
        let found = lasting(Duration::ZERO, || {
            looks += 1;
            Ok(BTreeSet::<u32>::new())
        });
        assert_eq!((found.unwrap().len(), looks), (0, 1));
    }

    /// Objects live for a while and numbers are used again; whatever the timing, an honest view
    /// never lasts as a difference, and an object that a view leaves out always does.
    #[test]
    fn no_churn_makes_a_difference_last_and_none_hides_a_lasting_one() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..300 {
            // (number, birth): the birth tells users of one number apart.
            let mut alive: BTreeSet<(u64, u64)> = (0..20).map(|number| (number, 0)).collect();
            let hidden = (random(20), 0);
            let mut time = 1;
            let found = lasting(Duration::ZERO, || {
                let mut churn = |alive: &mut BTreeSet<(u64, u64)>| {
                    for _ in 0..random(30) {
                        let number = random(60);
                        let old = alive.iter().find(|key| key.0 == number).copied();
                        match old {
                            Some(old) if old != hidden => _ = alive.remove(&old),
                            Some(_) => {}
                            None => _ = alive.insert((number, time)),
                        }
                        time += 1;
                    }
                };
                let before = alive.clone();
                churn(&mut alive);
                let view: BTreeSet<u64> =
                    alive.iter().filter(|key| **key != hidden).map(|key| key.0).collect();
                churn(&mut alive);
                Ok(missing_from(&before, |key| view.contains(&key.0), &alive))
            });
            // A key that was gone while the view was taken and is back is the same object only if
            // its birth is the same, which never happens here.
            assert_eq!(found.unwrap(), BTreeSet::from([hidden]));
        }
    }
}
