// SPDX-License-Identifier: Apache-2.0
//! Who is meant: clients by id, by slot and in sets; processes and files by key.

use std::fmt;

/// How many clients there can be at once: a set of them is one 64-bit word.
pub const SLOTS: usize = 64;

/// The place of a client in every table of the kernel and of the broker. It belongs to a grant, not
/// to a session: rules that outlive a session are still this client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    pub(crate) const FIRST: Self = Self(0);

    /// `None` from 64 on.
    #[must_use]
    pub fn new(index: usize) -> Option<Self> {
        (index < SLOTS).then(|| u8::try_from(index).ok().map(Self)).flatten()
    }

    /// All, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).filter_map(Self::new)
    }

    /// 0 to 63.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of clients: bit by slot.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SlotSet(pub u64);

impl SlotSet {
    /// Nobody.
    pub const EMPTY: Self = Self(0);

    /// Whether the client is in it.
    #[must_use]
    pub fn contains(self, slot: Slot) -> bool {
        self.0 >> slot.index() & 1 == 1
    }

    /// Puts the client in.
    pub fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot.index();
    }

    /// Takes the client out; whether it was in.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let was = self.contains(slot);
        self.0 &= !(1 << slot.index());
        was
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Who is in it, by slot.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let slot = Slot::new(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(slot)
        })
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Slot::index)).finish()
    }
}

/// A process until the next boot; `ringfence_process_key` without its padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Of its thread group, in the initial pid namespace.
    pub pid: u32,
    /// When its first thread started: CLOCK_BOOTTIME in nanoseconds.
    pub start: u64,
}

/// The contents of a file, as far as the kernel tells them apart: see `ringfence_file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// major << 20 | minor of its file system.
    pub device: u64,
    /// Number of its inode; 0 for no file.
    pub inode: u64,
    /// Changes with its contents and attributes.
    pub version: u64,
}

impl FileKey {
    /// Whether there is a file at all: a module or program can come from memory.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.inode != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_back_whom_it_was_given() {
        let slots: Vec<_> = [0, 5, 63].into_iter().filter_map(Slot::new).collect();
        let mut set: SlotSet = slots.iter().copied().collect();
        assert_eq!(set.0, 1 | 1 << 5 | 1 << 63);
        assert_eq!(set.iter().collect::<Vec<_>>(), slots);
        assert!(set.remove(slots[1]) && !set.remove(slots[1]));
        assert_eq!(set.count(), 2);
        assert_eq!(Slot::new(64), None);
    }
}
