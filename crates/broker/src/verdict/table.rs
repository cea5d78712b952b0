// SPDX-License-Identifier: Apache-2.0
//! Questions with open parts, by id and by the next deadline.
//!
//! Entries are used again, so a question allocates nothing once there were as many at once before.
//! Deadlines are in a heap that knows where each entry stands in it: what is answered leaves at
//! once, and nothing piles up that waits for a deadline which no longer matters.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Question;
use super::recent::Parts;
use crate::slot::{SLOTS, Slot, SlotSet};
use crate::time::Time;

/// For ids that the kernel gives out: nobody chooses them, so they need not be hashed well.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

pub(crate) type IdHash = BuildHasherDefault<IdHasher>;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio: neighbours end far from each other.
        let mixed = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// A deny, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) slot: Slot,
    pub(crate) error: u16,
    pub(crate) why: super::Why,
}

/// A question with open parts.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) question: Question,
    pub(crate) asked_at: Time,
    /// Who has not answered, and still can.
    pub(crate) open: SlotSet,
    /// Who let the deadline pass or died.
    pub(crate) late: SlotSet,
    /// Whether the task was told.
    pub(crate) settled: bool,
    /// By slot, for those who were asked.
    deadlines: [Time; SLOTS],
    /// The next of those of open parts.
    due: Time,
    /// Counted from the first question.
    serial: u64,
    /// Where it stands in the heap.
    place: usize,
}

impl Entry {
    /// The open parts with the next deadline.
    pub(crate) fn next_parts(&self) -> SlotSet {
        self.open.iter().filter(|slot| self.deadlines[slot.index()] <= self.due).collect()
    }

    /// Of two with one deadline the earlier question goes first, so that the order in which a
    /// client sees its own deadlines pass never depends on others.
    fn turn(&self) -> (Time, u64) {
        (self.due, self.serial)
    }

    /// Who had which part.
    pub(crate) fn parts(&self) -> Parts {
        Parts { askers: self.question.askers, late: self.late }
    }

    fn next_deadline(&self) -> Time {
        let deadlines = self.open.iter().map(|slot| self.deadlines[slot.index()]);
        deadlines.min().unwrap_or(Time::NEVER)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    /// Of these, not in use.
    free: Vec<usize>,
    by_id: HashMap<u64, usize, IdHash>,
    /// Those in use; each has its turn before the two at twice its place.
    heap: Vec<usize>,
    /// How many there were.
    serial: u64,
}

impl Table {
    pub(crate) fn find(&self, event_id: u64) -> Option<usize> {
        self.by_id.get(&event_id).copied()
    }

    pub(crate) fn get(&self, at: usize) -> &Entry {
        &self.entries[at]
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> &mut Entry {
        &mut self.entries[at]
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The next deadline of all.
    pub(crate) fn due(&self) -> Time {
        self.heap.first().map_or(Time::NEVER, |at| self.entries[*at].due)
    }

    /// Whose deadline it is, if it is over.
    pub(crate) fn overdue(&self, now: Time) -> Option<usize> {
        self.heap.first().copied().filter(|at| self.entries[*at].due <= now)
    }

    /// Those with an open part of the client, from the earliest question.
    pub(crate) fn with_part_of(&self, slot: Slot) -> Vec<usize> {
        let mut all = self.all();
        all.retain(|at| self.entries[*at].open.contains(slot));
        all
    }

    /// All, from the earliest question.
    pub(crate) fn all(&self) -> Vec<usize> {
        let mut all = self.heap.clone();
        all.sort_by_key(|at| self.entries[*at].serial);
        all
    }

    /// A new question, with the deadline of each who is asked.
    pub(crate) fn insert(
        &mut self,
        question: Question,
        now: Time,
        asked: SlotSet,
        deadlines: &[Time; SLOTS],
    ) -> usize {
        let place = self.heap.len();
        let mut entry = Entry {
            question,
            asked_at: now,
            open: asked,
            late: SlotSet::EMPTY,
            settled: false,
            deadlines: *deadlines,
            due: Time::NEVER,
            serial: self.serial,
            place,
        };
        self.serial += 1;
        entry.due = entry.next_deadline();
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.by_id.insert(question.event_id, at);
        self.heap.push(at);
        self.rise(place);
        at
    }

    /// Open parts of the entry were concluded.
    pub(crate) fn moved(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        entry.due = entry.next_deadline();
        let place = entry.place;
        // The next deadline can only have become later.
        self.sink(place);
    }

    /// The entry is over.
    pub(crate) fn remove(&mut self, at: usize) {
        let entry = &self.entries[at];
        let place = entry.place;
        self.by_id.remove(&entry.question.event_id);
        self.free.push(at);
        let last = self.heap.len() - 1;
        self.swap(place, last);
        self.heap.pop();
        if place < last {
            self.rise(place);
            self.sink(place);
        }
    }

    fn turn_at(&self, place: usize) -> Option<(Time, u64)> {
        self.heap.get(place).map(|at| self.entries[*at].turn())
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for place in [one, other] {
            self.entries[self.heap[place]].place = place;
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.turn_at(above) <= self.turn_at(place) {
                break;
            }
            self.swap(place, above);
            place = above;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (place * 2 + 1, place * 2 + 2);
            let Some(mut least) = self.turn_at(left) else { break };
            let mut below = left;
            if let Some(turn) = self.turn_at(right)
                && turn < least
            {
                (least, below) = (turn, right);
            }
            if self.turn_at(place).is_some_and(|turn| turn <= least) {
                break;
            }
            self.swap(place, below);
            place = below;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::EventType;
    use crate::slot::{FileKey, ProcessKey};

    fn question(event_id: u64) -> Question {
        Question {
            event_id,
            time: Time::default(),
            event: EventType::from_name("process_exec").expect("an event"),
            file: FileKey::default(),
            process: ProcessKey::default(),
            askers: SlotSet(0b11),
            cacheable: true,
        }
    }

    proptest! {
        #[test]
        fn the_next_deadline_is_always_the_first(
            steps in prop::collection::vec((0..3_u8, 0..50_u64, 0..50_u64), 1..120),
        ) {
            let mut table = Table::default();
            let mut dues: Vec<(u64, [u64; 2])> = Vec::new();
            for (id, (step, one, two)) in steps.into_iter().enumerate() {
                let id = id as u64;
                let pick = |count: usize| one as usize % count;
                match step {
                    1 if !dues.is_empty() => {
                        let (id, _) = dues.swap_remove(pick(dues.len()));
                        table.remove(table.find(id).expect("an entry"));
                        prop_assert_eq!(table.find(id), None);
                    }
                    2 if !dues.is_empty() => {
                        let place = pick(dues.len());
                        let (id, deadlines) = &mut dues[place];
                        deadlines[0] = u64::MAX;
                        let at = table.find(*id).expect("an entry");
                        table.get_mut(at).open.remove(Slot::new(0).expect("a slot"));
                        table.moved(at);
                    }
                    _ => {
                        let mut deadlines = [Time::NEVER; SLOTS];
                        (deadlines[0], deadlines[1]) = (Time(one), Time(two));
                        table.insert(question(id), Time(0), SlotSet(0b11), &deadlines);
                        dues.push((id, [one, two]));
                    }
                }
                let least = dues.iter().flat_map(|(_, deadlines)| deadlines).min();
                prop_assert_eq!(table.due(), Time(least.copied().unwrap_or(u64::MAX)));
                prop_assert_eq!(table.len(), dues.len());
            }
        }
    }
}
