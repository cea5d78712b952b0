// SPDX-License-Identifier: Apache-2.0
//! What clients do not want to hear of, kept for all of them together.
//!
//! In the kernel each kind of mute is one map whose values are sets of clients, so that one look-up
//! answers for all. This is what should be in those maps; what an entry becomes when a client mutes
//! or unmutes is worked out here, without a kernel.

use std::collections::BTreeMap;

/// Something that a client does not want to hear of (or, if its mutes are inverted, the only things
/// that it wants to hear of). It is the actor of the event that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mute {
    /// A process: its id in the initial pid namespace, and when its first thread started
    /// (CLOCK_BOOTTIME, in nanoseconds). Does not end with the process.
    Process {
        /// Thread group id.
        pid: u32,
        /// `ringfence_process_key.start`.
        start: u64,
    },
    /// Whoever runs this file.
    Executable {
        /// `ringfence_file.device`.
        device: u64,
        /// `ringfence_file.inode`.
        inode: u64,
    },
    /// A cgroup (v2) by its id, without those below it.
    Cgroup(u64),
    /// Whoever runs a file whose path begins so, in bytes: 1 to 256 of them. End it with a slash to
    /// mean a directory. A file has as many paths as it has hard links.
    Path(Vec<u8>),
}

/// A set of clients for each key.
pub(super) type Sets<K> = BTreeMap<K, u64>;

/// All mutes of all clients.
#[derive(Debug, Default)]
pub(super) struct Mutes {
    pub(super) processes: Sets<(u32, u64)>,
    pub(super) executables: Sets<(u64, u64)>,
    pub(super) cgroups: Sets<u64>,
    /// Each prefix with those who mute just it.
    pub(super) paths: Sets<Vec<u8>>,
}

/// Sets or clears clients of an entry; gives what it is then, 0 if it is gone.
fn change<K: Ord + Clone>(sets: &mut Sets<K>, key: &K, clients: u64, on: bool) -> u64 {
    let entry = sets.entry(key.clone()).or_default();
    if on {
        *entry |= clients;
    } else {
        *entry &= !clients;
    }
    let now = *entry;
    if now == 0 {
        sets.remove(key);
    }
    now
}

/// Who mutes anything.
fn any<K>(sets: &Sets<K>) -> u64 {
    sets.values().fold(0, |all, clients| all | clients)
}

impl Mutes {
    /// Adds or takes away a mute of a client. Gives the entry's clients then; not for paths, see
    /// [`Mutes::path_entries`].
    pub(super) fn change(&mut self, slot: u32, mute: &Mute, on: bool) -> u64 {
        let client = 1 << slot;
        match mute {
            Mute::Process { pid, start } => {
                change(&mut self.processes, &(*pid, *start), client, on)
            }
            Mute::Executable { device, inode } => {
                change(&mut self.executables, &(*device, *inode), client, on)
            }
            Mute::Cgroup(id) => change(&mut self.cgroups, id, client, on),
            Mute::Path(prefix) => change(&mut self.paths, prefix, client, on),
        }
    }

    /// What the entries of a trie are to be once the prefix has changed: of the longest prefixes of a
    /// path only one is found, so it must have the clients of all that are shorter. The prefix itself
    /// has 0 if it is to go.
    pub(super) fn path_entries(&self, prefix: &[u8]) -> Vec<(Vec<u8>, u64)> {
        let longer = self.paths.range(prefix.to_vec()..).map(|(path, _)| path);
        let mut affected: Vec<_> = longer.take_while(|path| path.starts_with(prefix)).collect();
        let own = prefix.to_vec();
        if !self.paths.contains_key(prefix) {
            affected.push(&own);
        }
        let clients = |path: &[u8]| {
            let shorter = (1..=path.len()).filter_map(|end| self.paths.get(path.get(..end)?));
            shorter.fold(0, |all, clients| all | clients)
        };
        let gone = |path: &[u8]| !self.paths.contains_key(path);
        let entries = affected
            .into_iter()
            .map(|path| (path.clone(), if gone(path) { 0 } else { clients(path) }));
        entries.collect()
    }

    /// All mutes of a client.
    pub(super) fn of(&self, slot: u32) -> Vec<Mute> {
        let has = |clients: &u64| clients & (1 << slot) != 0;
        let processes = self.processes.iter().filter(|(_, clients)| has(clients));
        let executables = self.executables.iter().filter(|(_, clients)| has(clients));
        let cgroups = self.cgroups.iter().filter(|(_, clients)| has(clients));
        let paths = self.paths.iter().filter(|(_, clients)| has(clients));
        processes
            .map(|((pid, start), _)| Mute::Process { pid: *pid, start: *start })
            .chain(
                executables.map(|((device, inode), _)| Mute::Executable {
                    device: *device,
                    inode: *inode,
                }),
            )
            .chain(cgroups.map(|(id, _)| Mute::Cgroup(*id)))
            .chain(paths.map(|(path, _)| Mute::Path(path.clone())))
            .collect()
    }

    /// Who mutes by process, executable, cgroup and path.
    pub(super) fn words(&self) -> [u64; 4] {
        [any(&self.processes), any(&self.executables), any(&self.cgroups), any(&self.paths)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Mute {
        Mute::Path(text.as_bytes().to_vec())
    }

    /// The trie as the kernel would have it, and its answer.
    #[derive(Default)]
    struct Trie(BTreeMap<Vec<u8>, u64>);

    impl Trie {
        fn apply(&mut self, entries: Vec<(Vec<u8>, u64)>) {
            for (prefix, clients) in entries {
                if clients == 0 {
                    self.0.remove(&prefix);
                } else {
                    self.0.insert(prefix, clients);
                }
            }
        }

        fn longest(&self, path: &[u8]) -> u64 {
            (1..=path.len()).rev().find_map(|end| self.0.get(&path[..end])).copied().unwrap_or(0)
        }
    }

    #[test]
    fn the_longest_prefix_answers_for_all_that_are_shorter() {
        let (mut mutes, mut trie) = (Mutes::default(), Trie::default());
        let steps = [
            (0, "/usr/bin/", true),
            (1, "/usr/", true),
            (2, "/usr/bin/python", true),
            (3, "/opt/", true),
            (1, "/usr/bin/", true),
            (0, "/usr/bin/", false),
            (1, "/usr/", false),
            (1, "/usr/bin/", false),
        ];
        let asked = ["/usr/bin/python3", "/usr/bin/true", "/usr/lib/x", "/opt/a", "/", "/usr"];
        for (slot, prefix, on) in steps {
            mutes.change(slot, &path(prefix), on);
            trie.apply(mutes.path_entries(prefix.as_bytes()));
            for asked in asked {
                let matching = mutes.paths.iter().filter(|(p, _)| asked.as_bytes().starts_with(p));
                let expected = matching.fold(0, |all, (_, clients)| all | clients);
                assert_eq!(trie.longest(asked.as_bytes()), expected, "{asked} after {prefix}");
            }
        }
        assert_eq!(trie.longest(b"/usr/bin/python3"), 0b100);
        assert_eq!(trie.longest(b"/usr/bin/true"), 0);
    }

    #[test]
    fn a_client_has_its_own_mutes_and_nobody_elses() {
        let mut mutes = Mutes::default();
        let both = Mute::Process { pid: 7, start: 9 };
        assert_eq!(mutes.change(1, &both, true), 0b10);
        assert_eq!(mutes.change(5, &both, true), 0b10_0010);
        mutes.change(5, &Mute::Cgroup(3), true);
        assert_eq!(mutes.words(), [0b10_0010, 0, 0b10_0000, 0]);
        assert_eq!(mutes.of(5), [both.clone(), Mute::Cgroup(3)]);
        for mute in mutes.of(5) {
            mutes.change(5, &mute, false);
        }
        assert_eq!(mutes.words(), [0b10, 0, 0, 0]);
        assert_eq!(mutes.of(1), [both]);
    }

    #[test]
    fn what_was_never_muted_can_be_unmuted() {
        let mut mutes = Mutes::default();
        assert_eq!(mutes.change(0, &Mute::Cgroup(1), false), 0);
        assert_eq!(mutes.words(), [0; 4]);
    }
}
