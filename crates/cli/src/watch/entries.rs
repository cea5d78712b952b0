// SPDX-License-Identifier: Apache-2.0
//! Journal entries in words, with who is behind them.

use std::collections::HashMap;

use guard::journal::{Actor, Change, Entry};
use kernel_image::Symbols;
use serde::Serialize;

use crate::clock::{Clock, Moment};

/// What kind of change an entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Code was rewritten.
    TextPoke,
    /// An executable range came.
    SymbolAdded,
    /// An executable range went.
    SymbolRemoved,
    /// A module was loaded.
    ModuleLoaded,
    /// A module was unloaded.
    ModuleUnloaded,
}

/// A process that caused a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Owner {
    pid: u32,
    tid: u32,
    comm: String,
}

impl Owner {
    fn of(actor: &Actor) -> Option<Self> {
        let Actor { pid, tid, comm } = actor.clone();
        (pid != 0).then_some(Self { pid, tid, comm })
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let comm = if self.comm.is_empty() { "a process that is gone" } else { &self.comm };
        write!(f, "{comm} (pid {})", self.pid)
    }
}

/// An entry as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EntryShown {
    pub(crate) time: Moment,
    pub(crate) change: Kind,
    #[serde(serialize_with = "hexadecimal")]
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) symbol: Option<String>,
    pub(crate) what: String,
    pub(crate) owner: Option<Owner>,
    /// Who had added a range that went. The kernel takes many down later, in the name of whoever
    /// runs on that CPU then.
    pub(crate) added_by: Option<Owner>,
}

impl EntryShown {
    /// Who is behind it, in words.
    pub(crate) fn by(&self) -> String {
        match (&self.added_by, &self.owner) {
            (Some(added_by), Some(owner)) if added_by == owner => owner.to_string(),
            (Some(added_by), _) => format!("the kernel; {added_by} had added it"),
            (None, Some(owner)) => owner.to_string(),
            (None, None) => "the kernel".to_owned(),
        }
    }
}

/// Turns entries into what is shown, and knows who added which range.
#[derive(Debug)]
pub(crate) struct Attribution {
    own_pid: u32,
    clock: Clock,
    added: HashMap<u64, (String, Owner)>,
}

impl Attribution {
    /// For the process `own_pid`, whose own entries are not told: each pass raises an event on
    /// purpose, to see whether it arrives.
    pub(crate) fn new(own_pid: u32, clock: Clock) -> Self {
        Self { own_pid, clock, added: HashMap::new() }
    }

    /// An entry as it is shown; none for our own. `what` says what changed, in words.
    pub(crate) fn tell(
        &mut self,
        entry: &Entry,
        symbols: &Symbols,
        what: impl FnOnce() -> String,
    ) -> Option<EntryShown> {
        let owner = Owner::of(&entry.actor);
        let mut added_by = None;
        let mut behind = owner.as_ref();
        if let Change::Symbol { address, registered, name, .. } = &entry.change {
            if *registered {
                if let Some(owner) = &owner {
                    self.added.insert(*address, (name.clone(), owner.clone()));
                }
            } else {
                let known = self.added.remove(address).filter(|(known, _)| known == name);
                added_by = known.map(|(_, owner)| owner);
                // The kernel takes it down in the name of whoever runs on that CPU then.
                behind = added_by.as_ref();
            }
        }
        if behind.is_some_and(|behind| behind.pid == self.own_pid) {
            return None;
        }
        let (change, address, length, symbol) = match &entry.change {
            Change::TextPoke { address, old, new } => {
                let length = old.len().max(new.len()) as u64;
                (Kind::TextPoke, *address, length, place(*address, symbols))
            }
            Change::Symbol { address, length, registered, name, .. } => {
                let kind = if *registered { Kind::SymbolAdded } else { Kind::SymbolRemoved };
                (kind, *address, u64::from(*length), Some(name.clone()))
            }
            Change::Module { address, loaded, name } => {
                let kind = if *loaded { Kind::ModuleLoaded } else { Kind::ModuleUnloaded };
                (kind, *address, 0, Some(name.clone()))
            }
        };
        let time = self.clock.moment(entry.time_ns);
        Some(EntryShown { time, change, address, length, symbol, what: what(), owner, added_by })
    }
}

fn place(address: u64, symbols: &Symbols) -> Option<String> {
    let (symbol, offset) = symbols.containing(address)?;
    Some(match offset {
        0 => symbol.name.to_owned(),
        offset => format!("{}+{offset:#x}", symbol.name),
    })
}

fn hexadecimal<S: serde::Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{address:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol_entry(pid: u32, comm: &str, registered: bool) -> Entry {
        let actor = Actor { pid, tid: pid, comm: comm.into() };
        let name = "bpf_prog_1234_tiny".into();
        let change = Change::Symbol { address: 0x9000, length: 64, registered, kind: 1, name };
        Entry { time_ns: 1, actor, change }
    }

    fn tell(attribution: &mut Attribution, entry: &Entry) -> Option<EntryShown> {
        let symbols = Symbols::from_iter([(0x1000, b't', "patched"), (0x2000, b't', "target")]);
        attribution.tell(entry, &symbols, || "words".into())
    }

    #[test]
    fn a_poke_is_told_with_its_place_and_process() {
        let mut attribution = Attribution::new(1, Clock::new());
        let change = Change::TextPoke { address: 0x1010, old: vec![0; 5], new: vec![1; 5] };
        let actor = Actor { pid: 40, tid: 41, comm: "perf".into() };
        let told = tell(&mut attribution, &Entry { time_ns: 1, actor, change }).unwrap();
        assert_eq!(told.symbol.as_deref(), Some("patched+0x10"));
        assert_eq!((told.by().as_str(), told.what.as_str()), ("perf (pid 40)", "words"));
        assert_eq!((told.change, told.length), (Kind::TextPoke, 5));
    }

    #[test]
    fn a_range_that_the_kernel_takes_down_later_names_who_added_it() {
        let mut attribution = Attribution::new(1, Clock::new());
        tell(&mut attribution, &symbol_entry(40, "loader", true)).unwrap();
        let told = tell(&mut attribution, &symbol_entry(7, "kworker/0:1", false)).unwrap();
        assert_eq!(told.by(), "the kernel; loader (pid 40) had added it");
        let again = tell(&mut attribution, &symbol_entry(7, "kworker/0:1", false)).unwrap();
        assert_eq!(again.by(), "kworker/0:1 (pid 7)");
    }

    #[test]
    fn a_range_of_another_that_is_taken_down_in_our_name_is_told() {
        let mut attribution = Attribution::new(7, Clock::new());
        tell(&mut attribution, &symbol_entry(40, "loader", true)).unwrap();
        let told = tell(&mut attribution, &symbol_entry(7, "ringfence", false)).unwrap();
        assert_eq!(told.by(), "the kernel; loader (pid 40) had added it");
    }

    #[test]
    fn our_own_entries_are_not_told_even_when_the_kernel_takes_them_down() {
        let mut attribution = Attribution::new(40, Clock::new());
        assert!(tell(&mut attribution, &symbol_entry(40, "ringfence", true)).is_none());
        assert!(tell(&mut attribution, &symbol_entry(7, "kworker/0:1", false)).is_none());
        assert!(tell(&mut attribution, &symbol_entry(7, "kworker/0:1", false)).is_some());
    }
}
