// SPDX-License-Identifier: Apache-2.0
//! What a client does not want to be told of, and the inverse: the only things that it does.
//!
//! The kernel does the muting; this is the list that it is given, within the limit of the grant.

use std::collections::BTreeMap;

use crate::event::EventSet;
use crate::slot::{FileKey, ProcessKey};

/// The longest prefix of a path, in bytes: the kernel looks for it in a trie of no longer keys
/// (LPM_DATA_SIZE_MAX, kernel/bpf/lpm_trie.c, 256 with the two that say whose it is).
pub const MUTE_PATH_MAX: usize = 254;

/// Whose events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MuteTarget {
    /// Those of a process.
    Process(ProcessKey),
    /// Those of processes that run this version of a file.
    Executable(FileKey),
    /// Those with a file whose path begins so; a slash at the end for a folder.
    Path(Box<[u8]>),
    /// Those of processes in a cgroup, by id.
    Cgroup(u64),
}

/// Kinds of targets; each can be inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MuteKind {
    /// [`MuteTarget::Process`].
    Process,
    /// [`MuteTarget::Executable`].
    Executable,
    /// [`MuteTarget::Path`].
    Path,
    /// [`MuteTarget::Cgroup`].
    Cgroup,
}

/// Why a mute is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MuteError {
    /// See the text.
    #[error("there are {0} mutes already, as many as the grant allows")]
    Full(u32),
    /// See the text.
    #[error("a path to mute is absolute, without zeros, and has at most {MUTE_PATH_MAX} bytes")]
    Path,
    /// See the text.
    #[error("no event is named")]
    NoEvents,
    /// The session has ended, or was never this client's.
    #[error("there is no such session")]
    NoSession,
}

/// All mutes of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutes {
    events: BTreeMap<MuteTarget, EventSet>,
    inverted: [bool; 4],
}

impl MuteTarget {
    /// Of which kind it is.
    #[must_use]
    pub fn kind(&self) -> MuteKind {
        match self {
            Self::Process(_) => MuteKind::Process,
            Self::Executable(_) => MuteKind::Executable,
            Self::Path(_) => MuteKind::Path,
            Self::Cgroup(_) => MuteKind::Cgroup,
        }
    }
}

impl Mutes {
    /// Each target with the types of events that are muted for it.
    pub fn iter(&self) -> impl Iterator<Item = (&MuteTarget, EventSet)> {
        self.events.iter().map(|(target, events)| (target, *events))
    }

    /// How many targets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether targets of this kind select instead: only their events are told.
    #[must_use]
    pub fn is_inverted(&self, kind: MuteKind) -> bool {
        self.inverted[kind as usize]
    }

    pub(crate) fn invert(&mut self, kind: MuteKind, inverted: bool) {
        self.inverted[kind as usize] = inverted;
    }

    /// Adds types of events to a target; all that are muted for it now.
    pub(crate) fn add(
        &mut self,
        target: MuteTarget,
        events: EventSet,
        limit: u32,
    ) -> Result<EventSet, MuteError> {
        if events == EventSet::EMPTY {
            return Err(MuteError::NoEvents);
        }
        if let MuteTarget::Path(path) = &target {
            let good =
                path.first() == Some(&b'/') && path.len() <= MUTE_PATH_MAX && !path.contains(&0);
            if !good {
                return Err(MuteError::Path);
            }
        }
        let count = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        if count >= limit && !self.events.contains_key(&target) {
            return Err(MuteError::Full(limit));
        }
        let muted = self.events.entry(target).or_default();
        muted.0 |= events.0;
        Ok(*muted)
    }

    /// Takes types of events from a target; those that are still muted for it.
    pub(crate) fn remove(&mut self, target: &MuteTarget, events: EventSet) -> EventSet {
        let Some(muted) = self.events.get_mut(target) else { return EventSet::EMPTY };
        muted.0 &= !events.0;
        let left = *muted;
        if left == EventSet::EMPTY {
            self.events.remove(target);
        }
        left
    }

    /// The process has ended, and no other will have its key.
    pub(crate) fn process_ended(&mut self, process: ProcessKey) -> bool {
        self.events.remove(&MuteTarget::Process(process)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEC: EventSet = EventSet(1 << 1);
    const FORK: EventSet = EventSet(1 << 2);

    #[test]
    fn the_limit_is_for_targets_and_not_for_types_of_events() {
        let mut mutes = Mutes::default();
        assert_eq!(mutes.add(MuteTarget::Cgroup(1), EXEC, 1), Ok(EXEC));
        assert_eq!(mutes.add(MuteTarget::Cgroup(1), FORK, 1), Ok(EventSet(EXEC.0 | FORK.0)));
        assert_eq!(mutes.add(MuteTarget::Cgroup(2), FORK, 1), Err(MuteError::Full(1)));
        assert_eq!(mutes.remove(&MuteTarget::Cgroup(1), EXEC), FORK);
        assert_eq!(mutes.remove(&MuteTarget::Cgroup(1), FORK), EventSet::EMPTY);
        assert_eq!(mutes.add(MuteTarget::Cgroup(2), FORK, 1), Ok(FORK));
    }

    #[test]
    fn paths_are_held_to_what_the_kernel_can_look_for() {
        let mut mutes = Mutes::default();
        let mut add = |path: &[u8]| mutes.add(MuteTarget::Path(path.into()), EXEC, 9);
        assert_eq!(add(b"/usr/lib/"), Ok(EXEC));
        let long = [b'/'; MUTE_PATH_MAX + 1];
        for path in [&b""[..], b"usr", b"/a\0b", &long] {
            assert_eq!(add(path), Err(MuteError::Path));
        }
        assert_eq!(mutes.add(MuteTarget::Cgroup(1), EventSet::EMPTY, 9), Err(MuteError::NoEvents));
        assert_eq!(mutes.len(), 1);
    }

    #[test]
    fn a_process_that_ended_makes_room() {
        let mut mutes = Mutes::default();
        let process = ProcessKey { pid: 7, start: 1 };
        mutes.add(MuteTarget::Process(process), EXEC, 1).expect("room");
        assert!(!mutes.process_ended(ProcessKey { pid: 7, start: 2 }));
        assert!(mutes.process_ended(process) && mutes.is_empty());
    }

    #[test]
    fn each_kind_is_inverted_by_itself() {
        let mut mutes = Mutes::default();
        mutes.invert(MuteKind::Path, true);
        assert!(mutes.is_inverted(MuteTarget::Path(Box::from(*b"/")).kind()));
        assert!(!mutes.is_inverted(MuteTarget::Cgroup(1).kind()));
    }
}
