// SPDX-License-Identifier: Apache-2.0
//! What the kernel said it changed, as it changed it.
//!
//! The kernel tells perf about each change of its own text (`PERF_RECORD_TEXT_POKE`) and each
//! executable range that it creates or drops (`PERF_RECORD_KSYMBOL`; both in
//! include/uapi/linux/perf_event.h, 5.8 and later). A change in memory without an entry here came
//! by another way. Modules are told of by the kernel's tracepoints (include/trace/events/module.h).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who caused a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// Process id (thread group), 0 for the kernel itself.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The name of the thread when the entry was read; empty where it was gone already.
    pub comm: String,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Code was rewritten.
    TextPoke {
        /// Where.
        address: u64,
        /// The bytes before; empty where code was put into fresh memory.
        old: Vec<u8>,
        /// The bytes after; empty where code was taken away.
        new: Vec<u8>,
    },
    /// An executable range came or went: a BPF program, an ftrace trampoline, a kprobe slot.
    Symbol {
        /// Where it starts.
        address: u64,
        /// Its length in bytes.
        length: u32,
        /// Whether it came (or went).
        registered: bool,
        /// `PERF_RECORD_KSYMBOL_TYPE_*`: 1 BPF, 2 out of line (ftrace, kprobes).
        kind: u16,
        /// Its name.
        name: String,
    },
    /// A module was loaded, before its own code first ran, or unloaded.
    Module {
        /// Where its `struct module` is.
        address: u64,
        /// Whether it was loaded (or unloaded).
        loaded: bool,
        /// Its name.
        name: String,
    },
}

/// A change, when it was made and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds, CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Who caused it.
    pub actor: Actor,
    /// What changed.
    pub change: Change,
}

/// The entries since the last pass, and whether any were lost.
///
/// It holds a bounded number of entries; what falls out counts as lost, because a pass can then no
/// longer say of a change that nothing announced it.
#[derive(Debug)]
pub struct Journal {
    running: Result<(), String>,
    text_pokes: Result<(), String>,
    entries: VecDeque<Entry>,
    lost: u64,
    limit: usize,
    doubted: AtomicBool,
}

impl Journal {
    /// A journal that the kernel feeds.
    pub fn running(limit: usize) -> Self {
        Self {
            running: Ok(()),
            text_pokes: Ok(()),
            entries: VecDeque::new(),
            lost: 0,
            limit,
            doubted: false.into(),
        }
    }

    /// No journal, and why.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            running: Err(reason.clone()),
            text_pokes: Err(reason),
            entries: VecDeque::new(),
            lost: 0,
            limit: 0,
            doubted: false.into(),
        }
    }

    /// Whether the kernel feeds it, and if not, why not.
    pub fn state(&self) -> Result<(), &str> {
        self.running.as_ref().copied().map_err(String::as_str)
    }

    /// Notes that the kernel tells of executable ranges but not of changes to its text, and why
    /// that is known. A change of text without an entry means nothing then.
    pub fn without_text_pokes(mut self, reason: impl Into<String>) -> Self {
        self.text_pokes = Err(reason.into());
        self
    }

    /// Whether the kernel tells of changes to its text, and if not, why not.
    pub fn text_pokes(&self) -> Result<(), &str> {
        self.text_pokes.as_ref().copied().map_err(String::as_str)
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: Entry) {
        if self.entries.len() >= self.limit {
            self.entries.pop_front();
            self.lost += 1;
        }
        self.entries.push_back(entry);
    }

    /// Notes that the kernel dropped `count` entries.
    pub fn add_lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// How many entries are missing since the last [`Journal::forget_before`].
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Says that something is missed that should have been announced. Whoever feeds the journal then looks
    /// whether the kernel still tells him what it does, and counts as lost what it did not.
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Whether something was missed since this was last asked.
    pub fn is_doubted(&self) -> bool {
        self.doubted.swap(false, Ordering::Relaxed)
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The newest text poke that touches a byte of `[address, address + length)`.
    pub fn poke_at(&self, address: u64, length: u64) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| match &entry.change {
            Change::TextPoke { address: at, old, new } => {
                let span = old.len().max(new.len()) as u64;
                *at < address.saturating_add(length) && address < at.saturating_add(span)
            }
            Change::Symbol { .. } | Change::Module { .. } => false,
        })
    }

    /// Drops what is older than `time_ns` (a pass has dealt with it) and the count of lost entries.
    pub fn forget_before(&mut self, time_ns: u64) {
        self.entries.retain(|entry| entry.time_ns >= time_ns);
        self.lost = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poke(time_ns: u64, address: u64) -> Entry {
        let change = Change::TextPoke { address, old: vec![0; 5], new: vec![1; 5] };
        Entry { time_ns, actor: Actor::default(), change }
    }

    #[test]
    fn a_poke_is_found_by_any_of_its_bytes() {
        let mut journal = Journal::running(8);
        journal.push(poke(1, 0x100));
        assert!(journal.poke_at(0x104, 1).is_some());
        assert!(journal.poke_at(0x105, 1).is_none());
        assert!(journal.poke_at(0xf0, 0x11).is_some());
    }

    #[test]
    fn what_does_not_fit_counts_as_lost() {
        let mut journal = Journal::running(2);
        for time in 0..5 {
            journal.push(poke(time, 0x100));
        }
        assert_eq!((journal.entries().count(), journal.lost()), (2, 3));
        journal.forget_before(4);
        assert_eq!((journal.entries().count(), journal.lost()), (1, 0));
    }
}
