// SPDX-License-Identifier: Apache-2.0
//! What a client said of which file, so that it need not be asked again.
//!
//! Each client has a cache of its own: what one refuses to cache, or clears, costs the others
//! nothing. It holds only answers that the client gave and said to be good for this version of the
//! file; never what a grant declares for the case that no answer comes. It is bounded, and the
//! entry that was longest not used makes room. It ends with the connection: a product that starts
//! again may know more.

use std::collections::HashMap;

use crate::event::EventType;
use crate::slot::FileKey;
use crate::verdict::Verdict;

/// About what a verdict is.
pub(crate) type Key = (EventType, FileKey);

/// No entry; stands before the first and behind the last.
const NONE: u32 = u32::MAX;

struct Entry {
    key: Key,
    verdict: Verdict,
    /// Used more lately.
    newer: u32,
    /// Used less lately.
    older: u32,
}

/// See the module.
pub(crate) struct Cache {
    limit: usize,
    // Keys are chosen by whoever makes files, so the hash must not be known to them.
    places: HashMap<Key, u32>,
    entries: Vec<Entry>,
    newest: u32,
    oldest: u32,
}

impl Cache {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit: limit as usize,
            places: HashMap::new(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the client said, which is used now.
    pub(crate) fn get(&mut self, key: &Key) -> Option<Verdict> {
        let at = *self.places.get(key)?;
        self.unlink(at);
        self.link_newest(at);
        self.entries.get(at as usize).map(|entry| entry.verdict)
    }

    /// Keeps what the client says, and gives back whose room it took.
    pub(crate) fn insert(&mut self, key: Key, verdict: Verdict) -> Option<Key> {
        if self.limit == 0 {
            return None;
        }
        if self.get(&key).is_some() {
            // It is the newest now.
            if let Some(entry) = self.entries.get_mut(self.newest as usize) {
                entry.verdict = verdict;
            }
            return None;
        }
        let evicted = (self.entries.len() >= self.limit).then(|| self.remove_oldest()).flatten();
        let at = u32::try_from(self.entries.len()).unwrap_or(NONE);
        self.entries.push(Entry { key, verdict, newer: NONE, older: NONE });
        self.places.insert(key, at);
        self.link_newest(at);
        evicted
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let Some(at) = self.places.remove(key) else { return false };
        self.unlink(at);
        // The last entry takes its place.
        self.entries.swap_remove(at as usize);
        if let Some(moved) = self.entries.get(at as usize) {
            let (key, newer, older) = (moved.key, moved.newer, moved.older);
            self.places.insert(key, at);
            self.point_newer(older, at);
            self.point_older(newer, at);
        }
        true
    }

    /// Whether there was anything.
    pub(crate) fn clear(&mut self) -> bool {
        let was = !self.is_empty();
        *self = Self::new(u32::try_from(self.limit).unwrap_or(u32::MAX));
        was
    }

    /// Sets how much there may be; what is too much is for `evict`.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit as usize;
    }

    /// The next of those that are too many.
    pub(crate) fn evict(&mut self) -> Option<Key> {
        (self.entries.len() > self.limit).then(|| self.remove_oldest()).flatten()
    }

    fn remove_oldest(&mut self) -> Option<Key> {
        let key = self.entries.get(self.oldest as usize)?.key;
        self.remove(&key);
        Some(key)
    }

    fn unlink(&mut self, at: u32) {
        let Some(entry) = self.entries.get(at as usize) else { return };
        let (newer, older) = (entry.newer, entry.older);
        self.point_older(newer, older);
        self.point_newer(older, newer);
    }

    fn link_newest(&mut self, at: u32) {
        let before = self.newest;
        if let Some(entry) = self.entries.get_mut(at as usize) {
            (entry.newer, entry.older) = (NONE, before);
        }
        self.newest = at;
        self.point_newer(before, at);
    }

    /// Of `at`, or of the list if there is none, the older neighbour.
    fn point_older(&mut self, at: u32, older: u32) {
        match self.entries.get_mut(at as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    fn point_newer(&mut self, at: u32, newer: u32) {
        match self.entries.get_mut(at as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOW: Verdict = Verdict::Allow;
    const DENY: Verdict = Verdict::Deny { error: 1 };

    fn key(inode: u64) -> Key {
        let event = EventType::from_name("process_exec").expect("an event");
        (event, FileKey { device: 1, inode, version: 1 })
    }

    #[test]
    fn what_was_longest_not_used_makes_room() {
        let mut cache = Cache::new(2);
        assert_eq!(cache.insert(key(1), ALLOW), None);
        assert_eq!(cache.insert(key(2), DENY), None);
        assert_eq!(cache.get(&key(1)), Some(ALLOW));
        assert_eq!(cache.insert(key(3), ALLOW), Some(key(2)));
        assert_eq!(cache.get(&key(2)), None);
        assert_eq!(cache.insert(key(1), DENY), None);
        assert_eq!(cache.get(&key(1)), Some(DENY));
        assert!(cache.clear());
        assert_eq!(cache.get(&key(1)), None);
        assert_eq!(cache.insert(key(9), DENY), None);
    }

    #[test]
    fn another_version_of_a_file_or_another_event_is_another_key() {
        let mut cache = Cache::new(8);
        let (event, file) = key(1);
        cache.insert((event, file), ALLOW);
        assert_eq!(cache.get(&(event, FileKey { version: 2, ..file })), None);
        let other = EventType::from_name("image_map").expect("an event");
        assert_eq!(cache.get(&(other, file)), None);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut cache = Cache::new(0);
        assert_eq!(cache.insert(key(1), ALLOW), None);
        assert_eq!(cache.len(), 0);
    }

    proptest! {
        /// Against a list that is sorted by use.
        #[test]
        fn it_is_what_a_plain_list_would_be(
            limit in 1_u32..5,
            steps in prop::collection::vec((0..5_u8, 0..7_u64, any::<bool>()), 0..200),
        ) {
            let mut cache = Cache::new(limit);
            let mut list: Vec<(Key, Verdict)> = Vec::new();
            for (step, inode, deny) in steps {
                let key = key(inode);
                let place = list.iter().position(|(known, _)| *known == key);
                let verdict = if deny { DENY } else { ALLOW };
                match step {
                    0 | 1 => {
                        if let Some(place) = place {
                            list.remove(place);
                        }
                        let full = list.len() >= limit as usize;
                        let evicted = full.then(|| list.remove(0).0);
                        list.push((key, verdict));
                        prop_assert_eq!(cache.insert(key, verdict), evicted);
                    }
                    2 | 3 => {
                        let expected = place.map(|place| {
                            let entry = list.remove(place);
                            list.push(entry);
                            entry.1
                        });
                        prop_assert_eq!(cache.get(&key), expected);
                    }
                    _ => {
                        prop_assert_eq!(cache.remove(&key), place.is_some());
                        place.map(|place| list.remove(place));
                    }
                }
                prop_assert_eq!(cache.len(), list.len());
            }
            cache.set_limit(0);
            let evicted: Vec<_> = std::iter::from_fn(|| cache.evict()).collect();
            let expected: Vec<_> = list.into_iter().map(|(key, _)| key).collect();
            prop_assert_eq!(evicted, expected);
        }
    }
}
