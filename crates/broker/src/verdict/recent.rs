// SPDX-License-Identifier: Apache-2.0
//! Questions that are over: who was asked, for those who answer late.

use std::collections::HashMap;

use super::Status;
use super::table::IdHash;
use crate::slot::{Slot, SlotSet};

/// Who had which part in a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// As the question said.
    pub(crate) askers: SlotSet,
    /// Of these, who let the deadline pass or died.
    pub(crate) late: SlotSet,
}

impl Parts {
    /// What an answer gets of somebody whose part is concluded.
    pub(crate) fn status(&self, slot: Slot) -> Status {
        if self.late.contains(slot) {
            Status::TooLate
        } else if self.askers.contains(slot) {
            Status::AlreadyAnswered
        } else {
            Status::NotAsked
        }
    }
}

/// The last ones, as many as there is room for.
#[derive(Debug)]
pub(crate) struct Recent {
    ring: Vec<(u64, Parts)>,
    places: HashMap<u64, usize, IdHash>,
    next: usize,
    room: usize,
}

impl Recent {
    pub(crate) fn new(room: usize) -> Self {
        let room = room.max(1);
        let places = HashMap::with_capacity_and_hasher(room, IdHash::default());
        Self { ring: Vec::with_capacity(room), places, next: 0, room }
    }

    pub(crate) fn get(&self, event_id: u64) -> Option<&Parts> {
        self.places.get(&event_id).and_then(|at| self.ring.get(*at)).map(|(_, parts)| parts)
    }

    pub(crate) fn push(&mut self, event_id: u64, parts: Parts) {
        let at = self.next;
        self.next = (at + 1) % self.room;
        match self.ring.get_mut(at) {
            None => self.ring.push((event_id, parts)),
            Some(place) => {
                self.places.remove(&place.0);
                *place = (event_id, parts);
            }
        }
        self.places.insert(event_id, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::new(2);
        for event_id in 1..=3 {
            recent.push(event_id, Parts::default());
        }
        assert_eq!(recent.get(1), None);
        assert!(recent.get(2).is_some() && recent.get(3).is_some());
        assert_eq!(recent.places.len(), 2);
    }
}
